use super::*;
use proptest::prelude::*;
use strongroom_model::disk_health::{Memory, assess};
use strongroom_model::status::DiskHealth;

// In the form of smartctl 7.4, with the values of disks as they are sold.
const HDD: &str = include_str!("samples/hdd.json");
const HDD_FAILING: &str = include_str!("samples/hdd-failing.json");
const SSD: &str = include_str!("samples/ssd.json");
const NVME: &str = include_str!("samples/nvme.json");
const USB_UNKNOWN: &str = include_str!("samples/usb-unknown.json");
const STANDBY: &str = include_str!("samples/standby.json");
const NONE: &str = include_str!("samples/none.json");

#[test]
fn a_sata_disk() {
    let reading = parse(Some(0), HDD);
    assert_eq!(
        reading,
        Reading {
            answer: Answer::Told,
            kind: Kind::Rotating,
            passed: Some(true),
            temperature: Some(34),
            power_on_hours: Some(42_742),
            counts: Counts {
                reallocated: Some(8),
                pending: Some(24),
                uncorrectable: Some(2),
                crc_errors: Some(5),
                media_errors: None,
            },
            ..Reading::default()
        }
    );
}

#[test]
fn a_sata_disk_that_fails() {
    let reading = parse(Some(0b1001_1000), HDD_FAILING);
    assert_eq!(reading.passed, Some(false));
    assert_eq!(
        reading.prefail,
        ["Reallocated_Sector_Ct"],
        "not what failed in the past"
    );
    assert!(reading.self_test_failed);
    assert_eq!(
        reading.temperature,
        Some(43),
        "not the raw value with its minimum and maximum"
    );
    let assessment = assess("Z1E00000", "ST2000DM001", &reading, &Memory::default(), 1_700_000_000);
    assert_eq!(assessment.health, DiskHealth::Failing);
}

#[test]
fn a_sata_ssd_and_an_nvme_disk() {
    let ssd = parse(Some(0), SSD);
    assert_eq!((ssd.kind, ssd.percentage_used), (Kind::Flash, Some(3)));
    let nvme = parse(Some(0), NVME);
    assert_eq!(nvme.kind, Kind::Nvme);
    assert_eq!((nvme.temperature, nvme.limits), (Some(44), (Some(82), Some(85))));
    assert_eq!((nvme.percentage_used, nvme.spare), (Some(7), Some((100, 10))));
    assert_eq!((nvme.counts.media_errors, nvme.power_on_hours), (Some(0), Some(8100)));
    assert!(nvme.self_test_failed);
    let hot = NVME
        .replace("\"critical_warning\":0", "\"critical_warning\":2")
        .replace("\"passed\":true", "\"passed\":false");
    assert_eq!(parse(Some(8), &hot).critical_warning, 2);
    let huge = NVME.replace("\"media_errors\":0", "\"media_errors\":\"18446744073709551615\"");
    assert_eq!(parse(Some(0), &huge).counts.media_errors, Some(u64::MAX));
}

#[test]
fn those_that_tell_nothing_say_why() {
    assert_eq!(parse(Some(3), STANDBY).answer, Answer::Asleep);
    let silent = |code, answer| match parse(code, answer).answer {
        Answer::Silent(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(silent(Some(1), USB_UNKNOWN).contains("USB bridge"));
    assert_eq!(silent(Some(4), NONE), "it has no SMART");
    assert_eq!(silent(Some(2), "{}"), "it tells nothing");
    assert_eq!(silent(None, ""), "smartctl's answer can't be understood");
    assert_eq!(
        silent(Some(2), "Smartctl open device: /dev/sdx failed"),
        "smartctl's answer can't be understood"
    );
}

#[test]
fn the_real_smartctl_is_run_and_says_that_a_file_is_no_disk() {
    let Answer::Silent(why) = read("/dev/null").answer else {
        panic!("/dev/null has no SMART");
    };
    assert!(!why.is_empty());
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..3000, with in "\\PC{0,4}") {
        for sample in [HDD, NVME] {
            let mut answer: Vec<char> = sample.chars().collect();
            let at = at % answer.len();
            answer.splice(at..at + 1, with.chars());
            let _ = parse(Some(0), &answer.into_iter().collect::<String>());
        }
    }
}
