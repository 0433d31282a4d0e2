//! Enrolment, and the renewal of what it gave.

use aggregation::{Credential, IdentityKey, IdentityPublic, Signature};

use super::{WireError, credential_from_wire, credential_to_wire, fixed, present};
use crate::ids::DeviceId;
use crate::wire;

/// What a device shows to be enrolled.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// The secret of a bootstrap token.
    pub token_secret: [u8; 32],
    /// A certificate signing request, in PEM.
    pub certificate_request_pem: String,
    /// The long-lived signing key.
    pub identity: IdentityPublic,
    /// Its signature over the rest.
    pub proof: Signature,
}

/// What separates the proof of an enrolment from everything else that an identity key signs.
const PROOF_DOMAIN: &str = "nightshift v1 enrolment";

impl Enrollment {
    /// An enrolment whose proof is made with the key itself.
    pub fn new(token_secret: [u8; 32], certificate_request_pem: String, identity: &IdentityKey) -> Self {
        let parts: [&[u8]; 2] = [&token_secret, certificate_request_pem.as_bytes()];
        let proof = identity.sign(PROOF_DOMAIN, &parts);
        Self { token_secret, identity: identity.public(), proof, certificate_request_pem }
    }

    /// Whether whoever wrote it holds the identity key: a proof over another token or another request is none.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        let parts: [&[u8]; 2] = [&self.token_secret, self.certificate_request_pem.as_bytes()];
        self.identity.verify(PROOF_DOMAIN, &parts, &self.proof)
    }
}

/// What an enrolled device shows to be given its next certificate and credential.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Its name.
    pub device: DeviceId,
    /// A certificate signing request, in PEM.
    pub certificate_request_pem: String,
    /// The signature of the identity key with which it enrolled over the rest.
    pub proof: Signature,
}

/// What separates the proof of a renewal from everything else that an identity key signs.
const RENEWAL_DOMAIN: &str = "nightshift v1 renewal";

impl Renewal {
    /// A renewal whose proof is made with the key itself.
    pub fn new(device: DeviceId, certificate_request_pem: String, identity: &IdentityKey) -> Self {
        let parts: [&[u8]; 2] = [&device.0, certificate_request_pem.as_bytes()];
        let proof = identity.sign(RENEWAL_DOMAIN, &parts);
        Self { device, certificate_request_pem, proof }
    }

    /// Whether whoever wrote it holds this identity key.
    ///
    /// It may come a second time from somebody who saw it: what is given for it is worthless to whoever has not the key
    /// of the certificate request.
    #[must_use]
    pub fn is_proved_by(&self, identity: &IdentityPublic) -> bool {
        let parts: [&[u8]; 2] = [&self.device.0, self.certificate_request_pem.as_bytes()];
        identity.verify(RENEWAL_DOMAIN, &parts, &self.proof)
    }
}

/// What an enrolled device is given.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Its name.
    pub device: DeviceId,
    /// Its certificate, in PEM.
    pub certificate_pem: String,
    /// The enrolment authority's statement about its signing key.
    pub credential: Credential,
    /// The enrolment authority's key.
    pub authority: IdentityPublic,
    /// When certificate and credential were made, by the coordinator's clock.
    pub issued_unix_secs: u64,
    /// How the operator calls the device; empty where an older coordinator does not say.
    pub label: String,
}

/// Encodes an enrolment.
pub fn enroll_request_to_wire(enrollment: &Enrollment) -> wire::EnrollRequest {
    wire::EnrollRequest {
        token_secret: enrollment.token_secret.to_vec(),
        certificate_request_pem: enrollment.certificate_request_pem.clone(),
        identity_key: enrollment.identity.0.to_vec(),
        identity_proof: enrollment.proof.0.to_vec(),
    }
}

/// Decodes an enrolment.
pub fn enroll_request_from_wire(message: wire::EnrollRequest) -> Result<Enrollment, WireError> {
    Ok(Enrollment {
        token_secret: fixed("token", &message.token_secret)?,
        identity: IdentityPublic(fixed("identity key", &message.identity_key)?),
        proof: Signature(fixed("identity proof", &message.identity_proof)?),
        certificate_request_pem: message.certificate_request_pem,
    })
}

/// Encodes a renewal.
pub fn renew_request_to_wire(renewal: &Renewal) -> wire::RenewRequest {
    wire::RenewRequest {
        device: renewal.device.0.to_vec(),
        certificate_request_pem: renewal.certificate_request_pem.clone(),
        identity_proof: renewal.proof.0.to_vec(),
    }
}

/// Decodes a renewal.
pub fn renew_request_from_wire(message: wire::RenewRequest) -> Result<Renewal, WireError> {
    Ok(Renewal {
        device: DeviceId(fixed("device", &message.device)?),
        proof: Signature(fixed("identity proof", &message.identity_proof)?),
        certificate_request_pem: message.certificate_request_pem,
    })
}

/// Encodes the answer to an enrolment or a renewal.
pub fn enroll_reply_to_wire(enrolled: &Enrolled) -> wire::EnrollReply {
    wire::EnrollReply {
        device: enrolled.device.0.to_vec(),
        certificate_pem: enrolled.certificate_pem.clone(),
        credential: Some(credential_to_wire(&enrolled.credential)),
        authority: enrolled.authority.0.to_vec(),
        issued_unix_secs: enrolled.issued_unix_secs,
        label: enrolled.label.clone(),
    }
}

/// Decodes the answer to an enrolment or a renewal.
pub fn enroll_reply_from_wire(message: wire::EnrollReply) -> Result<Enrolled, WireError> {
    Ok(Enrolled {
        device: DeviceId(fixed("device", &message.device)?),
        credential: credential_from_wire(present("credential", message.credential.as_ref())?)?,
        authority: IdentityPublic(fixed("authority", &message.authority)?),
        certificate_pem: message.certificate_pem,
        issued_unix_secs: message.issued_unix_secs,
        label: message.label,
    })
}
