//! The key of the enrolment authority.

use std::fmt;
use std::path::Path;

use aggregation::{Credential, IdentityKey, IdentityPublic, Logged, Signature};
use formats::{Release, SignedRelease};
use proto::ids::Digest;
use ring::rand::SecureRandom;
use shell::keys::{SEED_BYTES, load_or_create_seed};
use zeroize::Zeroizing;

use super::PkiError;

/// The enrolment authority's key, which signs device credentials and vouches for versions.
pub struct EnrollmentKey {
    key: IdentityKey,
}

impl EnrollmentKey {
    /// Loads the key from a file of 32 random bytes (mode 0600), or makes it
    /// there. Fails when the file is readable by others or of another length.
    pub fn open_or_create(path: &Path, rng: &dyn SecureRandom) -> Result<Self, PkiError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        load_or_create_seed(path, rng, &mut seed)?;
        Ok(Self { key: IdentityKey::from_seed(&seed) })
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> IdentityPublic {
        self.key.public()
    }

    /// States that a device has an identity key, until the given second, in this place of the log.
    pub fn issue(
        &self,
        device: [u8; 16],
        identity: IdentityPublic,
        expires_unix_secs: u64,
        logged: Logged,
    ) -> Credential {
        Credential::issue_logged(&self.key, device, identity, expires_unix_secs, logged)
    }

    /// By which whoever has this key finds a device in the log, and nobody else: a signature that is published nowhere is
    /// as good as a secret.
    pub fn label(&self, label: &str) -> [u8; 16] {
        let Signature(secret) = self.key.sign("label in the enrollment log", &[label.as_bytes()]);
        let digest = Digest::of(&secret).0;
        digest.first_chunk().copied().unwrap_or_default()
    }

    /// The key itself, with which the log is signed.
    pub const fn key(&self) -> &IdentityKey {
        &self.key
    }

    /// States that a version came out of a round as described.
    pub fn sign(&self, release: Release, base: &Digest) -> SignedRelease {
        release.sign(base, &self.key)
    }
}

impl fmt::Debug for EnrollmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrollmentKey").finish_non_exhaustive()
    }
}
