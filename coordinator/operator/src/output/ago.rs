//! A moment as people type one: a date, a date with a time, or so long ago.

use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment that somebody typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// So many seconds since 1970.
    At(u64),
    /// So many seconds ago.
    Ago(u64),
}

/// What is no moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a day such as 2026-01-31, a moment such as 2026-01-31T18:00:00Z, or how long ago, such as 90m, 12h or 7d"
)]
pub(crate) struct NoMoment;

impl When {
    /// The moment, in seconds since 1970.
    pub(crate) fn unix_secs(self, now_unix_secs: u64) -> u64 {
        match self {
            Self::At(secs) => secs,
            Self::Ago(secs) => now_unix_secs.saturating_sub(secs),
        }
    }
}

impl FromStr for When {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        if let Some((count, unit)) = text.char_indices().next_back().and_then(|(at, unit)| {
            let count: u64 = text[..at].parse().ok()?;
            Some((count, unit))
        }) {
            let secs = match unit {
                's' => Some(1),
                'm' => Some(60),
                'h' => Some(3600),
                'd' => Some(24 * 3600),
                'w' => Some(7 * 24 * 3600),
                _ => None,
            };
            if let Some(secs) = secs {
                return count.checked_mul(secs).map(Self::Ago).ok_or(NoMoment);
            }
        }
        let moment = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
        // A day begins at its midnight, in UTC, as all times are printed.
        let moment = moment(text).or_else(|| moment(&format!("{text}T00:00:00Z"))).ok_or(NoMoment)?;
        u64::try_from(moment.unix_timestamp()).map(Self::At).map_err(|_| NoMoment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_moments_and_how_long_ago_are_read_and_nothing_else() {
        let when = |text: &str| text.parse::<When>();
        assert_eq!(when("7d"), Ok(When::Ago(604_800)));
        assert_eq!(when("90m").unwrap().unix_secs(10_000), 4_600);
        assert_eq!(when("2w").unwrap().unix_secs(5), 0);
        assert_eq!(when("1970-01-02"), Ok(When::At(86_400)));
        assert_eq!(when("1970-01-02T01:00:00+01:00"), Ok(When::At(86_400)));
        for none in ["", "d", "7", "7x", "-7d", "99999999999999999999d", "1969-12-31", "2026-02-30", "7日"] {
            assert_eq!(when(none), Err(NoMoment), "{none}");
        }
    }
}
