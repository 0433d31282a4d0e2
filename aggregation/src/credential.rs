//! What the enrolment authority says of a device.

use thiserror::Error;

use crate::{
    batch::Check,
    identity::{IdentityKey, IdentityPublic, Signature},
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
    /// The authority's signature over the three.
    pub signature: Signature,
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

    /// States, with the authority's key, that `device` has the key `identity`.
    pub fn issue(
        authority: &IdentityKey,
        device: [u8; 16],
        identity: IdentityPublic,
        expires_unix_secs: u64,
    ) -> Self {
        let expiry = expires_unix_secs.to_be_bytes();
        Self {
            device,
            identity,
            expires_unix_secs,
            signature: authority.sign(Self::DOMAIN, &[&device, &identity.0, &expiry]),
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
        let expiry = self.expires_unix_secs.to_be_bytes();
        let parts: [&[u8]; 3] = [&self.device, &self.identity.0, &expiry];
        if !check(authority, Self::DOMAIN, &parts, &self.signature) {
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
        let changed = [
            Credential { device: [9; 16], ..issued.clone() },
            Credential { identity: IdentityPublic([9; 32]), ..issued.clone() },
            Credential { expires_unix_secs: 101, ..issued },
        ];
        for credential in changed {
            let refused = credential.verify(&authority.public(), 0);
            assert_eq!(refused, Err(CredentialError::Signature));
        }
    }
}
