//! Times for people, in UTC, and the time spans that they type.

use std::time::Duration;

use proto::ids::Timestamp;
use time::OffsetDateTime;
use time::macros::format_description;

/// A time in milliseconds since 1970, to the minute.
pub(super) fn at(unix_millis: u64) -> String {
    let secs = i64::try_from(unix_millis / 1000).unwrap_or(i64::MAX);
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    OffsetDateTime::from_unix_timestamp(secs)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "never".to_owned())
}

/// How far a time is from now, in words.
pub(super) fn relative(unix_millis: u64, now: Timestamp) -> String {
    if unix_millis > now.0 {
        format!("in {}", span(Duration::from_millis(unix_millis - now.0)))
    } else {
        format!("{} ago", span(Duration::from_millis(now.0 - unix_millis)))
    }
}

/// A time span by its largest two units.
pub(super) fn span(span: Duration) -> String {
    let secs = span.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A time span as people type it: a whole number and `s`, `m`, `h` or `d`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time span; write a number and s, m, h or d, as in 90m or 2h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    match number.checked_mul(secs) {
        Some(0) => Err(format!("{text:?} is no time at all; write at least 1s")),
        Some(secs) if secs <= 366 * 86_400 => Ok(Duration::from_secs(secs)),
        Some(_) | None => Err(format!("{text:?} is more than a year; leave it out for no end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_as_people_type_them_and_others_are_quoted() {
        for (text, secs) in [("90m", 5400), ("2h", 7200), ("1d", 86_400), ("45s", 45)] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(secs)));
        }
        for text in ["", "h", "2", "-2h", "2.5h", "0m", "400d", "99999999999999999999d", "2 h", "2ü"] {
            let why = parse_span(text).unwrap_err();
            assert!(why.contains(&format!("{text:?}")), "{why}");
        }
    }

    #[test]
    fn times_are_told_to_the_minute_and_from_now() {
        assert_eq!(at(1_700_000_000_000), "2023-11-14 22:13 UTC");
        assert_eq!(at(u64::MAX), "never");
        assert_eq!(relative(90_000, Timestamp(0)), "in 1 min");
        assert_eq!(relative(0, Timestamp(90_061_000)), "1 d 1 h ago");
        assert_eq!(span(Duration::from_secs(3_660)), "1 h 1 min");
    }
}
