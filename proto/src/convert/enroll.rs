//! Enrolment, and the renewal of what it gave.

use aggregation::{Credential, IdentityKey, IdentityPublic, Signature};

use super::{WireError, credential_from_wire, credential_to_wire, error, fixed, present, signature};
use crate::ids::DeviceId;
use crate::wire;

/// What a device shows to be enrolled. It is worth nothing for another device: both keys sign all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// The public half of a bootstrap token's key.
    pub token: IdentityPublic,
    /// The token key's signature over the rest.
    pub token_proof: Signature,
    /// A certificate signing request, in PEM.
    pub certificate_request_pem: String,
    /// The long-lived signing key.
    pub identity: IdentityPublic,
    /// Its signature over the rest but the token's.
    pub proof: Signature,
}

/// What separates the proof of an enrolment from everything else that an identity key signs.
const PROOF_DOMAIN: &str = "nightshift v2 enrolment";

/// What a token's key signs, which is nothing else.
const TOKEN_DOMAIN: &str = "nightshift v2 bootstrap token";

impl Enrollment {
    /// An enrolment whose proofs are made with the keys themselves.
    pub fn new(token: &IdentityKey, certificate_request_pem: String, identity: &IdentityKey) -> Self {
        let unproved = Signature([0; 64]);
        let (token_public, identity_public) = (token.public(), identity.public());
        let mut made = Self {
            token: token_public,
            token_proof: unproved,
            certificate_request_pem,
            identity: identity_public,
            proof: unproved,
        };
        made.proof = identity.sign(PROOF_DOMAIN, &made.said());
        made.token_proof = token.sign(TOKEN_DOMAIN, &made.said_with_proof());
        made
    }

    /// Whether whoever wrote it holds the identity key: a proof over another token or another request is none.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.identity.verify(PROOF_DOMAIN, &self.said(), &self.proof)
    }

    /// Whether whoever wrote it holds the token: a proof over another identity or another request is none.
    #[must_use]
    pub fn is_by_token(&self) -> bool {
        self.token.verify(TOKEN_DOMAIN, &self.said_with_proof(), &self.token_proof)
    }

    /// All but the proofs.
    fn said(&self) -> [&[u8]; 3] {
        [&self.token.0, &self.identity.0, self.certificate_request_pem.as_bytes()]
    }

    /// All but the token's proof.
    fn said_with_proof(&self) -> [&[u8]; 4] {
        let [token, identity, request] = self.said();
        [token, identity, request, &self.proof.0]
    }
}

/// What an enrolled device shows to be given its next certificate and credential.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The key by which the coordinator vouches for versions, where that is not the enrollment authority's.
    pub publisher: Option<IdentityPublic>,
}

/// Encodes an enrolment.
pub fn enroll_request_to_wire(enrollment: &Enrollment) -> wire::EnrollRequest {
    wire::EnrollRequest {
        token_key: enrollment.token.0.to_vec(),
        token_proof: enrollment.token_proof.0.to_vec(),
        certificate_request_pem: enrollment.certificate_request_pem.clone(),
        identity_key: enrollment.identity.0.to_vec(),
        identity_proof: enrollment.proof.0.to_vec(),
    }
}

/// Decodes an enrolment.
pub fn enroll_request_from_wire(message: wire::EnrollRequest) -> Result<Enrollment, WireError> {
    if message.token_key.is_empty() {
        let why = "it shows no token's key, as programs of before tokens that begin with nst2. do; install a newer \
                   nightshift-agent and ask the operator for a new token";
        return Err(error("enrollment", why));
    }
    Ok(Enrollment {
        token: IdentityPublic(fixed("token key", &message.token_key)?),
        token_proof: signature("token proof", &message.token_proof)?,
        identity: IdentityPublic(fixed("identity key", &message.identity_key)?),
        proof: signature("identity proof", &message.identity_proof)?,
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
        proof: signature("identity proof", &message.identity_proof)?,
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
        publisher: enrolled.publisher.map_or_else(Vec::new, |key| key.0.to_vec()),
    }
}

/// Decodes the answer to an enrolment or a renewal.
pub fn enroll_reply_from_wire(message: wire::EnrollReply) -> Result<Enrolled, WireError> {
    let publisher = if message.publisher.is_empty() {
        None
    } else {
        Some(IdentityPublic(fixed("publisher", &message.publisher)?))
    };
    Ok(Enrolled {
        device: DeviceId(fixed("device", &message.device)?),
        credential: credential_from_wire(present("credential", message.credential.as_ref())?)?,
        authority: IdentityPublic(fixed("authority", &message.authority)?),
        certificate_pem: message.certificate_pem,
        issued_unix_secs: message.issued_unix_secs,
        label: message.label,
        publisher,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole() -> Enrollment {
        let (token, identity) = (IdentityKey::from_seed(&[1; 32]), IdentityKey::from_seed(&[2; 32]));
        Enrollment::new(&token, "a request".to_owned(), &identity)
    }

    #[test]
    fn an_enrollment_is_proved_by_both_keys_and_read_back() {
        let enrollment = whole();
        assert!(enrollment.is_proved() && enrollment.is_by_token());
        assert_eq!(enroll_request_from_wire(enroll_request_to_wire(&enrollment)), Ok(enrollment));
    }

    #[test]
    fn a_proof_that_was_seen_is_worth_nothing_for_another_identity() {
        let seen = whole();
        let liar = IdentityKey::from_seed(&[3; 32]);
        // As much as somebody can do who has not the token's key: everything else is theirs.
        let own = Enrollment::new(&liar, seen.certificate_request_pem.clone(), &liar);
        let redirected = [
            Enrollment { token: seen.token, token_proof: seen.token_proof, ..own.clone() },
            Enrollment { identity: liar.public(), ..seen.clone() },
            Enrollment { token: seen.token, ..own },
            Enrollment { certificate_request_pem: "another".to_owned(), ..seen.clone() },
            Enrollment { proof: liar.sign(PROOF_DOMAIN, &seen.said()), ..seen },
        ];
        for enrollment in redirected {
            assert!(!enrollment.is_by_token(), "{enrollment:?}");
        }
    }

    #[test]
    fn a_program_of_before_is_told_what_to_do() {
        let earlier = wire::EnrollRequest { token_key: Vec::new(), ..enroll_request_to_wire(&whole()) };
        let refused = enroll_request_from_wire(earlier).unwrap_err().to_string();
        assert!(refused.contains("install a newer nightshift-agent"), "{refused}");
    }

    proptest! {
        #[test]
        fn one_changed_byte_anywhere_is_seen(part in 0..4_usize, at in any::<prop::sample::Index>(), mask in 1_u8..) {
            let mut wire = enroll_request_to_wire(&whole());
            let bytes = match part {
                0 => &mut wire.token_key,
                1 => &mut wire.token_proof,
                2 => &mut wire.identity_key,
                _ => &mut wire.identity_proof,
            };
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            let changed = enroll_request_from_wire(wire).unwrap();
            prop_assert!(!changed.is_by_token());
        }
    }
}
