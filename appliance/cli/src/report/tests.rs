use super::*;
use std::collections::BTreeMap;
use std::io::Read;

fn unpacked(bundle: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bundle));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    entries.collect()
}

#[test]
fn whatever_fails_is_told_and_the_bundle_is_made() {
    let members: &[Member] = &[
        ("status.json", "a", &[StatusJson]),
        ("a.txt", "b", &[File("/nonexistent"), Program(&["/nonexistent/x"], 10)]),
        ("b.txt", "c", &[Program(&["printf", "password=hunter2\\n"], 100)]),
        ("c.txt", "d", &[Each("/nonexistent", "report.json")]),
    ];
    let bundle = bundle(members, Err("(no answer)\n"), TOTAL_MAX).unwrap();
    let files = unpacked(&bundle);
    assert_eq!(files.len(), 5);
    assert_eq!(files["strongroom-report/status.json"], "(no answer)\n");
    assert!(files["strongroom-report/a.txt"].contains("could not be started"));
    assert_eq!(
        files["strongroom-report/b.txt"],
        "== printf password=hunter2\\n\npassword=(removed)\n\n"
    );
    let readme = &files["strongroom-report/README.txt"];
    assert!(members.iter().all(|(name, ..)| readme.contains(name)), "{readme}");
}

#[test]
fn it_is_bounded() {
    let members: &[Member] = &[
        (
            "large.txt",
            "",
            &[Program(&["head", "-c", "20000", "/dev/zero"], 1 << 20)],
        ),
        ("small.txt", "", &[Program(&["echo", "x"], 100)]),
    ];
    let files = unpacked(&bundle(members, Ok("{}"), 10_000).unwrap());
    assert!(files["strongroom-report/large.txt"].contains("left out"));
    assert!(files["strongroom-report/small.txt"].contains('x'));
    // What the members may hold by their own bounds leaves room for all of them.
    let most: usize = MEMBERS
        .iter()
        .flat_map(|(_, _, sources)| sources.iter())
        .map(|source| match source {
            Program(_, limit) => *limit,
            _ => PART_MAX,
        })
        .sum();
    assert!(most <= TOTAL_MAX + (4 << 20), "{most}");
}

#[test]
fn every_member_has_a_name_of_its_own_that_fits_the_list() {
    let names: std::collections::BTreeSet<&str> = MEMBERS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), MEMBERS.len());
    assert!(names.iter().all(|name| name.len() < 28));
}
