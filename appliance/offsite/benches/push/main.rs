//! Pushes against other tools on this machine, over TLS to a sink on loopback that keeps nothing: everything, what came in
//! since, and by a slow line.
//!
//! `cargo bench -p strongroom-offsite --bench push -- --mb 1300 --pairs 5`, and `full`, `more` or `line` for a part of it.
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
use sink::Line;
use strongroom_offsite::openpgp::Mode;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // The same program once more: as the sink, and as our own contestant.
        Some("sink") => sink::run(
            arguments[1].as_ref(),
            if arguments[2] == HOME { Line::HOME } else { Line::NONE },
        ),
        Some("push") => contestants::push_here(&arguments[1..]),
        _ => {
            let (megabytes, rounds) = (number(&arguments, "--mb", 1300), number(&arguments, "--pairs", 5));
            let contestants: Vec<Contestant> = Contestant::ALL.into_iter().filter(|one| one.is_here()).collect();
            // All of them, or those that are named.
            let is_wanted = |part: &str| {
                let named = |part: &str| arguments.iter().any(|argument| argument == part);
                named(part) || !["full", "more", "line"].into_iter().any(named)
            };
            if is_wanted("full") {
                everything(&contestants, megabytes, rounds);
            }
            if is_wanted("more") {
                a_twentieth_more(&contestants, megabytes, rounds);
            }
            if is_wanted("line") {
                line_of_a_home(megabytes / 10);
            }
        }
    }
}

/// The sink's argument.
const HOME: &str = "home";
const LOCAL: &str = "local";

fn number(arguments: &[String], name: &str, usual: usize) -> usize {
    let at = arguments.iter().position(|argument| argument == name);
    at.map_or(usual, |at| {
        arguments[at + 1].parse().expect("a number after --mb or --pairs")
    })
}

/// A full push, each time to where nothing is.
fn everything(contestants: &[Contestant], megabytes: usize, rounds: usize) {
    println!(
        "a full push of {megabytes} MB in segments of at most 500 MB, TLS to a null sink, {rounds} rounds in turns"
    );
    let place = Place::new(megabytes * 1_000_000, LOCAL);
    in_turns(contestants, rounds, |_| {}, |one| place.full(one));
}

/// A push of what came in after the last one, with a look at what is there already.
fn a_twentieth_more(contestants: &[Contestant], megabytes: usize, rounds: usize) {
    println!("a push of 5 % more than is there, with listing what is there, {rounds} rounds in turns");
    let place = Place::new(megabytes * 1_000_000, LOCAL);
    // It keeps no account of what it sent before.
    let lasting: Vec<Contestant> = contestants
        .iter()
        .copied()
        .filter(|one| *one != Contestant::GpgThenRclone)
        .collect();
    let prefix = |one: Contestant| one.name().replace(|c: char| !c.is_alphanumeric(), "-");
    for one in &lasting {
        place.push(*one, &prefix(*one));
    }
    let grow = |_| place.grow(megabytes * 1_000_000 / 20);
    in_turns(&lasting, rounds, grow, |one| place.push(one, &prefix(one)));
}

/// How much of a slow line a push uses.
fn line_of_a_home(megabytes: usize) {
    let bytes = megabytes * 1_000_000;
    let place = Place::new(bytes, HOME);
    let cost = place.full(Contestant::Ours(Mode::Ocb));
    println!(
        "a push of {megabytes} MB by a line of 20 Mbit/s and 80 ms: {:.1} s, {:.1} % of the line used",
        cost.wall,
        bytes as f64 / Line::HOME.rate as f64 / cost.wall * 100.0
    );
}

/// Runs all, `rounds` times, each time beginning with another one, and prints medians and ratios.
fn in_turns(contestants: &[Contestant], rounds: usize, before: impl Fn(usize), run: impl Fn(Contestant) -> Cost) {
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        before(round);
        for at in 0..contestants.len() {
            let at = (at + round) % contestants.len();
            costs[at].push(run(contestants[at]));
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
