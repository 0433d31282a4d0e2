//! Who else is asked when a device enrolls or its certificate is renewed, as the configuration says.

use std::sync::atomic::AtomicU64;

use hooks::config::{AttestationKeys, IssuerKeys};
use hooks::{AttestationVerifier, CertIssuer, OpenError};

use crate::seldom::Seldom;

/// Who else is asked.
#[derive(Debug)]
pub struct Hooks {
    /// Who signs devices' certificates.
    pub issuer: CertIssuer,
    /// What is asked of devices' machines.
    pub attestation: AttestationVerifier,
    /// What comes to nothing is said once a minute, since whoever has a token can bring it about as often as they like.
    pub(crate) said: Seldom,
    /// What was not said since.
    pub(crate) unsaid: AtomicU64,
}

impl Hooks {
    /// Those of a configuration. Fails where a file that it names cannot be used.
    pub fn open(issuer: &IssuerKeys, attestation: &AttestationKeys) -> Result<Self, OpenError> {
        Ok(Self::of(CertIssuer::open(issuer)?, AttestationVerifier::open(attestation)?))
    }

    /// Nobody else is asked.
    pub fn none() -> Self {
        Self::of(CertIssuer::Own, AttestationVerifier::None)
    }

    fn of(issuer: CertIssuer, attestation: AttestationVerifier) -> Self {
        Self { issuer, attestation, said: Seldom::new(), unsaid: AtomicU64::new(0) }
    }
}
