use super::*;
use proptest::prelude::*;

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
                offset_ns: -120_000,
                frequency_ppb: 4_200,
                root_delay_ns: 20_000_000,
                root_dispersion_ns: 5_000_000,
            },
            sources: Sources {
                known: 4,
                reachable: 4,
                wrong: 0,
                unresolved: 0,
            },
        }),
        kernel: Kernel {
            clocksource: "tsc".into(),
            available,
            steady_tsc: true,
            noapic: true,
        },
        uptime_s: 3600,
    }
}

fn free_running(sources: Sources) -> Observation {
    Observation {
        chrony: Ok(Chrony {
            tracking: Tracking::default(),
            sources,
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
                unresolved: 0,
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

#[test]
fn silence_of_all_sources_is_told_and_in_the_end_not_trusted() {
    let mut seen = good();
    if let Ok(chrony) = &mut seen.chrony {
        chrony.sources.reachable = 0;
    }
    assert_eq!(decide(&seen).0.state, ClockState::Synchronised);
    assert_eq!(only(&seen).severity, Severity::Info);
    assert!(only(&seen).text.contains("within 16 ms"), "{}", only(&seen).text);
    if let Ok(chrony) = &mut seen.chrony {
        chrony.tracking.root_dispersion_ns = TRUSTED_NS;
    }
    assert_eq!(decide(&seen).0.state, ClockState::Unsynchronised);
    assert_eq!(only(&seen).severity, Severity::Warning);
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
        assert!(only(&seen).advice.contains("without it"), "{:?}", only(&seen));
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
    seen.kernel.clocksource = "kvm-clock".into();
    seen.kernel.steady_tsc = true;
    assert!(decide(&seen).1.is_empty());
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let tracking = (
        any::<u32>(),
        "[a-z0-9.:]{0,40}",
        any::<u8>(),
        any::<bool>(),
        any::<i64>(),
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(
            |(reference, source, stratum, synchronised, offset_ns, root_delay_ns, root_dispersion_ns)| Tracking {
                reference,
                source: source.as_str().into(),
                stratum,
                synchronised,
                // Small and huge ones alike.
                offset_ns: offset_ns >> (stratum % 64),
                frequency_ppb: offset_ns,
                root_delay_ns: root_delay_ns >> (stratum % 64),
                root_dispersion_ns: root_dispersion_ns >> (stratum % 64),
            },
        );
    let sources =
        (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(known, reachable, wrong, unresolved)| {
            Sources {
                known,
                reachable,
                wrong,
                unresolved,
            }
        });
    let chrony = prop_oneof![
        (tracking, sources).prop_map(|(tracking, sources)| Ok(Chrony { tracking, sources })),
        ".{0,200}".prop_map(|why| Err(Silence::Strange(why.as_str().into()))),
    ];
    let name = prop_oneof![Just("tsc"), Just("hpet"), Just("acpi_pm"), Just("jiffies"), Just("")];
    (chrony, name, any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(chrony, clocksource, steady_tsc, noapic, uptime_s)| Observation {
            chrony,
            kernel: Kernel {
                clocksource: clocksource.into(),
                available: Vec::new(),
                steady_tsc,
                noapic,
            },
            uptime_s,
        },
    )
}

proptest! {
    #[test]
    fn what_is_not_synchronised_is_explained(seen in any_observation()) {
        let (clock, conditions) = decide(&seen);
        let about_clock = |condition: &&Condition| condition.id != ConditionId::ClockSourceDemoted;
        if seen.uptime_s >= SETTLING_S && clock.state != ClockState::Synchronised {
            prop_assert!(conditions.iter().filter(about_clock).any(|c| c.severity == Severity::Warning));
        }
        if clock.state == ClockState::Synchronised || seen.uptime_s < SETTLING_S {
            prop_assert!(conditions.iter().filter(about_clock).all(|c| c.severity == Severity::Info));
        }
        for condition in &conditions {
            prop_assert!(!condition.text.is_empty() && !condition.advice.is_empty());
            prop_assert!(!condition.advice.ends_with('…'), "the advice must fit: {}", condition.advice);
        }
    }

    #[test]
    fn synchronised_means_within_the_bound(seen in any_observation()) {
        let (clock, _) = decide(&seen);
        if clock.state == ClockState::Synchronised {
            prop_assert!(total_error(&clock) <= TRUSTED_NS && clock.stratum > 0);
        }
        prop_assert_eq!(clock.state == ClockState::Unknown, seen.chrony.is_err());
    }

    #[test]
    fn more_error_never_makes_it_better(seen in any_observation(), more in any::<u64>()) {
        let mut worse = seen.clone();
        if let Ok(chrony) = &mut worse.chrony {
            chrony.tracking.root_dispersion_ns = chrony.tracking.root_dispersion_ns.saturating_add(more);
        }
        if decide(&worse).0.state == ClockState::Synchronised {
            prop_assert_eq!(decide(&seen).0.state, ClockState::Synchronised);
        }
    }
}
