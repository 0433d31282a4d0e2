//! Enrolment, and the renewal of what it gave.

use aggregation::{Credential, IdentityKey, IdentityPublic, Signature};

use super::{WireError, credential_from_wire, credential_to_wire, error, fixed, present, signature};
use crate::attestation::{
    self, Attestation, MOST_CERTIFICATE_BYTES, MOST_CERTIFICATES, MOST_PART_BYTES, Quote, REGISTERS,
};
use crate::ids::{DeviceId, Digest};
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
    /// What it shows of the machine that it is on, if anything.
    pub attestation: Option<Attestation>,
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
        Self::attested(token, certificate_request_pem, None, identity)
    }

    /// The same with what the device shows of the machine that it is on, which the proofs are over too.
    pub fn attested(
        token: &IdentityKey,
        certificate_request_pem: String,
        attestation: Option<Attestation>,
        identity: &IdentityKey,
    ) -> Self {
        let unproved = Signature([0; 64]);
        let mut made = Self {
            token: token.public(),
            token_proof: unproved,
            certificate_request_pem,
            identity: identity.public(),
            attestation,
            proof: unproved,
        };
        made.proof = made.with_said(|said| identity.sign(PROOF_DOMAIN, said));
        made.token_proof = made.with_all(|said| token.sign(TOKEN_DOMAIN, said));
        made
    }

    /// Whether whoever wrote it holds the identity key: a proof over another token, another request or another statement
    /// about the machine is none.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.with_said(|said| self.identity.verify(PROOF_DOMAIN, said, &self.proof))
    }

    /// Whether whoever wrote it holds the token: a proof over another identity or another request is none.
    #[must_use]
    pub fn is_by_token(&self) -> bool {
        self.with_all(|said| self.token.verify(TOKEN_DOMAIN, said, &self.token_proof))
    }

    /// What a statement about the machine has to repeat.
    pub fn challenge(&self) -> Digest {
        attestation::challenge(&self.token.0, &self.identity.0, &self.certificate_request_pem)
    }

    /// All but the proofs.
    fn with_said<T>(&self, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        let shown = self.attestation.as_ref().map_or_else(Vec::new, Attestation::to_bytes);
        with(&[&self.token.0, &self.identity.0, self.certificate_request_pem.as_bytes(), &shown])
    }

    /// All but the token's proof.
    fn with_all<T>(&self, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        self.with_said(|said| with(&[said, &[&self.proof.0]].concat()))
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
    /// Its certificate, in PEM, and those behind it that vouch for it, where its authority did not sign it itself.
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
        attestation: enrollment.attestation.as_ref().map(attestation_to_wire),
    }
}

fn attestation_to_wire(attestation: &Attestation) -> wire::Attestation {
    let kind = match attestation {
        Attestation::Tpm(quote) => wire::attestation::Kind::Tpm(wire::TpmQuote {
            key: quote.key.clone(),
            statement: quote.statement.clone(),
            signature: quote.signature.clone(),
            registers: quote
                .registers
                .iter()
                .map(|(register, value)| wire::TpmRegister {
                    register: (*register).into(),
                    value: value.0.to_vec(),
                })
                .collect(),
            certificates: quote.certificates.clone(),
        }),
    };
    wire::Attestation { kind: Some(kind) }
}

fn attestation_from_wire(message: wire::Attestation) -> Result<Attestation, WireError> {
    match present("attestation", message.kind)? {
        wire::attestation::Kind::Tpm(quote) => {
            let part = |what, bytes: Vec<u8>| at_most(what, bytes, MOST_PART_BYTES);
            let mut registers: Vec<(u8, Digest)> = Vec::new();
            for one in quote.registers {
                let register = u8::try_from(one.register).ok().filter(|register| *register < REGISTERS);
                let last = registers.last().map(|(last, _)| *last);
                let register = register.filter(|register| last.is_none_or(|last| last < *register));
                let register = register.ok_or_else(|| {
                    let why =
                        format!("{} is not below {REGISTERS} and behind the one before it", one.register);
                    error("register of a TPM", why)
                })?;
                registers.push((register, Digest(fixed("value of a register", &one.value)?)));
            }
            if quote.certificates.len() > MOST_CERTIFICATES {
                let why = format!("{} are more than {MOST_CERTIFICATES}", quote.certificates.len());
                return Err(error("certificates of a TPM's key", why));
            }
            let certificate = |bytes| at_most("certificate of a TPM's key", bytes, MOST_CERTIFICATE_BYTES);
            Ok(Attestation::Tpm(Quote {
                key: part("key of a TPM", quote.key)?,
                statement: part("statement of a TPM", quote.statement)?,
                signature: part("signature of a TPM", quote.signature)?,
                registers,
                certificates: quote.certificates.into_iter().map(certificate).collect::<Result<_, _>>()?,
            }))
        }
    }
}

fn at_most(what: &'static str, bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, WireError> {
    if bytes.len() > most {
        return Err(error(what, format!("{} bytes are more than {most}", bytes.len())));
    }
    Ok(bytes)
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
        attestation: message.attestation.map(attestation_from_wire).transpose()?,
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

    fn token() -> IdentityKey {
        IdentityKey::from_seed(&[2; 32])
    }

    fn quote() -> Attestation {
        Attestation::Tpm(Quote {
            key: vec![1; 90],
            statement: vec![2; 145],
            signature: vec![3; 72],
            registers: vec![(0, Digest([4; 32])), (7, Digest([5; 32]))],
            certificates: vec![vec![6; 700], vec![7; 800]],
        })
    }

    #[test]
    fn the_proof_is_over_the_statement_about_the_machine_too() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let whole = Enrollment::attested(&token(), "request".into(), Some(quote()), &key);
        assert!(whole.is_proved());
        let read = enroll_request_from_wire(enroll_request_to_wire(&whole)).unwrap();
        assert_eq!(read.attestation, whole.attestation);
        assert!(read.is_proved());
        // Taken out, put in, and another one.
        assert!(!Enrollment { attestation: None, ..whole.clone() }.is_proved());
        let bare = Enrollment::new(&token(), "request".into(), &key);
        assert!(bare.is_proved());
        assert!(!Enrollment { attestation: Some(quote()), ..bare }.is_proved());
        let Some(Attestation::Tpm(other)) = &whole.attestation else { panic!("there is one") };
        let other = Attestation::Tpm(Quote { certificates: Vec::new(), ..other.clone() });
        assert!(!Enrollment { attestation: Some(other), ..whole }.is_proved());
    }

    #[test]
    fn a_statement_that_is_too_large_or_out_of_order_is_refused_by_name() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let whole = Enrollment::attested(&token(), "request".into(), Some(quote()), &key);
        let refused = |change: &dyn Fn(&mut wire::TpmQuote)| {
            let mut message = enroll_request_to_wire(&whole);
            let Some(wire::Attestation { kind: Some(wire::attestation::Kind::Tpm(quote)) }) =
                &mut message.attestation
            else {
                panic!("there is one")
            };
            change(quote);
            enroll_request_from_wire(message).unwrap_err().to_string()
        };
        for (change, words) in [
            (
                &(|quote: &mut wire::TpmQuote| quote.key = vec![0; 1025]) as &dyn Fn(&mut wire::TpmQuote),
                "key of a TPM",
            ),
            (&|quote| quote.registers.reverse(), "0 is not below 24 and behind the one before it"),
            (&|quote| quote.registers[1].register = 24, "24 is not below 24"),
            (&|quote| quote.registers[0].value.clear(), "value of a register"),
            (&|quote| quote.certificates = vec![vec![1]; 5], "5 are more than 4"),
            (&|quote| quote.certificates = vec![vec![1; 3073]], "3073 bytes are more than 3072"),
        ] {
            let said = refused(change);
            assert!(said.contains(words), "{words}: {said}");
        }
    }

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
            Enrollment { proof: seen.with_said(|said| liar.sign(PROOF_DOMAIN, said)), ..seen },
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
