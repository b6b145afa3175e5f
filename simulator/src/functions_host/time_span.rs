//! .NET's time texts: time spans in settings, dates in envelopes.

use std::time::Duration;

use time::OffsetDateTime;

/// Parses a time span such as `00:05:00`, `1.00:00:00` or `00:00:00.5`.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (days, clock) = match text.split_once(':')?.0.split_once('.') {
        Some((days, _)) => (days.parse::<u32>().ok()?, &text[days.len() + 1..]),
        None => (0, text),
    };
    let mut parts = clock.split(':');
    let hours: u32 = parts.next()?.parse().ok()?;
    let minutes: u32 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().unwrap_or("0").parse().ok()?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || !(0.0..60.0).contains(&seconds) {
        return None;
    }
    let whole = u64::from(days) * 86_400 + u64::from(hours) * 3_600 + u64::from(minutes) * 60;
    Some(Duration::from_secs(whole) + Duration::from_secs_f64(seconds))
}

/// Writes a time span as .NET does: `00:00:20`, `00:00:04.1179036`.
pub(super) fn format(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let days = if days == 0 { String::new() } else { format!("{days}.") };
    let fraction = match span.subsec_nanos() / 100 {
        0 => String::new(),
        ticks => format!(".{ticks:07}"),
    };
    format!("{days}{hours:02}:{minutes:02}:{:02}{fraction}", seconds % 60)
}

/// A date without a zone as Newtonsoft writes it: up to seven digits of a second, without zeros at the end.
pub(super) fn date(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    let ticks = at.nanosecond() / 100;
    if ticks > 0 {
        text.push('.');
        text.push_str(format!("{ticks:07}").trim_end_matches('0'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn spans_are_read_and_written_as_dot_net_does() {
        for (text, span) in [
            ("00:05:00", Some(Duration::from_secs(300))),
            ("1.00:00:00", Some(Duration::from_secs(86_400))),
            ("00:00:04.1179036", Some(Duration::from_nanos(4_117_903_600))),
            ("00:61:00", None),
            ("-1", None),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(parse(text), span, "{text}");
            if let Some(span) = span {
                assert_eq!(format(span), text);
            }
        }
    }

    #[test]
    fn dates_lose_the_zeros_at_their_end() {
        for (at, text) in [
            (datetime!(2026-03-01 10:20:30.411 UTC), "2026-03-01T10:20:30.411"),
            (datetime!(2026-03-01 10:20:30.250 UTC), "2026-03-01T10:20:30.25"),
            (datetime!(2026-03-01 10:20:30 UTC), "2026-03-01T10:20:30"),
            (datetime!(2026-03-01 12:20:30.7654321 +2), "2026-03-01T10:20:30.7654321"),
        ] {
            assert_eq!(date(at), text);
        }
    }
}
