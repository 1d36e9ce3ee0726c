use super::kernel::{Discipline, Routing};
use super::*;
use crate::status::Tsc;
use proptest::prelude::*;

/// Some time in 2023.
const NOW: u64 = 1_700_000_000;

fn good() -> Observation {
    let mut available = Vec::new();
    for name in ["tsc", "hpet", "acpi_pm"] {
        available.push(name.into()).unwrap();
    }
    Observation {
        chrony: Ok(Chrony {
            tracking: Tracking {
                reference: 0xC0A8_0101,
                source: "192.168.1.1".into(),
                stratum: 3,
                synchronised: true,
                leap: Leap::None,
                since_update_s: 30,
                offset_ns: -120_000,
                frequency_ppb: 4_200,
                residual_ppb: 1,
                skew_ppb: 20,
                root_delay_ns: 20_000_000,
                root_dispersion_ns: 5_000_000,
            },
            sources: Sources {
                known: 4,
                reachable: 4,
                wrong: 0,
                unresolved: 0,
                followed: true,
            },
            servers: Vec::new(),
        }),
        kernel: Kernel {
            clocksource: "tsc".into(),
            available,
            steady_tsc: true,
            noapic: true,
            ..Kernel::default()
        },
        step: None,
        wander_ppb: None,
        uptime_s: 3600,
        now: Some(NOW),
    }
}

fn free_running(sources: Sources) -> Observation {
    Observation {
        chrony: Ok(Chrony {
            tracking: Tracking::default(),
            sources,
            servers: Vec::new(),
        }),
        ..good()
    }
}

#[track_caller]
fn only(seen: &Observation) -> Condition {
    let (_, conditions) = decide(seen);
    assert_eq!(conditions.len(), 1, "{conditions:?}");
    conditions[0].clone()
}

#[test]
fn a_followed_source_is_good() {
    let (clock, conditions) = decide(&good());
    assert_eq!(clock.state, ClockState::Synchronised);
    assert_eq!((clock.stratum, clock.reachable, clock.sources), (3, 4, 4));
    assert_eq!((clock.offset_ns, clock.error_ns), (-120_000, 15_000_000));
    assert_eq!(clock.source.as_str(), "192.168.1.1");
    assert_eq!(clock.clocksource.as_str(), "tsc");
    assert!(conditions.is_empty(), "{conditions:?}");
}

#[test]
fn each_reason_has_its_words() {
    for (sources, text, advice) in [
        (Sources::default(), "no time server is known", "[clock] servers"),
        (
            Sources {
                unresolved: 8,
                ..Sources::default()
            },
            "cannot be resolved",
            "name server",
        ),
        (
            Sources {
                known: 3,
                ..Sources::default()
            },
            "none of 3 time sources answers",
            "UDP port 123",
        ),
        (
            Sources {
                known: 2,
                reachable: 2,
                wrong: 2,
                ..Sources::default()
            },
            "contradict",
            "three or more",
        ),
        (
            Sources {
                known: 2,
                reachable: 2,
                ..Sources::default()
            },
            "none has been chosen",
            "by itself",
        ),
    ] {
        let condition = only(&free_running(sources));
        assert_eq!(
            (condition.id, condition.severity),
            (ConditionId::ClockUnsynchronised, Severity::Warning)
        );
        assert!(condition.text.contains(text), "{condition:?}");
        assert!(condition.advice.contains(advice), "{condition:?}");
    }
}

#[test]
fn a_young_boot_is_no_warning() {
    let mut seen = free_running(Sources {
        known: 4,
        ..Sources::default()
    });
    seen.uptime_s = SETTLING_S - 1;
    assert_eq!(only(&seen).severity, Severity::Info);
    seen.chrony = Err(Silence::NoAnswer);
    assert_eq!(
        decide(&seen),
        (
            Clock {
                clocksource: "tsc".into(),
                tsc: Tsc::Used,
                noapic: true,
                ..Clock::default()
            },
            Vec::new()
        )
    );
    seen.uptime_s = SETTLING_S;
    let condition = only(&seen);
    assert_eq!(
        (condition.id, condition.severity),
        (ConditionId::ClockUnknown, Severity::Warning)
    );
    assert!(condition.text.contains("chronyd does not answer"));
}

#[test]
fn its_own_clock_is_no_source() {
    let mut seen = good();
    if let Ok(chrony) = &mut seen.chrony {
        chrony.tracking.reference = LOCAL_REFERENCE;
    }
    let (clock, _) = decide(&seen);
    assert_eq!(
        (clock.state, clock.stratum, clock.source.as_str()),
        (ClockState::Unsynchronised, 0, "")
    );
}

fn chrony(seen: &mut Observation) -> &mut Chrony {
    seen.chrony.as_mut().unwrap()
}

/// Nobody answers any more; the last update was `days` ago.
fn lonely(days: u64) -> Observation {
    let mut seen = good();
    let chrony = chrony(&mut seen);
    chrony.sources.reachable = 0;
    chrony.sources.followed = false;
    chrony.tracking.since_update_s = days * 86_400;
    // chronyd's own bound: 1.021 ppm.
    chrony.tracking.root_dispersion_ns += days * 86_400 * 1_021;
    seen
}

#[test]
fn silence_of_all_sources_is_told_and_in_the_end_not_trusted() {
    let seen = lonely(0);
    let (clock, _) = decide(&seen);
    assert_eq!(clock.state, ClockState::Coasting);
    let until = clock.trusted_until.unwrap();
    assert!((60..75).contains(&((until - NOW) / 86_400)), "{until}");
    assert_eq!(until % 60, 0);
    let condition = only(&seen);
    assert_eq!(condition.severity, Severity::Info);
    assert!(condition.text.contains("within 16 ms"), "{condition:?}");
    assert!(condition.text.contains("days more"), "{condition:?}");
    assert!(
        condition.text.contains("none of 4 time sources answers"),
        "{condition:?}"
    );
    // A week later it may be off by 6 s, and can be trusted a week less.
    let (later, _) = decide(&lonely(7));
    assert_eq!(later.state, ClockState::Coasting);
    assert_eq!(later.error_ns / 1_000_000_000, 6);
    assert_eq!((until - later.trusted_until.unwrap()) / 86_400, 7);
    let seen = lonely(80);
    let (clock, _) = decide(&seen);
    assert_eq!((clock.state, clock.trusted_until), (ClockState::Unsynchronised, None));
    assert_eq!(only(&seen).severity, Severity::Warning);
}

#[test]
fn sources_that_contradict_each_other_leave_the_clock_coasting() {
    let mut seen = good();
    chrony(&mut seen).sources.followed = false;
    chrony(&mut seen).sources.wrong = 4;
    assert_eq!(decide(&seen).0.state, ClockState::Coasting);
    assert!(only(&seen).text.contains("contradict"), "{:?}", only(&seen));
}

#[test]
fn a_clock_that_is_off_does_not_coast() {
    let mut seen = lonely(0);
    chrony(&mut seen).tracking.offset_ns = 2 * TRUSTED_NS as i64;
    assert_eq!(decide(&seen).0.state, ClockState::Unsynchronised);
}

#[test]
fn the_kernel_vouches_for_a_while_when_chronyd_is_silent() {
    let mut seen = good();
    seen.chrony = Err(Silence::NoAnswer);
    seen.kernel.discipline = Some(Discipline {
        synchronised: true,
        max_error_us: 6_000_000,
        tai_offset_s: 37,
    });
    let (clock, _) = decide(&seen);
    assert_eq!((clock.state, clock.tai_offset_s), (ClockState::Coasting, Some(37)));
    assert_eq!(clock.trusted_until, Some((NOW + 20_000) / 60 * 60));
    let condition = only(&seen);
    assert_eq!(
        (condition.id, condition.severity),
        (ConditionId::ClockUnknown, Severity::Warning)
    );
    assert!(condition.text.contains("within 6000 ms still"), "{condition:?}");
    seen.kernel.discipline = Some(Discipline::default());
    assert_eq!(decide(&seen).0.state, ClockState::Unknown);
}

#[test]
fn one_source_that_lies_is_named() {
    let mut seen = good();
    let liar = TimeSource {
        name: "ntp.example.org".into(),
        state: TimeSourceState::Wrong,
        reach: 0o377,
        offset_ns: -7_000_000_000,
        ..TimeSource::default()
    };
    chrony(&mut seen).servers.push(liar).unwrap();
    chrony(&mut seen).sources.wrong = 1;
    assert_eq!(decide(&seen).0.state, ClockState::Synchronised);
    let condition = only(&seen);
    assert_eq!(
        (condition.id, condition.severity),
        (ConditionId::TimeSourceWrong, Severity::Info)
    );
    assert!(
        condition.text.contains("ntp.example.org is 7000 ms ahead"),
        "{condition:?}"
    );
}

#[test]
fn a_source_is_counted_by_what_it_is() {
    let mut sources = Sources::default();
    let mut source = TimeSource {
        state: TimeSourceState::Followed,
        ..TimeSource::default()
    };
    // chronyd keeps a silent source selected.
    sources.count(&source);
    assert!(!sources.followed && sources.known == 1 && sources.reachable == 0);
    source.reach = 1;
    sources.count(&source);
    assert!(sources.followed && sources.known == 2 && sources.reachable == 1);
}

#[test]
fn a_leap_second_is_shown_while_a_source_announces_it() {
    let mut seen = good();
    chrony(&mut seen).tracking.leap = Leap::Insert;
    assert_eq!(decide(&seen).0.leap, Leap::Insert);
    chrony(&mut seen).tracking.synchronised = false;
    assert_eq!(decide(&seen).0.leap, Leap::None);
}

#[test]
fn a_hardware_clock_that_lost_its_time_needs_a_battery() {
    let mut seen = good();
    let mut step = ClockStep {
        by_ms: 20_000 * 86_400_000,
        at: None,
        at_start: true,
    };
    seen.step = Some(step);
    let condition = only(&seen);
    assert_eq!(
        (condition.id, condition.severity),
        (ConditionId::HardwareClockWrong, Severity::Info)
    );
    assert!(condition.text.contains("20000 d behind"), "{condition:?}");
    assert!(condition.advice.contains("CR2032"), "{condition:?}");
    step.by_ms = -900;
    seen.step = Some(step);
    assert!(decide(&seen).1.is_empty(), "a second is a quartz's week");
    // It doesn't keep what the kernel tells it.
    seen.kernel.discipline = Some(Discipline {
        synchronised: true,
        ..Discipline::default()
    });
    seen.kernel.rtc_offset_s = Some(-40);
    assert!(only(&seen).text.contains("40 s behind, though"), "{:?}", only(&seen));
    seen.uptime_s = 600;
    assert!(decide(&seen).1.is_empty(), "the kernel has not set it yet");
}

#[test]
fn a_rate_of_no_quartz_hints_at_noapic() {
    let mut seen = good();
    chrony(&mut seen).tracking.frequency_ppb = -350_000;
    assert!(decide(&seen).1.is_empty(), "it is still being found");
    seen.wander_ppb = Some(2_000);
    let condition = only(&seen);
    assert_eq!(condition.id, ConditionId::ClockUnsteady);
    assert!(condition.text.contains("350 ppm slow"), "{condition:?}");
    assert!(condition.advice.contains("second entry"), "{condition:?}");
    chrony(&mut seen).tracking.frequency_ppb = 0;
    seen.wander_ppb = Some(80_000);
    assert!(only(&seen).text.contains("80 ppm within a day"), "{:?}", only(&seen));
    seen.wander_ppb = Some(2_000);
    assert!(decide(&seen).1.is_empty());
}

#[test]
fn lost_interrupts_hint_at_the_other_entry() {
    let mut seen = good();
    seen.kernel.routing = Routing::Pic;
    seen.kernel.misrouted = 3;
    assert!(decide(&seen).1.is_empty(), "the count is the IO-APIC's");
    seen.kernel.noapic = false;
    seen.kernel.routing = Routing::IoApic;
    let condition = only(&seen);
    assert_eq!(
        (condition.id, condition.severity),
        (ConditionId::InterruptsLost, Severity::Info)
    );
    assert!(
        condition.advice.contains("first entry start, which sets `noapic`"),
        "{condition:?}"
    );
    seen.kernel.ignored_interrupt = Some(16);
    assert_eq!(only(&seen).severity, Severity::Warning);
    assert!(only(&seen).text.contains("Interrupt 16"), "{:?}", only(&seen));
    seen.kernel.ignored_interrupt = None;
    seen.kernel.misrouted = 0;
    seen.kernel.timer_astray = true;
    assert!(only(&seen).text.contains("MP-BIOS"), "{:?}", only(&seen));
}

#[test]
fn a_clock_far_off_is_not_synchronised_and_says_by_how_much() {
    let mut seen = good();
    if let Ok(chrony) = &mut seen.chrony {
        chrony.tracking.offset_ns = -7_300_000_000;
    }
    let condition = only(&seen);
    assert!(condition.text.contains("off by 7.3 s"), "{condition:?}");
    assert!(condition.advice.contains("Restart"), "{condition:?}");
}

#[test]
fn a_demoted_clock_source_hints_at_noapic() {
    for (clocksource, severity) in [
        ("jiffies", Severity::Warning),
        ("acpi_pm", Severity::Warning),
        ("hpet", Severity::Info),
    ] {
        let mut seen = good();
        seen.kernel.clocksource = clocksource.into();
        seen.kernel.available.clear();
        seen.kernel.noapic = false;
        let condition = only(&seen);
        assert_eq!(
            (condition.id, condition.severity),
            (ConditionId::ClockSourceDemoted, severity)
        );
        assert!(
            condition.text.contains(clocksource) && condition.text.contains("tsc"),
            "{condition:?}"
        );
        assert!(condition.advice.contains("which sets `noapic`"), "{condition:?}");
        seen.kernel.noapic = true;
        assert!(only(&seen).advice.contains("second entry"), "{:?}", only(&seen));
        seen.kernel.tsc_fault = "the skew is too large".into();
        assert!(only(&seen).text.contains("unstable: the skew"), "{:?}", only(&seen));
    }
}

#[test]
fn a_processor_without_anything_better_is_left_alone() {
    let mut seen = good();
    seen.kernel = Kernel {
        clocksource: "acpi_pm".into(),
        ..Kernel::default()
    };
    assert!(decide(&seen).1.is_empty());
    seen.kernel.clocksource = "jiffies".into();
    assert!(only(&seen).text.contains("coarse"));
    // Expected of a counter that stops when the processor sleeps.
    seen.kernel.clocksource = "hpet".into();
    seen.kernel.tsc_fault = "TSC halts in idle".into();
    assert!(decide(&seen).1.is_empty());
    seen.kernel.clocksource = "kvm-clock".into();
    seen.kernel.steady_tsc = true;
    assert!(decide(&seen).1.is_empty());
    assert_eq!(decide(&seen).0.tsc, Tsc::Absent);
}

prop_compose! {
    fn any_tracking()(
        reference: u32,
        source in "[a-z0-9.:]{0,40}",
        stratum: u8,
        synchronised: bool,
        since_update_s: u64,
        offset_ns: i64,
        frequency_ppb: i64,
        skew_ppb: u64,
        root_delay_ns: u64,
        root_dispersion_ns: u64,
    ) -> Tracking {
        // Small and huge ones alike.
        let shift = stratum % 64;
        Tracking {
            reference,
            source: source.as_str().into(),
            stratum,
            synchronised,
            leap: Leap::None,
            since_update_s: since_update_s >> shift,
            offset_ns: offset_ns >> shift,
            frequency_ppb: frequency_ppb >> shift,
            residual_ppb: frequency_ppb >> shift,
            skew_ppb: skew_ppb >> shift,
            root_delay_ns: root_delay_ns >> shift,
            root_dispersion_ns: root_dispersion_ns >> shift,
        }
    }
}

prop_compose! {
    fn any_chrony()(
        tracking in any_tracking(),
        (known, reachable, wrong, unresolved, followed) in any::<(u8, u8, u8, u8, bool)>(),
        offsets in proptest::collection::vec(any::<i64>(), 0..4),
    ) -> Chrony {
        Chrony {
            tracking,
            sources: Sources { known, reachable, wrong, unresolved, followed },
            servers: offsets.into_iter().map(|offset_ns| TimeSource {
                name: "n".repeat(64).as_str().into(),
                state: TimeSourceState::Wrong,
                offset_ns,
                ..TimeSource::default()
            }).collect(),
        }
    }
}

prop_compose! {
    fn any_kernel()(
        clocksource in prop_oneof![Just("tsc"), Just("hpet"), Just("acpi_pm"), Just("jiffies"), Just("")],
        tsc_fault in ".{0,70}",
        (steady_tsc, noapic, timer_astray, synchronised) in any::<(bool, bool, bool, bool)>(),
        ignored_interrupt: Option<u32>,
        (misrouted, max_error_us) in any::<(u64, u64)>(),
        rtc_offset_s: Option<i64>,
    ) -> Kernel {
        Kernel {
            clocksource: clocksource.into(),
            available: Vec::new(),
            steady_tsc,
            tsc_fault: tsc_fault.as_str().into(),
            noapic,
            routing: Routing::IoApic,
            misrouted,
            ignored_interrupt,
            timer_astray,
            discipline: Some(Discipline { synchronised, max_error_us: max_error_us >> (misrouted % 64), tai_offset_s: 37 }),
            rtc_offset_s,
        }
    }
}

prop_compose! {
    fn any_observation()(
        chrony in prop_oneof![
            3 => any_chrony().prop_map(Ok),
            1 => ".{0,200}".prop_map(|why| Err(Silence::Strange(why.as_str().into()))),
        ],
        kernel in any_kernel(),
        step in any::<Option<(i64, bool)>>(),
        wander_ppb: Option<u64>,
        uptime_s: u64,
        now: u64,
    ) -> Observation {
        let step = step.map(|(by_ms, at_start)| ClockStep { by_ms, at: None, at_start });
        Observation { chrony, kernel, step, wander_ppb, uptime_s, now: Some(now) }
    }
}

/// Conditions that say what the clock is worth; the others are about the board and about single sources.
fn of_state(condition: &&Condition) -> bool {
    matches!(
        condition.id,
        ConditionId::ClockUnsynchronised | ConditionId::ClockUnknown
    )
}

proptest! {
    #[test]
    fn what_is_not_trusted_is_explained(seen in any_observation()) {
        let (clock, conditions) = decide(&seen);
        let worst = conditions.iter().filter(of_state).map(|condition| condition.severity).max();
        if seen.uptime_s >= SETTLING_S && !clock.state.is_trusted() {
            prop_assert_eq!(worst, Some(Severity::Warning));
        }
        if seen.chrony.is_ok() && clock.state.is_trusted() {
            prop_assert!(worst.is_none_or(|worst| worst == Severity::Info));
        }
        if clock.state == ClockState::Coasting && seen.chrony.is_ok() {
            prop_assert!(worst.is_some());
        }
        for condition in &conditions {
            prop_assert!(!condition.text.is_empty() && !condition.advice.is_empty());
            prop_assert!(!condition.advice.ends_with('…'), "the advice must fit: {}", condition.advice);
        }
    }

    #[test]
    fn trusted_means_within_the_bound(seen in any_observation()) {
        let (clock, _) = decide(&seen);
        match clock.state {
            ClockState::Synchronised => prop_assert!(clock.total_error_ns() <= TRUSTED_NS && clock.stratum > 0),
            ClockState::Coasting => {
                prop_assert!(clock.total_error_ns() <= coast::COASTING_NS);
                prop_assert!(clock.trusted_until.is_some());
            }
            ClockState::Unknown => prop_assert!(seen.chrony.is_err()),
            ClockState::Unsynchronised => prop_assert!(seen.chrony.is_ok()),
        }
        prop_assert_eq!(clock.trusted_until.is_some(), clock.state == ClockState::Coasting);
    }

    #[test]
    fn more_error_never_makes_it_better(seen in any_observation(), more in any::<u64>()) {
        let mut worse = seen.clone();
        if let Ok(chrony) = &mut worse.chrony {
            chrony.tracking.root_dispersion_ns = chrony.tracking.root_dispersion_ns.saturating_add(more);
        }
        let (better, worse) = (decide(&seen).0, decide(&worse).0);
        if worse.state.is_trusted() {
            prop_assert!(better.state.is_trusted());
        }
        prop_assert!(worse.trusted_until <= better.trusted_until);
    }

    #[test]
    fn nothing_trusted_without_a_source_or_the_kernels_word(seen in any_observation()) {
        let (clock, _) = decide(&seen);
        if clock.state.is_trusted() {
            prop_assert!(clock.stratum > 0 || seen.kernel.discipline.is_some_and(|kernel| kernel.synchronised));
        }
    }
}
