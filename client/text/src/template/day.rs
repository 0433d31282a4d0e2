//! The day that templates are told.

/// The day that `strftime_now` tells, as `year-month-day`: the one that the templates which ask for it fall back to.
pub const DAY: &str = "2024-07-26";

/// [`DAY`] at midnight in a format of C's `strftime`, in English; fails with the part that is not known.
pub(super) fn format(format: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut part = rest.next().unwrap_or_default();
        let short = part == '-';
        if short {
            part = rest.next().unwrap_or_default();
        }
        let value = value(part).ok_or_else(|| format!("strftime_now does not know `%{part}`"))?;
        let value = if short { value.trim_start_matches('0') } else { value };
        text.push_str(if value.is_empty() { "0" } else { value });
    }
    Ok(text)
}

fn value(part: char) -> Option<&'static str> {
    Some(match part {
        'Y' => "2024",
        'y' => "24",
        'm' => "07",
        'd' | 'e' => "26",
        'B' => "July",
        'b' | 'h' => "Jul",
        'A' => "Friday",
        'a' => "Fri",
        'u' | 'w' => "5",
        'j' => "208",
        'F' => DAY,
        'H' | 'M' | 'S' => "00",
        'I' => "12",
        'p' => "AM",
        'R' => "00:00",
        'T' | 'X' => "00:00:00",
        'D' | 'x' => "07/26/24",
        'c' => "Fri Jul 26 00:00:00 2024",
        '%' => "%",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_format_are_those_of_python() {
        // datetime.datetime(2024, 7, 26).strftime(…)
        for (asked, told) in [
            ("%d %b %Y", "26 Jul 2024"),
            ("%B %-d, %Y", "July 26, 2024"),
            ("%Y-%m-%d %H:%M:%S", "2024-07-26 00:00:00"),
            ("%A, %-m/%y (%j) 100%%", "Friday, 7/24 (208) 100%"),
            ("%-H", "0"),
            ("today", "today"),
        ] {
            assert_eq!(format(asked).as_deref(), Ok(told));
        }
        assert_eq!(format("%Q"), Err("strftime_now does not know `%Q`".to_owned()));
    }
}
