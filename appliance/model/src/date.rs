//! Dates of the Gregorian calendar, in UTC.

/// Year, month and day of a number of days since 1970.
pub fn of_days(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_years_and_ends_of_years() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (19_781, (2024, 2, 28)),
            (19_782, (2024, 2, 29)),
            (19_783, (2024, 3, 1)),
            (20_088, (2024, 12, 31)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(of_days(days), date);
        }
    }
}
