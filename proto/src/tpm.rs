//! The few forms of a TPM 2.0 that are exchanged here: the public part of a key that signs, what it signed, and the
//! signature ([TPM 2.0 Library, part 2: Structures](https://trustedcomputinggroup.org/resource/tpm-library-specification/),
//! the names in code letters are of there).
//!
//! Reading is strict: what is not of the one form that is taken is refused by its name, and nothing may follow it. Whether a
//! signature holds, and whose key it is, is not decided here. Start at [`Statement::read`].

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};

use crate::attestation::REGISTERS;
use crate::ids::Digest;

/// `TPM_GENERATED_VALUE`: what a TPM itself made begins with it, and a key that is restricted signs nothing else that does.
pub const GENERATED: u32 = 0xff54_4347;
/// `TPM_ST_ATTEST_QUOTE`
pub const ATTEST_QUOTE: u16 = 0x8018;
/// `TPM_ALG_RSA`
pub const RSA: u16 = 0x0001;
/// `TPM_ALG_SHA256`
pub const SHA_256: u16 = 0x000b;
/// `TPM_ALG_NULL`
pub const NULL: u16 = 0x0010;
/// `TPM_ALG_RSASSA`
pub const RSASSA: u16 = 0x0014;
/// `TPM_ALG_ECDSA`
pub const ECDSA: u16 = 0x0018;
/// `TPM_ALG_ECC`
pub const ECC: u16 = 0x0023;
/// `TPM_ECC_NIST_P256`
pub const P_256: u16 = 0x0003;

/// `TPMA_OBJECT` of a key that signs what its TPM made and nothing else, and never leaves it: `fixedTPM`, `fixedParent`,
/// `sensitiveDataOrigin`, restricted, sign.
pub const OF_ATTESTATION: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18;
/// `TPMA_OBJECT` decrypt.
const DECRYPT: u32 = 1 << 17;

/// A hundred years, in milliseconds: no TPM has run for so long.
const MOST_CLOCK_MILLIS: u64 = 100 * 366 * 24 * 3_600_000;

/// Why bytes are not of the form that is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// They end too early.
    #[error("it ends within its {0}")]
    Cut(&'static str),
    /// Something follows the end.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// A part is longer than it may be.
    #[error("its {what} has {bytes} bytes, more than {most}")]
    Long {
        /// The part.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// A field has another value than the one that is taken.
    #[error("its {what} is {actual:#x}, expected {expected}")]
    Value {
        /// The field.
        what: &'static str,
        /// What it is.
        actual: u64,
        /// What it must be.
        expected: &'static str,
    },
}

/// Reads numbers and parts from the front of bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins at the front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// So many bytes.
    pub fn take(&mut self, what: &'static str, bytes: usize) -> Result<&'a [u8], TpmError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(TpmError::Cut(what))?;
        self.0 = rest;
        Ok(taken)
    }

    /// What is left, whole.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], TpmError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TpmError::Cut(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, TpmError> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// Two bytes.
    pub fn short(&mut self, what: &'static str) -> Result<u16, TpmError> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Four bytes.
    pub fn word(&mut self, what: &'static str) -> Result<u32, TpmError> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes.
    pub fn long(&mut self, what: &'static str) -> Result<u64, TpmError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// A part behind its length (`TPM2B`).
    pub fn sized(&mut self, what: &'static str, most: usize) -> Result<&'a [u8], TpmError> {
        let bytes = usize::from(self.short(what)?);
        if bytes > most {
            return Err(TpmError::Long { what, bytes, most });
        }
        self.take(what, bytes)
    }

    /// Nothing is left.
    pub fn end(&self) -> Result<(), TpmError> {
        if self.0.is_empty() { Ok(()) } else { Err(TpmError::Trailing(self.0.len())) }
    }

    fn exactly(&mut self, what: &'static str, value: u16, expected: &'static str) -> Result<(), TpmError> {
        let actual = self.short(what)?;
        require(actual == value, what, actual, expected)
    }
}

fn require(
    holds: bool,
    what: &'static str,
    actual: impl Into<u64>,
    expected: &'static str,
) -> Result<(), TpmError> {
    if holds { Ok(()) } else { Err(TpmError::Value { what, actual: actual.into(), expected }) }
}

/// What a TPM says of its registers (`TPMS_ATTEST` with `TPMS_QUOTE_INFO`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What whoever asked gave to be repeated.
    pub challenge: Vec<u8>,
    /// For how long it has run, in milliseconds.
    pub clock_millis: u64,
    /// How often it was reset.
    pub resets: u32,
    /// How often it was restarted since.
    pub restarts: u32,
    /// Whether the clock never showed a later time.
    pub is_safe: bool,
    /// Its firmware's version, as its maker counts.
    pub firmware: u64,
    /// The registers of the bank of SHA-256 that it is about.
    pub registers: BTreeSet<u8>,
    /// SHA-256 over what they hold, in the order of their numbers.
    pub digest: Digest,
}

impl Statement {
    /// Reads one. Fails where it is not of this form, is about other things than registers, or about none.
    pub fn read(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.word("magic")?;
        require(magic == GENERATED, "magic", magic, "0xff544347, which only a TPM signs")?;
        reader.exactly("type", ATTEST_QUOTE, "0x8018, a quote")?;
        reader.sized("signer's name", 66)?;
        let challenge = reader.sized("extra data", 64)?.to_vec();
        let clock_millis = reader.long("clock")?;
        require(clock_millis <= MOST_CLOCK_MILLIS, "clock", clock_millis, "at most a hundred years")?;
        let (resets, restarts) = (reader.word("count of resets")?, reader.word("count of restarts")?);
        let safe = reader.byte("safe")?;
        require(safe <= 1, "safe", safe, "0 or 1")?;
        let firmware = reader.long("firmware")?;
        let registers = read_selection(&mut reader)?;
        let digest = reader.sized("digest", 64)?;
        let digest = digest.try_into().map(Digest).map_err(|_| TpmError::Value {
            what: "digest's length",
            actual: digest.len() as u64,
            expected: "32, of SHA-256",
        })?;
        reader.end()?;
        Ok(Self {
            challenge,
            clock_millis,
            resets,
            restarts,
            is_safe: safe == 1,
            firmware,
            registers,
            digest,
        })
    }
}

/// Which registers of the one bank that is taken (`TPML_PCR_SELECTION`).
fn read_selection(reader: &mut Reader<'_>) -> Result<BTreeSet<u8>, TpmError> {
    let banks = reader.word("count of banks")?;
    require(banks == 1, "count of banks", banks, "1")?;
    reader.exactly("bank", SHA_256, "0xb, SHA-256")?;
    let bytes = reader.byte("selection's length")?;
    require((1..=4).contains(&bytes), "selection's length", bytes, "1 to 4")?;
    let bits = reader.take("selection", bytes.into())?;
    let mut registers = BTreeSet::new();
    for (place, byte) in (0_u8..).zip(bits) {
        for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
            let register = place * 8 + bit;
            require(register < REGISTERS, "register", register, "below 24")?;
            registers.insert(register);
        }
    }
    require(!registers.is_empty(), "count of registers", 0_u8, "at least 1")?;
    Ok(registers)
}

/// The selection of these registers, as a TPM is given it.
pub fn selection(registers: &BTreeSet<u8>) -> Vec<u8> {
    let mut bits = [0_u8; 3];
    for register in registers {
        if let Some(byte) = bits.get_mut(usize::from(register / 8)) {
            *byte |= 1 << (register % 8);
        }
    }
    [&1_u32.to_be_bytes()[..], &SHA_256.to_be_bytes(), &[3], &bits].concat()
}

/// A key that signs statements (`TPMT_PUBLIC`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of all that is known of it, which is its name in the TPM without the name of the hash.
    pub fingerprint: Digest,
    /// What a signature is checked with.
    pub public: Public,
}

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Public {
    /// ECDSA on P-256 with SHA-256.
    Ecdsa {
        /// The point's first coordinate.
        x: [u8; 32],
        /// Its second one.
        y: [u8; 32],
    },
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rsa {
        /// The modulus, of 2048 to 4096 bits.
        modulus: Vec<u8>,
        /// The exponent.
        exponent: u32,
    },
}

impl Key {
    /// Reads one. Fails where it is of another kind, or could sign what no TPM made.
    pub fn read(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.short("type")?;
        reader.exactly("name's hash", SHA_256, "0xb, SHA-256")?;
        let attributes = reader.word("attributes")?;
        let is_for_attestation = attributes & OF_ATTESTATION == OF_ATTESTATION && attributes & DECRYPT == 0;
        let expected = "those of a key that never left its TPM and signs what that made only";
        require(is_for_attestation, "attributes", attributes, expected)?;
        reader.sized("policy", 64)?;
        reader.exactly("symmetric cipher", NULL, "0x10, none")?;
        let public = match kind {
            ECC => {
                reader.exactly("scheme", ECDSA, "0x18, ECDSA")?;
                reader.exactly("scheme's hash", SHA_256, "0xb, SHA-256")?;
                reader.exactly("curve", P_256, "0x3, P-256")?;
                reader.exactly("derivation", NULL, "0x10, none")?;
                Public::Ecdsa { x: padded(&mut reader, "x")?, y: padded(&mut reader, "y")? }
            }
            RSA => {
                reader.exactly("scheme", RSASSA, "0x14, RSASSA")?;
                reader.exactly("scheme's hash", SHA_256, "0xb, SHA-256")?;
                let bits = reader.short("size")?;
                let is_taken = [2048, 3072, 4096].contains(&bits);
                require(is_taken, "size", bits, "2048, 3072 or 4096 bits")?;
                let exponent = match reader.word("exponent")? {
                    0 => 65_537,
                    exponent => exponent,
                };
                let modulus = reader.sized("modulus", 512)?;
                let bytes = modulus.len() as u64;
                require(bytes == u64::from(bits / 8), "modulus' length", bytes, "the key's size")?;
                Public::Rsa { modulus: modulus.to_vec(), exponent }
            }
            other => {
                return Err(TpmError::Value {
                    what: "type",
                    actual: other.into(),
                    expected: "1 or 0x23, RSA or ECC",
                });
            }
        };
        reader.end()?;
        let mut fingerprint = Digest([0; 32]);
        // SHA-256 has as many bytes.
        for (to, from) in fingerprint.0.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
            *to = *from;
        }
        Ok(Self { fingerprint, public })
    }
}

/// A number of at most 32 bytes, with zeros before it: a TPM may leave those out.
fn padded(reader: &mut Reader<'_>, what: &'static str) -> Result<[u8; 32], TpmError> {
    let bytes = reader.sized(what, 32)?;
    let mut padded = [0; 32];
    for (to, from) in padded.iter_mut().rev().zip(bytes.iter().rev()) {
        *to = *from;
    }
    Ok(padded)
}

/// A signature of a TPM (`TPMT_SIGNATURE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// ECDSA with SHA-256.
    Ecdsa {
        /// Its first number.
        r: [u8; 32],
        /// Its second one.
        s: [u8; 32],
    },
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rsa(Vec<u8>),
}

impl Signature {
    /// Reads one. Fails where it is of another scheme.
    pub fn read(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let scheme = reader.short("scheme")?;
        reader.exactly("hash", SHA_256, "0xb, SHA-256")?;
        let signature = match scheme {
            ECDSA => Self::Ecdsa { r: padded(&mut reader, "r")?, s: padded(&mut reader, "s")? },
            RSASSA => Self::Rsa(reader.sized("signature", 512)?.to_vec()),
            other => {
                let expected = "0x14 or 0x18, RSASSA or ECDSA";
                return Err(TpmError::Value { what: "scheme", actual: other.into(), expected });
            }
        };
        reader.end()?;
        Ok(signature)
    }
}

#[cfg(test)]
mod tests;
