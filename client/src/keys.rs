//! The device's keys, made on the device and never leaving it: an ECDSA P-256
//! key for TLS and an Ed25519 seed for its identity. Both are held in memory
//! that is not written to swap, where the system allows it; what TLS and the
//! identity are computed with are copies inside libraries, which are not.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use ring::{
    rand::SecureRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use shell::keys::{KeyFileError, SEED_BYTES, load_or_create_seed, load_or_create_tls_key};
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::locked::Locked;

const TLS_KEY_FILE: &str = "tls.key";
const IDENTITY_SEED_FILE: &str = "identity.seed";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written, or is readable by others.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{} does not hold {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Making a key or a signing request failed.
    #[error("a key could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The identity seed makes no key.
    #[error("the identity seed makes no Ed25519 key")]
    Identity,
    /// The system has no randomness.
    #[error("the system gave no randomness")]
    Randomness,
}

/// The device's keys.
pub struct DeviceKeys {
    tls_pkcs8: Locked,
    identity_seed: Locked,
}

impl DeviceKeys {
    /// Loads the keys from a folder (`tls.key`, `identity.seed`), or makes
    /// there what is absent. Fails when a file is malformed or readable by
    /// others than its owner, and when the folder is another user's.
    pub fn open_or_create(folder: &Path, rng: &dyn SecureRandom) -> Result<Self, KeyError> {
        if let Some(closed) = files::own_folder(folder, &[TLS_KEY_FILE, IDENTITY_SEED_FILE])? {
            tracing::warn!("{closed}");
        }
        Ok(Self {
            tls_pkcs8: open_or_create_tls(&folder.join(TLS_KEY_FILE))?,
            identity_seed: open_or_create_seed(&folder.join(IDENTITY_SEED_FILE), rng)?,
        })
    }

    /// A certificate signing request (DER) for the TLS key. It names nothing:
    /// the coordinator decides what the certificate says.
    pub fn signing_request(&self) -> Result<Vec<u8>, KeyError> {
        let key = KeyPair::try_from(&*self.tls_pkcs8)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&key)?.der().to_vec())
    }

    /// A copy of the TLS key, for TLS.
    pub fn tls_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.tls_pkcs8.to_vec()).into()
    }

    /// The seed of the identity key, for who signs with it.
    pub fn identity_seed(&self) -> Result<&[u8; 32], KeyError> {
        (&*self.identity_seed).try_into().map_err(|_| KeyError::Identity)
    }

    /// The public half of the identity key.
    pub fn identity_public_key(&self) -> Result<[u8; 32], KeyError> {
        let key = Ed25519KeyPair::from_seed_unchecked(&self.identity_seed).map_err(|_| KeyError::Identity)?;
        let mut public = [0; 32];
        for (to, from) in public.iter_mut().zip(key.public_key().as_ref()) {
            *to = *from;
        }
        Ok(public)
    }
}

impl fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKeys").finish_non_exhaustive()
    }
}

fn open_or_create_tls(path: &Path) -> Result<Locked, KeyError> {
    let key = load_or_create_tls_key(path)?;
    Ok(Locked::copy_of(&Zeroizing::new(key.serialize_der())))
}

fn open_or_create_seed(path: &Path, rng: &dyn SecureRandom) -> Result<Locked, KeyError> {
    let mut seed = Locked::zeroed(SEED_BYTES);
    load_or_create_seed(path, rng, (&mut *seed).try_into().map_err(|_| KeyError::Identity)?)?;
    Ok(seed)
}

impl From<KeyFileError> for KeyError {
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::File(error) => Self::File(error),
            KeyFileError::Malformed { path, expected } => Self::Malformed { path, expected },
            KeyFileError::Make(error) => Self::Make(error),
            KeyFileError::Randomness => Self::Randomness,
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::files::Audience;

    #[test]
    fn keys_are_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap();
        let second = DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap();
        assert_eq!(first.tls_key(), second.tls_key());
        assert_eq!(first.identity_public_key().unwrap(), second.identity_public_key().unwrap());
    }

    #[test]
    fn two_devices_have_different_keys() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = folders
            .each_ref()
            .map(|folder| DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap());
        assert_ne!(first.tls_key(), second.tls_key());
        assert_ne!(*first.identity_seed, *second.identity_seed);
    }

    #[test]
    fn a_damaged_key_file_is_named() {
        for (name, expected) in [(TLS_KEY_FILE, "PEM"), (IDENTITY_SEED_FILE, "32 bytes")] {
            let folder = tempfile::tempdir().unwrap();
            DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap();
            let path = folder.path().join(name);
            files::write(&path, b"damaged", Audience::Owner).unwrap();
            let error =
                DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::{fs, os::unix::fs::PermissionsExt};

        let folder = tempfile::tempdir().unwrap();
        DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap();
        let path = folder.path().join(IDENTITY_SEED_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap_err();
        assert!(matches!(error, KeyError::File(FileError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn debug_shows_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open_or_create(folder.path(), &SystemRandom::new()).unwrap();
        assert_eq!(format!("{keys:?}"), "DeviceKeys { .. }");
    }
}
