//! Regular expressions of a tokenizer: those that take for ever, or much memory, are refused.
//!
//! The library goes back where an expression fails, for as many steps as it likes at each letter of a text; a repeated
//! part that repeats itself inside multiplies them. A counted part is copied as often as it is counted.

/// The longest expression; the longest that are published have some 700 bytes.
const MOST_BYTES: usize = 4096;

/// What all counts of an expression may be, multiplied.
const MOST_COPIES: u64 = 1000;

/// Groups within groups.
const MOST_DEPTH: usize = 32;

/// Fails for an expression that is too long, counts too far, repeats what repeats itself, or looks back to what it found.
pub(super) fn check(regex: &str) -> Result<(), String> {
    if regex.len() > MOST_BYTES {
        return Err(format!("has {} bytes, at most {MOST_BYTES} are read", regex.len()));
    }
    let mut groups = vec![Group::default()];
    // Whether what stands before may be repeated without an end, and repeats so itself.
    let mut inner_repeats = false;
    // Whether it is a group with alternatives: where one of them fails, the next is tried, and so on at each repetition.
    let mut alternates = false;
    let looks_around = ["(?=", "(?!", "(?<=", "(?<!"].into_iter().any(|group| regex.contains(group));
    let mut copies = 1_u64;
    let (mut rest, mut in_class) = (regex, 0_usize);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let escaped = rest.chars().next();
                rest = &rest[escaped.map_or(0, char::len_utf8)..];
                if in_class == 0 && escaped.is_some_and(|c| matches!(c, '1'..='9' | 'k' | 'g')) {
                    return Err("refers to what it found before, which is not supported".to_owned());
                }
                // `\p{L}` and `\x{41}` are letters, not counts.
                if escaped.is_some_and(|c| matches!(c, 'p' | 'P' | 'x' | 'u' | 'U')) && rest.starts_with('{')
                {
                    rest = rest.split_once('}').map_or("", |(_, after)| after);
                }
                inner_repeats = false;
            }
            '[' => in_class += 1,
            ']' if in_class > 0 => {
                in_class -= 1;
                inner_repeats = false;
            }
            _ if in_class > 0 => {}
            '(' => {
                let flags = rest.strip_prefix('?').unwrap_or_default();
                let flags = flags.split([':', ')', '=', '!', '<', '>']).next().unwrap_or_default();
                if flags.starts_with('#') || flags.contains('x') {
                    return Err("has comments, which are not supported".to_owned());
                }
                groups.push(Group::default());
                if groups.len() > MOST_DEPTH {
                    return Err(format!("has groups nested deeper than {MOST_DEPTH}"));
                }
                inner_repeats = false;
            }
            ')' => {
                let group = groups.pop().unwrap_or_default();
                (inner_repeats, alternates) = (group.repeats, group.alternates);
                if let Some(outer) = groups.last_mut() {
                    outer.repeats |= group.repeats;
                    outer.alternates |= group.alternates;
                }
                continue;
            }
            '|' => {
                inner_repeats = false;
                if let Some(group) = groups.last_mut() {
                    group.alternates = true;
                }
            }
            '*' | '+' | '{' => {
                let (bounds, after) = if c == '{' { counts(rest) } else { (Some((0, None)), rest) };
                rest = after;
                let Some((least, most)) = bounds else {
                    inner_repeats = false;
                    continue;
                };
                copies = copies.saturating_mul(most.unwrap_or(least).max(1));
                if copies > MOST_COPIES {
                    return Err(format!("counts further than {MOST_COPIES}, all counts multiplied"));
                }
                if inner_repeats && most.is_none_or(|most| most > 1) {
                    return Err("repeats a part that repeats itself, which may take for ever".to_owned());
                }
                if alternates && looks_around && most.is_none_or(|most| most > 1) {
                    return Err(
                        "repeats alternatives beside a part that looks around, which may take for ever"
                            .to_owned(),
                    );
                }
                // A part that is there so many times, no more and no fewer, can be found in one way only.
                inner_repeats = most != Some(least) && most.is_none_or(|most| most > 1);
                if let Some(group) = groups.last_mut() {
                    group.repeats |= inner_repeats;
                }
                // A mark that changes the repetition is none itself.
                if rest.starts_with(['?', '+']) {
                    rest = &rest[1..];
                }
            }
            _ => inner_repeats = false,
        }
        alternates = false;
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Group {
    repeats: bool,
    alternates: bool,
}

/// The least and the most of `2}`, `2,}` or `2,3}`, and what stands after; none where it is no count.
fn counts(text: &str) -> (Option<(u64, Option<u64>)>, &str) {
    let Some((inside, after)) = text.split_once('}') else { return (None, text) };
    let (least, most) = match inside.split_once(',') {
        None => (inside, Some(inside)),
        Some((least, "")) => (least, None),
        Some((least, most)) => (least, Some(most)),
    };
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.trim().parse().ok() };
    match (number(least), most.map(number)) {
        (Some(least), None) => (Some((least, None)), after),
        (Some(least), Some(Some(most))) => (Some((least, Some(most))), after),
        // Too large to be a number, or none.
        _ if inside.chars().all(|c| c.is_ascii_digit() || c == ',') => (Some((u64::MAX, None)), after),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expressions_of_published_tokenizers_are_taken() {
        for regex in [
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[!\x22#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            r"\p{N}{1,3}",
            " {2,}",
            r"(?=(\d{3})+(?!\d))",
        ] {
            let refused = check(regex);
            // The last one counts by three from the end and repeats only what has a length.
            assert!(refused.is_ok(), "{regex}: {refused:?}");
        }
    }

    #[test]
    fn an_expression_that_takes_for_ever_or_much_memory_is_refused() {
        for regex in [
            "(a+)+$",
            r"(?:\w|[a-z ](?=[\s\S]))+\d",
            r"(?:\w|[a-z ])+(?!\w)\d",
            "(?:(?:a*)b?)*c",
            "((?=a)a){100000}",
            "(?:(?:(?:a?){100}){100}){100}",
            r"(a)\1",
            r"(?<x>a)\k<x>",
            "a{99999999999999999999999}",
            &"(".repeat(1000),
            &"a".repeat(5000),
        ] {
            assert!(check(regex).is_err(), "{regex}");
        }
    }
}
