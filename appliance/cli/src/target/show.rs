//! What a probe found, for people.

use std::fmt::Write;
use strongroom_offsite::probe::{Report, Verdict};

/// One line for each finding, and one for its advice.
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let verdict = match finding.verdict {
            Verdict::Good => "good ",
            Verdict::Note => "note ",
            Verdict::Wrong => "WRONG",
        };
        let _ = writeln!(text, "{verdict}  {}", finding.text);
        if !finding.advice.is_empty() {
            let _ = writeln!(text, "       {}", finding.advice);
        }
    }
    text
}
