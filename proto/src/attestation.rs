//! What a device shows of the machine that it is on, when it enrolls.

use ring::digest::{Context, SHA256};

use crate::ids::Digest;

/// Registers of a TPM that a quote may be over.
pub const REGISTERS: u8 = 24;

/// The most bytes of each part of a quote.
pub const MOST_PART_BYTES: usize = 1 << 10;

/// The most certificates that come with a quote.
pub const MOST_CERTIFICATES: usize = 4;

/// The most bytes of one of them: whoever has no certificate yet may send 16 KiB.
pub const MOST_CERTIFICATE_BYTES: usize = 3 << 10;

/// What a device shows of the machine that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// A TPM 2.0's statement about its registers.
    Tpm(Quote),
}

/// A statement of a TPM 2.0 about its registers, in the forms of its specification, which [`tpm`](crate::tpm) reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// The key that signed it (`TPMT_PUBLIC`).
    pub key: Vec<u8>,
    /// What it signed (`TPMS_ATTEST`).
    pub statement: Vec<u8>,
    /// The signature (`TPMT_SIGNATURE`).
    pub signature: Vec<u8>,
    /// What the registers of the bank of SHA-256 hold, in the order of their numbers.
    pub registers: Vec<(u8, Digest)>,
    /// Certificates (DER) of the key, its own first; none where it has none.
    pub certificates: Vec<Vec<u8>>,
}

impl Attestation {
    /// The one encoding of it, for whoever signs it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut part = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        match self {
            Self::Tpm(quote) => {
                part(b"tpm");
                part(&quote.key);
                part(&quote.statement);
                part(&quote.signature);
                let registers = quote.registers.iter();
                part(
                    &registers
                        .flat_map(|(register, value)| [&[*register][..], &value.0].concat())
                        .collect::<Vec<_>>(),
                );
                for certificate in &quote.certificates {
                    part(certificate);
                }
            }
        }
        bytes
    }
}

/// What a statement about a machine has to repeat, so that it is good for this enrollment and no other: a hash of the public
/// half of the token's key, of the identity key, and of the request for a certificate.
pub fn challenge(token: &[u8; 32], identity: &[u8; 32], certificate_request_pem: &str) -> Digest {
    hash("nightshift v2 attestation challenge", &[token, identity, certificate_request_pem.as_bytes()])
}

/// SHA-256 over a domain and parts, each behind its length.
pub fn hash(domain: &str, parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in [domain.as_bytes()].iter().chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = Digest([0; 32]);
    // SHA-256 has as many bytes.
    for (to, from) in digest.0.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_of_one_token_one_identity_and_one_request() {
        let base = challenge(&[1; 32], &[2; 32], "request");
        assert_eq!(base, challenge(&[1; 32], &[2; 32], "request"));
        for other in [
            challenge(&[9; 32], &[2; 32], "request"),
            challenge(&[1; 32], &[9; 32], "request"),
            challenge(&[1; 32], &[2; 32], "another"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn no_two_attestations_have_one_encoding() {
        let quote = |key: &[u8], statement: &[u8], certificates: &[&[u8]]| {
            Attestation::Tpm(Quote {
                key: key.to_vec(),
                statement: statement.to_vec(),
                certificates: certificates.iter().map(|one| one.to_vec()).collect(),
                ..Quote::default()
            })
            .to_bytes()
        };
        let base = quote(b"ab", b"c", &[b"d", b"e"]);
        for other in [
            quote(b"a", b"bc", &[b"d", b"e"]),
            quote(b"ab", b"c", &[b"de"]),
            quote(b"ab", b"c", &[b"d", b"e", b""]),
            quote(b"ab", b"c", &[]),
        ] {
            assert_ne!(base, other);
        }
    }
}
