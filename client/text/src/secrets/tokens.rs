//! Keys and tokens that are known by how they begin.

use super::SecretKind;

/// A token: how it begins, how many characters follow at least and at most, and which.
struct Shape {
    prefix: &'static str,
    least: usize,
    most: usize,
    of: fn(u8) -> bool,
}

const fn shape(prefix: &'static str, least: usize, most: usize, of: fn(u8) -> bool) -> Shape {
    Shape { prefix, least, most, of }
}

const ANY: usize = 1 << 12;

/// As their issuers document them.
const SHAPES: [Shape; 36] = [
    // Amazon Web Services: ids of access keys, long-lived and temporary.
    shape("AKIA", 16, 16, upper),
    shape("ASIA", 16, 16, upper),
    // GitHub, GitLab.
    shape("ghp_", 36, 255, alphanumeric),
    shape("gho_", 36, 255, alphanumeric),
    shape("ghu_", 36, 255, alphanumeric),
    shape("ghs_", 36, 255, alphanumeric),
    shape("ghr_", 36, 255, alphanumeric),
    shape("github_pat_", 50, 255, word),
    shape("glpat-", 20, ANY, word),
    shape("gldt-", 20, ANY, word),
    // Slack.
    shape("xoxb-", 20, ANY, word),
    shape("xoxp-", 20, ANY, word),
    shape("xoxa-", 20, ANY, word),
    shape("xoxr-", 20, ANY, word),
    shape("xoxs-", 20, ANY, word),
    shape("xoxe-", 20, ANY, word),
    shape("xapp-", 20, ANY, word),
    // Google: keys, client secrets, access tokens.
    shape("AIza", 35, 35, word),
    shape("GOCSPX-", 28, 28, word),
    // Model providers and hubs.
    shape("sk-", 32, ANY, word),
    shape("hf_", 30, 60, alphanumeric),
    shape("gsk_", 40, 80, alphanumeric),
    // Package registries.
    shape("npm_", 36, 36, alphanumeric),
    shape("pypi-", 80, ANY, word),
    shape("cio", 32, 32, alphanumeric),
    shape("rubygems_", 48, 48, hexadecimal),
    shape("dckr_pat_", 20, 60, word),
    // Payments.
    shape("sk_live_", 16, 255, alphanumeric),
    shape("sk_test_", 16, 255, alphanumeric),
    shape("rk_live_", 16, 255, alphanumeric),
    shape("rk_test_", 16, 255, alphanumeric),
    shape("whsec_", 24, 255, alphanumeric),
    shape("shpat_", 32, 32, hexadecimal),
    // Hosting and messages.
    shape("dop_v1_", 64, 64, hexadecimal),
    shape("lin_api_", 40, 40, alphanumeric),
    shape("PMAK-", 59, 59, word),
];

/// The shortest word that is looked at.
const SHORTEST: usize = 19;

/// Whether the word of `len` bytes at `at` is a token, or begins one that goes on behind a full stop.
pub(super) fn at(line: &str, at: usize, len: usize) -> Option<SecretKind> {
    let word = &line[at..at + len];
    let word = word.trim_start_matches('-');
    let rest = &line[at + len..];
    if word.starts_with("AGE-SECRET-KEY-1") && word.len() == 74 {
        return Some(SecretKind::PrivateKey);
    }
    let long = word.len() >= SHORTEST && SHAPES.iter().any(|shape| shape.fits(word));
    (long || in_parts(word, rest)).then_some(SecretKind::AccessToken)
}

impl Shape {
    fn fits(&self, word: &str) -> bool {
        let Some(body) = word.strip_prefix(self.prefix) else { return false };
        let body = body.as_bytes();
        (self.least..=self.most).contains(&body.len())
            && body.iter().all(|byte| (self.of)(*byte))
            // Names are words, tokens are drawn.
            && body.iter().any(u8::is_ascii_digit)
            && body.iter().any(u8::is_ascii_alphabetic)
            && distinct(body) >= 8
    }
}

/// Tokens with full stops or a colon in them: JSON web tokens, those of `SendGrid`, Vault's, Google's, Telegram's.
fn in_parts(word: &str, rest: &str) -> bool {
    let next = |rest: &str| rest.bytes().take_while(|byte| crate::secrets::is_word(*byte)).count();
    let after = rest.strip_prefix('.').map_or(0, next);
    match word {
        _ if after == 0 => {
            let key = rest.strip_prefix(':').map_or(0, next);
            (8..=10).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit()) && key == 35
        }
        "SG" => after == 22 && rest[1 + after..].strip_prefix('.').map_or(0, next) == 43,
        "hvs" => after >= 24,
        "ya29" => after >= 30,
        _ => {
            // Both of the first parts are JSON in base64, which begins so.
            let second = &rest[1..=after];
            word.starts_with("eyJ")
                && word.len() >= 16
                && second.starts_with("eyJ")
                && rest[1 + after..].starts_with('.')
        }
    }
}

fn distinct(body: &[u8]) -> usize {
    let mut seen = [false; 256];
    for byte in body {
        seen[usize::from(*byte)] = true;
    }
    seen.iter().filter(|seen| **seen).count()
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn hexadecimal(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn word(byte: u8) -> bool {
    crate::secrets::is_word(byte)
}
