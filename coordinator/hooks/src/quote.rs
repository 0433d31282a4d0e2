//! Whether a TPM's statement about its registers is one about this enrollment, holds what is asked, and is signed by the key
//! that comes with it. Whose key that is, is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use proto::attestation::{Quote, REGISTERS};
use proto::ids::Digest;
use proto::tpm::{Key, Public, Signature, Statement, TpmError};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// The most values that one register may hold.
const MOST_VALUES: usize = 64;

/// What registers may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers(pub BTreeMap<u8, BTreeSet<Digest>>);

/// What a quote is held against.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What registers may hold; whatever they hold where this is `None`.
    pub registers: Option<&'a Registers>,
    /// The lowest version of the firmware.
    pub least_firmware: u64,
}

/// Why a quote is not taken. It is for the device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The key cannot be read, or is of a kind that proves nothing.
    #[error("the TPM's key is not taken: {0}")]
    Key(TpmError),
    /// The statement cannot be read.
    #[error("the TPM's statement is not taken: {0}")]
    Statement(TpmError),
    /// The signature cannot be read.
    #[error("the TPM's signature is not taken: {0}")]
    SignatureForm(TpmError),
    /// The signature is not the key's, or over another statement.
    #[error("the TPM's key did not sign this statement")]
    Signature,
    /// It was made for another enrollment.
    #[error("the TPM's statement was made for another enrollment: it repeats another challenge")]
    Challenge,
    /// It is about other registers.
    #[error(
        "the registers {wanted} are asked for, the TPM's statement is about {actual}; say --tpm-registers {wanted}"
    )]
    Selection {
        /// Those that are asked for.
        wanted: String,
        /// Those that it is about.
        actual: String,
    },
    /// What came as the registers' values is not what the statement is about.
    #[error("the values of the registers are not those that the TPM's statement is about")]
    Values,
    /// A register holds something else.
    #[error("register {register} of the TPM holds {actual}, which is not taken")]
    Register {
        /// Which.
        register: u8,
        /// What it holds.
        actual: Digest,
    },
    /// The firmware is too old.
    #[error("the TPM's firmware is version {actual:#x}, and {least:#x} and later are taken")]
    Firmware {
        /// Which it is.
        actual: u64,
        /// The lowest that is taken.
        least: u64,
    },
    /// Nobody vouches for the key.
    #[error("the TPM's key {fingerprint} is not known here: {why}")]
    Unknown {
        /// The key.
        fingerprint: Digest,
        /// Why.
        why: String,
    },
}

/// The key that signed a quote, if it did, over this challenge, and the quote holds what is wanted.
pub fn verify(quote: &Quote, challenge: &Digest, wanted: Wanted<'_>) -> Result<Key, QuoteError> {
    let key = Key::read(&quote.key).map_err(QuoteError::Key)?;
    let signature = Signature::read(&quote.signature).map_err(QuoteError::SignatureForm)?;
    if !is_signed(&key.public, &quote.statement, &signature) {
        return Err(QuoteError::Signature);
    }
    // Only what is signed is read.
    let statement = Statement::read(&quote.statement).map_err(QuoteError::Statement)?;
    if statement.challenge != challenge.0 {
        return Err(QuoteError::Challenge);
    }
    if statement.firmware < wanted.least_firmware {
        let (actual, least) = (statement.firmware, wanted.least_firmware);
        return Err(QuoteError::Firmware { actual, least });
    }
    if let Some(registers) = wanted.registers {
        registers.check(quote, &statement)?;
    }
    Ok(key)
}

fn is_signed(key: &Public, message: &[u8], signature: &Signature) -> bool {
    match (key, signature) {
        (Public::Ecdsa { x, y }, Signature::Ecdsa { r, s }) => {
            let point = [&[4], &x[..], y].concat();
            let signature = [*r, *s].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &signature).is_ok()
        }
        (Public::Rsa { modulus, exponent }, Signature::Rsa(signature)) => {
            let exponent = exponent.to_be_bytes();
            let zeros = exponent.iter().take_while(|byte| **byte == 0).count();
            let e = exponent.get(zeros..).unwrap_or_default();
            let key = RsaPublicKeyComponents { n: modulus.as_slice(), e };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
        }
        (Public::Ecdsa { .. }, Signature::Rsa(_)) | (Public::Rsa { .. }, Signature::Ecdsa { .. }) => false,
    }
}

impl Registers {
    /// Reads them as they stand in a configuration. Fails with words about the first that is not one.
    pub fn read(text: &BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let mut registers = BTreeMap::new();
        for (name, values) in text {
            let register = name.parse::<u8>().ok();
            let register = register.filter(|register| *register < REGISTERS && register.to_string() == *name);
            let register = register.ok_or_else(|| format!("{name} as a register"))?;
            if !(1..=MOST_VALUES).contains(&values.len()) {
                return Err(format!("{} values of register {register}", values.len()));
            }
            let read: Result<BTreeSet<Digest>, _> = values.iter().map(|value| value.parse()).collect();
            registers.insert(register, read.map_err(|error| format!("register {register}: {error}"))?);
        }
        Ok(Self(registers))
    }

    fn check(&self, quote: &Quote, statement: &Statement) -> Result<(), QuoteError> {
        let wanted: BTreeSet<u8> = self.0.keys().copied().collect();
        if statement.registers != wanted {
            let list =
                |registers: &BTreeSet<u8>| registers.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
            return Err(QuoteError::Selection { wanted: list(&wanted), actual: list(&statement.registers) });
        }
        let is_each = quote.registers.iter().map(|(register, _)| *register).eq(wanted.iter().copied());
        let values: Vec<u8> = quote.registers.iter().flat_map(|(_, value)| value.0).collect();
        if !is_each || Digest::of(&values) != statement.digest {
            return Err(QuoteError::Values);
        }
        for (register, actual) in &quote.registers {
            if !self.0.get(register).is_some_and(|values| values.contains(actual)) {
                return Err(QuoteError::Register { register: *register, actual: *actual });
            }
        }
        Ok(())
    }
}
