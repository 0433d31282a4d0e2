//! The key of the enrolment authority.

use std::fmt;
use std::path::Path;

use aggregation::{Credential, IdentityKey, IdentityPublic, Logged};
use authority::kept_log::label_tag;
use formats::{Release, SignedRelease};
use proto::ids::Digest;
use ring::rand::SecureRandom;
use serving::pki::PkiError;
use shell::keys::{SEED_BYTES, load_or_create_seed};
use zeroize::Zeroizing;

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

    /// By which whoever has this key finds a device in the log, and nobody else.
    pub fn label(&self, label: &str) -> [u8; 16] {
        label_tag(&self.key, label)
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

#[cfg(test)]
mod tests {
    use proto::files::{self, Audience};
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn the_enrollment_key_is_the_same_after_a_restart_and_signs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enrolment.seed");
        let first = EnrollmentKey::open_or_create(&path, &SystemRandom::new()).unwrap();
        let second = EnrollmentKey::open_or_create(&path, &SystemRandom::new()).unwrap();
        assert_eq!(first.public(), second.public());
        let logged = Logged { place: 0, enrolled_unix_secs: 1, label: first.label("a"), attested: [0; 32] };
        let credential = first.issue([7; 16], second.public(), 100, logged);
        credential.verify(&second.public(), 99).unwrap();
        assert_eq!(second.label("a"), first.label("a"));
        assert_ne!(second.label("b"), first.label("a"));
        assert_eq!(std::fs::read(&path).unwrap().len(), 32);
    }

    #[test]
    fn a_cut_enrollment_seed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enrolment.seed");
        files::write(&path, &[1; 31], Audience::Owner).unwrap();
        let error = EnrollmentKey::open_or_create(&path, &SystemRandom::new()).unwrap_err();
        assert!(matches!(error, PkiError::Malformed { .. }));
    }
}
