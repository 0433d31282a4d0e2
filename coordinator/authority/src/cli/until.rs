//! How long something lasts, as people write it.

use std::str::FromStr;

/// So many minutes, hours or days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Until(u64);

impl Until {
    pub(super) fn secs(self) -> u64 {
        self.0
    }
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("`{text}` is not so long as `90m`, `24h` or `7d` is: a whole number and m, h or d");
        let units = [('m', 60), ('h', 3600), ('d', 24 * 3600)];
        let (unit, secs) = units.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(refused)?;
        let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| refused())?;
        number.checked_mul(secs).map(Self).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_hours_and_days_are_read_and_nothing_else() {
        let secs = |text: &str| text.parse::<Until>().map(Until::secs);
        assert_eq!((secs("90m"), secs("24h"), secs("7d")), (Ok(5400), Ok(86_400), Ok(604_800)));
        for text in ["", "h", "24", "-1h", "1.5h", "1w", "99999999999999999999d", "9999999999999999999d"] {
            assert!(secs(text).unwrap_err().contains("`24h`"), "{text}");
        }
    }
}
