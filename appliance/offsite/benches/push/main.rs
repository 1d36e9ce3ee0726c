//! A full push against other tools on this machine, over TLS to a sink on loopback that keeps nothing.
//!
//! `cargo bench -p strongroom-offsite --bench push -- --mb 1300 --pairs 5`
//!
//! Prints what each took, as ratios to ours; judges nothing. Every contestant is a process of its own, and they take turns,
//! so that whatever else the machine does falls on all alike. Tools that are not installed are left out with a sentence.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench may fail loudly"
)]

mod contestants;
mod corpus;
mod measure;
mod sink;
#[path = "../../tests/support/mod.rs"]
mod support;

use contestants::{Contestant, Place};
use measure::Cost;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // The same program once more: as the sink, and as our own contestant.
        Some("sink") => sink::run(arguments[1].as_ref()),
        Some("push") => contestants::push_here(&arguments[1..]),
        _ => compare(&arguments),
    }
}

fn number(arguments: &[String], name: &str, usual: usize) -> usize {
    let at = arguments.iter().position(|argument| argument == name);
    at.map_or(usual, |at| {
        arguments[at + 1].parse().expect("a number after --mb or --pairs")
    })
}

fn compare(arguments: &[String]) {
    let (megabytes, pairs) = (number(arguments, "--mb", 1300), number(arguments, "--pairs", 5));
    let place = Place::new(megabytes * 1_000_000);
    let contestants: Vec<Contestant> = Contestant::ALL.into_iter().filter(|one| one.is_here()).collect();
    println!(
        "a full push of {megabytes} MB in segments of at most 500 MB, TLS to a null sink, {pairs} rounds in turns"
    );
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); contestants.len()];
    for round in 0..pairs {
        for at in 0..contestants.len() {
            // Another one begins each time.
            let at = (at + round) % contestants.len();
            costs[at].push(place.run(contestants[at]));
        }
    }
    let medians: Vec<Cost> = costs.iter().map(|costs| Cost::median(costs)).collect();
    println!("{:44} {:>9} {:>9} {:>9}", "median", "CPU s", "wall s", "peak MiB");
    for (contestant, cost) in contestants.iter().zip(&medians) {
        println!(
            "{:44} {:>9.2} {:>9.2} {:>9.0}",
            contestant.name(),
            cost.cpu,
            cost.wall,
            cost.peak
        );
    }
    for (ours, mine) in contestants.iter().zip(&medians).filter(|(one, _)| one.is_ours()) {
        for (other, cost) in contestants.iter().zip(&medians).filter(|(one, _)| !one.is_ours()) {
            println!(
                "{} / {}: CPU {:.2}, wall {:.2} ({:.1} times as fast)",
                ours.name(),
                other.name(),
                mine.cpu / cost.cpu,
                mine.wall / cost.wall,
                cost.wall / mine.wall
            );
        }
    }
}
