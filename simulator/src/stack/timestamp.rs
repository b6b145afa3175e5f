//! Times as The Things Stack writes them: RFC 3339, UTC, with 0, 3, 6 or 9 fraction digits.

use time::OffsetDateTime;

/// The time of this call, in nanoseconds where the clock has them.
pub(super) fn now() -> String {
    format(OffsetDateTime::now_utc())
}

/// A time in the form of `TheThingsNetwork/lorawan-stack pkg/jsonpb/ttn.go`.
pub(super) fn format(at: OffsetDateTime) -> String {
    let (date, (hour, minute, second)) = (at.date(), at.time().as_hms());
    let fraction = format!("{:09}", at.nanosecond());
    let mut digits = fraction.as_str();
    while let Some(shorter) = digits.strip_suffix("000") {
        digits = shorter;
    }
    let point = if digits.is_empty() { "" } else { "." };
    format!("{date}T{hour:02}:{minute:02}:{second:02}{point}{digits}Z")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_has_no_three_six_or_nine_fraction_digits() {
        for (at, text) in [
            (datetime!(2026-02-03 04:05:06 UTC), "2026-02-03T04:05:06Z"),
            (datetime!(2026-02-03 04:05:06.5 UTC), "2026-02-03T04:05:06.500Z"),
            (datetime!(2026-02-03 04:05:06.000_012 UTC), "2026-02-03T04:05:06.000012Z"),
            (datetime!(2026-02-03 04:05:06.123_456_780 UTC), "2026-02-03T04:05:06.123456780Z"),
        ] {
            assert_eq!(format(at), text);
        }
    }
}
