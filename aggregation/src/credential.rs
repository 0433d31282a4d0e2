//! What the enrolment authority says of a device.

use thiserror::Error;

use crate::{
    batch::Check,
    identity::{IdentityKey, IdentityPublic, Signature},
    log::Leaf,
};

/// The enrolment authority's statement that a device has an identity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The device.
    pub device: [u8; 16],
    /// Its identity key.
    pub identity: IdentityPublic,
    /// The first second since 1970 at which the statement no longer holds.
    pub expires_unix_secs: u64,
    /// What more its authority says of it, where the authority keeps a log.
    pub logged: Option<Logged>,
    /// The authority's signature over all of it.
    pub signature: Signature,
}

/// What an authority that keeps a [`log`](crate::log) says more of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The place of the credential's leaf.
    pub place: u64,
    /// When the device enrolled first, in seconds since 1970.
    pub enrolled_unix_secs: u64,
    /// By which its operator finds their own in the log: a keyed hash of what they call it.
    pub label: [u8; 16],
    /// The digest of the policy under which it was attested; zeros for none.
    pub attested: [u8; 32],
}

/// Why a credential does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// It is no longer valid.
    #[error("credential expired at {expires_unix_secs}, now is {now_unix_secs}")]
    Expired {
        /// When it ended.
        expires_unix_secs: u64,
        /// The time it was checked at.
        now_unix_secs: u64,
    },
    /// The authority did not sign it.
    #[error("credential is not signed by the enrolment authority")]
    Signature,
}

impl Credential {
    const DOMAIN: &'static str = "credential";

    /// States, with the authority's key, that `device` has the key `identity`. It is in no log.
    pub fn issue(
        authority: &IdentityKey,
        device: [u8; 16],
        identity: IdentityPublic,
        expires_unix_secs: u64,
    ) -> Self {
        Self::sign(authority, (device, identity, expires_unix_secs), None)
    }

    /// States the same, with a place in the authority's log. [`Credential::leaf`] is what must be there.
    pub fn issue_logged(
        authority: &IdentityKey,
        device: [u8; 16],
        identity: IdentityPublic,
        expires_unix_secs: u64,
        logged: Logged,
    ) -> Self {
        Self::sign(authority, (device, identity, expires_unix_secs), Some(logged))
    }

    fn sign(
        authority: &IdentityKey,
        (device, identity, expires_unix_secs): ([u8; 16], IdentityPublic, u64),
        logged: Option<Logged>,
    ) -> Self {
        let unsigned = Self { device, identity, expires_unix_secs, logged, signature: Signature([0; 64]) };
        let signature = unsigned.with_parts(|domain, parts| authority.sign(domain, parts));
        Self { signature, ..unsigned }
    }

    /// The place and the leaf of the credential, where it is in a log.
    pub fn leaf(&self) -> Option<(u64, Leaf)> {
        let Self { device, identity, expires_unix_secs, .. } = *self;
        let Logged { place, enrolled_unix_secs, label, attested } = self.logged?;
        let leaf =
            Leaf::Credential { device, identity, expires_unix_secs, enrolled_unix_secs, label, attested };
        Some((place, leaf))
    }

    /// What is signed, and under which domain.
    fn with_parts<T>(&self, with: impl FnOnce(&'static str, &[&[u8]]) -> T) -> T {
        let expiry = self.expires_unix_secs.to_be_bytes();
        match &self.logged {
            None => with(Self::DOMAIN, &[&self.device, &self.identity.0, &expiry]),
            Some(Logged { place, enrolled_unix_secs, label, attested }) => {
                let (place, enrolled) = (place.to_be_bytes(), enrolled_unix_secs.to_be_bytes());
                let parts: [&[u8]; 7] =
                    [&self.device, &self.identity.0, &expiry, &place, &enrolled, label, attested];
                with("logged credential", &parts)
            }
        }
    }

    /// Fails unless the authority signed the statement and it still holds.
    pub fn verify(&self, authority: &IdentityPublic, now_unix_secs: u64) -> Result<(), CredentialError> {
        self.verify_by(authority, now_unix_secs, &mut |key, domain, parts, signature| {
            key.verify(domain, parts, signature)
        })
    }

    /// As [`Credential::verify`], with the signature left to `check`.
    pub(crate) fn verify_by(
        &self,
        authority: &IdentityPublic,
        now_unix_secs: u64,
        check: &mut Check<'_>,
    ) -> Result<(), CredentialError> {
        if !self.with_parts(|domain, parts| check(authority, domain, parts, &self.signature)) {
            return Err(CredentialError::Signature);
        }
        if now_unix_secs >= self.expires_unix_secs {
            return Err(CredentialError::Expired {
                expires_unix_secs: self.expires_unix_secs,
                now_unix_secs,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_holds_until_the_second_of_its_expiry() {
        let authority = IdentityKey::from_seed(&[1; 32]);
        let credential = Credential::issue(&authority, [4; 16], IdentityPublic([5; 32]), 100);
        let verify = |now| credential.verify(&authority.public(), now);
        assert_eq!(verify(99), Ok(()));
        let expired = CredentialError::Expired { expires_unix_secs: 100, now_unix_secs: 100 };
        assert_eq!(verify(100), Err(expired));
    }

    #[test]
    fn a_credential_that_was_changed_is_refused() {
        let authority = IdentityKey::from_seed(&[1; 32]);
        let issued = Credential::issue(&authority, [4; 16], IdentityPublic([5; 32]), 100);
        let logged = Logged { place: 1, enrolled_unix_secs: 2, label: [3; 16], attested: [4; 32] };
        let identity = IdentityPublic([5; 32]);
        let placed = Credential::issue_logged(&authority, [4; 16], identity, 100, logged);
        assert_eq!(placed.verify(&authority.public(), 0), Ok(()));
        let with = |logged: Logged| Credential { logged: Some(logged), ..placed.clone() };
        let changed = [
            Credential { device: [9; 16], ..issued.clone() },
            Credential { identity: IdentityPublic([9; 32]), ..issued.clone() },
            Credential { logged: Some(logged), ..issued.clone() },
            Credential { expires_unix_secs: 101, ..issued },
            Credential { logged: None, ..placed.clone() },
            Credential { device: [9; 16], ..placed.clone() },
            Credential { expires_unix_secs: 101, ..placed.clone() },
            with(Logged { place: 2, ..logged }),
            with(Logged { enrolled_unix_secs: 1, ..logged }),
            with(Logged { label: [9; 16], ..logged }),
            with(Logged { attested: [9; 32], ..logged }),
        ];
        for credential in changed {
            let refused = credential.verify(&authority.public(), 0);
            assert_eq!(refused, Err(CredentialError::Signature));
        }
    }
}
