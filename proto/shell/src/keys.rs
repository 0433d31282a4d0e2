//! Files of secret keys, which are made where they are absent and readable by their owner only.

use std::path::{Path, PathBuf};

use proto::files::{self, Audience, FileError};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

/// Bytes of the seed of an Ed25519 key.
pub const SEED_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file could not be read or written, or is readable by others.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not hold what it should.
    #[error("{} does not hold {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Making a key failed.
    #[error("a key could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The system has no randomness.
    #[error("the system gave no randomness")]
    Randomness,
}

/// Loads an ECDSA P-256 key from a file in PEM (PKCS #8). Fails when the file is absent, malformed, or readable by others
/// than its owner.
pub fn load_tls_key(path: &Path) -> Result<KeyPair, KeyFileError> {
    let malformed = || KeyFileError::Malformed {
        path: path.to_owned(),
        expected: "a PEM private key (PKCS #8, ECDSA P-256)",
    };
    let pem = Zeroizing::new(files::read_secret(path)?);
    let pem = std::str::from_utf8(&pem).map_err(|_| malformed())?;
    let key = KeyPair::from_pem(pem).map_err(|_| malformed())?;
    if key.is_compatible(&PKCS_ECDSA_P256_SHA256) { Ok(key) } else { Err(malformed()) }
}

/// The same as [`load_tls_key`], but makes the key and the file where there is none.
pub fn load_or_create_tls_key(path: &Path) -> Result<KeyPair, KeyFileError> {
    match load_tls_key(path) {
        Err(KeyFileError::File(error)) if error.is_absent() => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let pem = Zeroizing::new(key.serialize_pem());
            files::write(path, pem.as_bytes(), Audience::Owner)?;
            Ok(key)
        }
        other => other,
    }
}

/// Reads a seed into memory of the caller's from a file of 32 bytes, or draws it and makes the file. Fails when the file
/// is of another length or readable by others than its owner.
pub fn load_or_create_seed(
    path: &Path,
    rng: &dyn SecureRandom,
    seed: &mut [u8; SEED_BYTES],
) -> Result<(), KeyFileError> {
    match files::read_secret(path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            let malformed = KeyFileError::Malformed { path: path.to_owned(), expected: "a seed of 32 bytes" };
            let bytes: &[u8; SEED_BYTES] = bytes.as_slice().try_into().map_err(|_| malformed)?;
            seed.copy_from_slice(bytes);
        }
        Err(error) if error.is_absent() => {
            rng.fill(seed).map_err(|_| KeyFileError::Randomness)?;
            files::write(path, seed.as_slice(), Audience::Owner)?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
