use super::*;
use crate::condition::{ConditionId, Severity};
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000;
const DAY: u64 = 24 * 3600;

fn rotating() -> Reading {
    Reading {
        kind: Kind::Rotating,
        passed: Some(true),
        temperature: Some(34),
        power_on_hours: Some(20_000),
        counts: Counts {
            reallocated: Some(0),
            pending: Some(0),
            uncorrectable: Some(0),
            crc_errors: Some(0),
            media_errors: None,
        },
        ..Reading::default()
    }
}

fn nvme() -> Reading {
    Reading {
        kind: Kind::Nvme,
        passed: Some(true),
        temperature: Some(40),
        limits: (Some(82), Some(85)),
        power_on_hours: Some(900),
        percentage_used: Some(3),
        spare: Some((100, 10)),
        ..Reading::default()
    }
}

fn assessed(reading: &Reading) -> Assessment {
    let mut memory = Memory::default();
    memory.note(reading, NOW);
    assess("WD-1", "WDC", reading, &memory, NOW)
}

fn ids(assessment: &Assessment) -> Vec<(ConditionId, Severity)> {
    assessment.conditions.iter().map(|c| (c.id, c.severity)).collect()
}

#[test]
fn healthy_disks_say_nothing() {
    for reading in [rotating(), nvme()] {
        let assessment = assessed(&reading);
        assert_eq!(assessment.health, DiskHealth::Good);
        assert_eq!(assessment.conditions, []);
        assert!(assessment.reason.is_empty());
    }
}

#[test]
fn one_that_tells_nothing_or_sleeps_is_unknown_and_no_nag() {
    for answer in [Answer::Asleep, Answer::Silent("no SMART".into())] {
        let reading = Reading {
            answer,
            ..Reading::default()
        };
        let assessment = assessed(&reading);
        assert_eq!(
            (assessment.health, assessment.conditions),
            (DiskHealth::Unknown, Vec::new())
        );
    }
}

#[test]
fn what_a_disk_says_outright() {
    let failing = [(ConditionId::DiskFailing, Severity::Alarm)];
    let mut verdict = rotating();
    verdict.passed = Some(false);
    let mut prefail = rotating();
    prefail.prefail = ["Spin_Retry_Count".into()].into();
    let mut test = rotating();
    test.self_test_failed = true;
    let mut read_only = nvme();
    read_only.critical_warning = 0b1000;
    read_only.passed = Some(false);
    let mut spare = nvme();
    spare.spare = Some((5, 10));
    for reading in [verdict, prefail, test, read_only, spare] {
        let assessment = assessed(&reading);
        assert_eq!(ids(&assessment), failing, "{reading:?}");
        assert_eq!(assessment.health, DiskHealth::Failing);
        assert_eq!(assessment.conditions[0].subject.as_str(), "WD-1");
    }
    let mut worn = nvme();
    worn.percentage_used = Some(101);
    assert_eq!(ids(&assessed(&worn)), [(ConditionId::DiskAging, Severity::Warning)]);
}

#[test]
fn an_nvme_disk_that_is_only_hot_is_not_failing() {
    let mut hot = nvme();
    (hot.critical_warning, hot.passed, hot.temperature) = (0b10, Some(false), Some(83));
    let assessment = assessed(&hot);
    assert_eq!(ids(&assessment), [(ConditionId::DiskHot, Severity::Warning)]);
    assert_eq!(assessment.health, DiskHealth::Good);
}

#[test]
fn reallocated_is_age_and_pending_is_failure() {
    let mut reading = rotating();
    reading.counts.reallocated = Some(8);
    let aging = assessed(&reading);
    assert_eq!(ids(&aging), [(ConditionId::DiskAging, Severity::Warning)]);
    assert_eq!(aging.reason.as_str(), "8 reallocated sectors");
    reading.counts.pending = Some(1);
    let failing = assessed(&reading);
    assert_eq!(
        ids(&failing),
        [(ConditionId::DiskFailing, Severity::Alarm)],
        "one condition for both"
    );
    assert_eq!(failing.reason.as_str(), "1 sector that can't be read");
    reading.counts = Counts {
        reallocated: Some(500),
        ..Counts::default()
    };
    assert_eq!(assessed(&reading).health, DiskHealth::Failing);
}

#[test]
fn growth_is_worse_than_what_stands_and_is_told_with_its_time() {
    let mut reading = rotating();
    let mut memory = Memory::default();
    reading.counts.reallocated = Some(8);
    memory.note(&reading, NOW);
    reading.counts.reallocated = Some(12);
    memory.note(&reading, NOW + DAY);
    reading.counts.reallocated = Some(24);
    memory.note(&reading, NOW + 3 * DAY);
    let assessment = assess("WD-1", "WDC", &reading, &memory, NOW + 4 * DAY);
    assert_eq!(assessment.health, DiskHealth::Failing);
    assert_eq!(
        assessment.reason.as_str(),
        "reallocated sectors grew from 8 to 24 within 4 days"
    );
    // A month later it stands still again.
    let later = assess("WD-1", "WDC", &reading, &memory, NOW + 40 * DAY);
    assert_eq!(later.reason.as_str(), "24 reallocated sectors");
    assert_eq!(later.health, DiskHealth::Aging);
}

#[test]
fn damaged_transfers_are_the_cable_and_only_when_they_grow() {
    let mut reading = rotating();
    let mut memory = Memory::default();
    reading.counts.crc_errors = Some(200);
    memory.note(&reading, NOW);
    assert_eq!(assess("WD-1", "", &reading, &memory, NOW).conditions, []);
    reading.counts.crc_errors = Some(210);
    memory.note(&reading, NOW + DAY);
    let assessment = assess("WD-1", "", &reading, &memory, NOW + DAY);
    assert_eq!(ids(&assessment), [(ConditionId::DiskCable, Severity::Warning)]);
    assert_eq!(assessment.health, DiskHealth::Good);
}

#[test]
fn what_the_kernel_could_not_do_stands_for_a_week() {
    let (reading, mut memory) = (rotating(), Memory::default());
    memory.errors.add(0, 2, false, NOW);
    assert_eq!(assess("WD-1", "", &reading, &memory, NOW).conditions, [], "an accident");
    memory.errors.add(0, 1, false, NOW);
    let disturbed = assess("WD-1", "", &reading, &memory, NOW);
    assert_eq!(ids(&disturbed), [(ConditionId::DiskCable, Severity::Warning)]);
    assert_eq!(disturbed.health, DiskHealth::Aging);
    memory.errors.add(2, 0, false, NOW);
    let failed = assess("WD-1", "", &reading, &memory, NOW + 6 * DAY);
    assert_eq!(ids(&failed), [(ConditionId::DiskErrors, Severity::Alarm)]);
    assert_eq!(failed.health, DiskHealth::Failing);
    assert_eq!(assess("WD-1", "", &reading, &memory, NOW + 8 * DAY).conditions, []);
    memory.errors.add(1, 0, false, NOW + 9 * DAY);
    assert_eq!(
        (memory.errors.failed, memory.errors.disturbed),
        (1, 0),
        "the old ones are over"
    );
}

#[test]
fn one_that_fell_out_is_no_longer_out_after_a_start_but_remembered() {
    let (reading, mut memory) = (rotating(), Memory::default());
    memory.errors.add(0, 0, true, NOW);
    let lost = assess("WD-1", "", &reading, &memory, NOW);
    assert_eq!(lost.reason.as_str(), "it fell out of the array");
    memory.errors.started_again();
    let back = assess("WD-1", "", &reading, &memory, NOW);
    assert_eq!(ids(&back), [(ConditionId::DiskErrors, Severity::Alarm)]);
    assert_eq!(back.reason.as_str(), "1 read or write failed");
}

#[test]
fn a_silent_disk_still_has_the_kernel_speak_for_it() {
    let reading = Reading {
        answer: Answer::Silent("no SMART".into()),
        ..Reading::default()
    };
    let mut memory = Memory::default();
    memory.errors.add(1, 0, false, NOW);
    assert_eq!(assess("WD-1", "", &reading, &memory, NOW).health, DiskHealth::Failing);
}

#[test]
fn warmth_does_not_alternate_at_the_limit() {
    let mut heat = Heat::Fine;
    let mut turns = 0;
    for temperature in [49, 50, 49, 50, 48, 50, 49, 47, 50] {
        let next = heat.next(temperature, (50, 60));
        turns += u32::from(next != heat);
        heat = next;
    }
    assert_eq!((heat, turns), (Heat::Warm, 1));
    assert_eq!(heat.next(46, (50, 60)), Heat::Fine);
    assert_eq!(Heat::Hot.next(58, (50, 60)), Heat::Hot);
    assert_eq!(Heat::Hot.next(56, (50, 60)), Heat::Warm);
}

#[test]
fn each_kind_has_its_limits() {
    assert_eq!(memory::limits(&rotating()), (50, 60));
    assert_eq!(memory::limits(&nvme()), (82, 85));
    let mut odd = nvme();
    odd.limits = (Some(0), None);
    assert_eq!(memory::limits(&odd), (70, 80));
    odd.limits = (Some(90), Some(0));
    assert_eq!(memory::limits(&odd), (90, 91));
}

proptest! {
    #[test]
    fn a_counter_that_never_grows_never_tells_of_growth(mut values in proptest::collection::vec(0u64..1000, 1..30)) {
        values.sort_unstable();
        values.reverse();
        let mut counter = Counter::default();
        for (n, value) in values.iter().enumerate() {
            counter.note(Some(*value), NOW + n as u64 * DAY);
            prop_assert_eq!(counter.growth(NOW + n as u64 * DAY), None);
        }
    }

    #[test]
    fn whatever_is_told_each_condition_comes_once(
        numbers in proptest::collection::vec(proptest::option::of(any::<u64>()), 12),
        critical_warning in any::<u8>(),
        temperature in any::<i16>(),
        limits in any::<(Option<i16>, Option<i16>)>(),
        time in any::<u64>(),
    ) {
        let mut memory = Memory::default();
        let mut reading = Reading {
            kind: Kind::Nvme,
            critical_warning,
            temperature: Some(temperature),
            limits: (limits.0.map(|l| l / 4), limits.1.map(|l| l / 4)),
            ..Reading::default()
        };
        for half in numbers.chunks(6) {
            reading.counts = Counts {
                reallocated: half[0], pending: half[1], uncorrectable: half[2], crc_errors: half[3], media_errors: half[4],
            };
            memory.note(&reading, time);
            memory.errors.add(half[5].unwrap_or(0) as u32, half[4].unwrap_or(0) as u32, false, time);
        }
        let assessment = assess("S", "M", &reading, &memory, NOW);
        let mut found: Vec<ConditionId> = assessment.conditions.iter().map(|c| c.id).collect();
        let all = found.len();
        found.sort_unstable();
        found.dedup();
        prop_assert_eq!(found.len(), all);
    }
}
