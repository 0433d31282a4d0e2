//! Domain-separated, length-prefixed bytes and their SHA-256 digest.

use ring::digest::{Context, SHA256};

/// The prefix of every domain, so that no key or signature of this protocol
/// means anything elsewhere.
const PROTOCOL: &[u8] = b"nightshift-aggregation/1";

/// The SHA-256 digest of `parts` under `domain`.
///
/// Two calls agree only if the domain, the number of parts and every part
/// agree: each piece is prefixed with its length.
pub fn digest(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    sha256(&[&encode(domain, parts)])
}

/// The bytes of which [`digest`] is the digest; what a signature is made over.
pub(crate) fn encode(domain: &str, parts: &[&[u8]]) -> Vec<u8> {
    let body: usize = parts.iter().map(|part| 8 + part.len()).sum();
    let mut bytes = Vec::with_capacity(24 + PROTOCOL.len() + domain.len() + body);
    append(&mut bytes, PROTOCOL);
    append(&mut bytes, domain.as_bytes());
    bytes.extend_from_slice(&length(parts.len()));
    for part in parts {
        append(&mut bytes, part);
    }
    bytes
}

/// Plain SHA-256 of the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// A length as eight bytes, the same on every machine.
pub(crate) fn length(value: usize) -> [u8; 8] {
    // A usize has at most 64 bits on every target that Rust supports.
    u64::try_from(value).unwrap_or(u64::MAX).to_be_bytes()
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&length(part.len()));
    bytes.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_parts_changes_the_digest() {
        assert_ne!(digest("d", &[b"ab", b"c"]), digest("d", &[b"a", b"bc"]));
        assert_ne!(digest("d", &[b"abc"]), digest("d", &[b"abc", b""]));
        assert_ne!(digest("d", &[b"abc"]), digest("da", &[b"bc"]));
    }

    #[test]
    fn plain_sha256_agrees_with_fips_180() {
        // FIPS 180-4 example: SHA-256("abc").
        let expected = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
            0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
        ];
        assert_eq!(sha256(&[b"a", b"bc"]), expected);
    }
}
