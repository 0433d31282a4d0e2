//! Passwords behind their names (`password = …`, `api_key: …`), in headers, and in addresses.

/// Names of passwords, as the end of a word in small letters without `_`, `-` and spaces.
const PASSWORDS: [&str; 8] =
    ["password", "passwd", "passphrase", "pwd", "passwort", "kennwort", "contraseña", "motdepasse"];

/// Names of what a machine drew.
const KEYS: [&str; 9] = [
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "accountkey",
    "credential",
    "authorization",
];

/// Whether the `:` or `=` at `at` has a name of a secret before it and one behind it, or is within `user:password@`.
pub(super) fn at(line: &str, at: usize) -> bool {
    let (before, after) = (&line[..at], &line[at + 1..]);
    if let Some(address) = after.strip_prefix("//") {
        return in_address(address);
    }
    // How the names end; most signs stand behind something else.
    let last = before.trim_end_matches(|c: char| c.is_whitespace() || "\"'`*:".contains(c)).as_bytes().last();
    if !last.is_some_and(|byte| b"aAdDeElLnNtTyY".contains(byte)) {
        return false;
    }
    let name = name(before);
    let value = value(after);
    let bits = bits_per_byte(value.text.as_bytes());
    let drawn = is_mixed(value.text) && !value.is_code;
    if PASSWORDS.iter().any(|end| name.ends_with(end)) {
        return drawn && value.text.len() >= 6 && bits >= 2.25;
    }
    KEYS.iter().any(|end| name.ends_with(end)) && drawn && value.text.len() >= 12 && bits >= 3.0
}

/// The letters of the last word before the sign, at most two dozen of them.
fn name(before: &str) -> String {
    let bare = before.trim_end_matches(|c: char| c.is_whitespace() || "\"'`*:".contains(c));
    let letters = bare.chars().rev().take_while(|c| c.is_alphanumeric() || "_- ".contains(*c));
    let mut name: Vec<char> = letters.filter(|c| c.is_alphanumeric()).take(24).collect();
    name.reverse();
    name.into_iter().collect::<String>().to_lowercase()
}

struct Assigned<'a> {
    text: &'a str,
    /// Whether it is looked up or computed and not written down.
    is_code: bool,
}

fn value(after: &str) -> Assigned<'_> {
    let bare = after.trim_start_matches(|c: char| c.is_whitespace() || "=>*:".contains(c));
    let bare = ["Bearer ", "Basic ", "bearer ", "basic "]
        .iter()
        .find_map(|word| bare.strip_prefix(word))
        .unwrap_or(bare);
    let quote = bare.chars().next().filter(|c| "\"'`".contains(*c));
    let text = match quote {
        Some(quote) => bare[1..].split(quote).next(),
        None => bare.split(|c: char| c.is_whitespace() || ",;|&\"'`".contains(c)).next(),
    };
    let text = text.unwrap_or_default();
    let opens =
        text.starts_with(['$', '<', '%', '{', '[', '(', '/']) || text.contains("***") || text.contains("...");
    Assigned { text, is_code: opens || (quote.is_none() && text.contains(['(', '[', '{'])) }
}

/// Whether it has a letter and a digit and no space, as what was drawn does and a word does not.
fn is_mixed(text: &str) -> bool {
    let has = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    has(u8::is_ascii_alphabetic) && has(u8::is_ascii_digit) && !text.contains(char::is_whitespace)
}

/// Shannon's entropy of the bytes' own frequencies.
fn bits_per_byte(text: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text {
        counts[usize::from(*byte)] += 1;
    }
    let share = |count: &u32| f64::from(*count) / text.len() as f64;
    counts.iter().filter(|count| **count > 0).map(share).map(|share| -share * share.log2()).sum()
}

/// Whether `user:password@host` stands at the start.
fn in_address(address: &str) -> bool {
    let host =
        address.split(|c: char| c.is_whitespace() || "/?#\"'<>".contains(c)).next().unwrap_or_default();
    let Some((account, _)) = host.rsplit_once('@') else { return false };
    let Some((user, password)) = account.split_once(':') else { return false };
    let written = !password.starts_with(['$', '<', '{', '%', '*']) && !password.is_empty();
    written && !user.contains(['$', '<', '{']) && !is_stand_in(password)
}

/// What documentation writes in place of a password.
fn is_stand_in(password: &str) -> bool {
    ["password", "passwd", "pass", "pw", "secret", "token"].contains(&password.to_ascii_lowercase().as_str())
        || password.chars().all(|c| c == 'x' || c == 'X' || c == '.')
}
