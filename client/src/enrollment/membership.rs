//! What an enrollment comes to, for whoever keeps it: a device in its store, and what plays many devices as files.

use std::path::Path;

use aggregation::{Credential, IdentityKey, IdentityPublic, Logged, Signature};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proto::attestation::{Attestation, challenge};
use proto::convert::{self, Enrollment, Renewal};
use proto::ids::{DeviceId, Digest};
use proto::shown::shown;
use proto::token::BootstrapToken;
use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use session::policy::Policy;
use session::{Device, Lifetime};
use shell::pem;
use shell::proxy::Proxy;
use shell::tls::{ClientIdentity, Trust};
use tokio::task::spawn_blocking;

use super::{EnrolledDevice, EnrollmentError, Renewed};
use crate::keys::DeviceKeys;
use crate::tpm::Tpm;
use crate::transport::{Transport, pinned_authority};

/// A device shows no more certificates than this, its own included.
const MOST_CERTIFICATES: usize = 8;

/// An enrollment, as it is kept. Nothing of it is secret: the keys lie in a folder of their own, and the same folder has to be
/// named each time.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    pub(super) enrolled: Enrolled,
    /// The certificate and those that vouch for it, in base64 with spaces between them.
    pub(super) certificates: String,
    /// The certificate of whoever vouches for the coordinator, in base64.
    pub(super) authority: String,
}

/// What the state holds of an enrolment, beside the two certificates.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Enrolled {
    pub(super) device: DeviceId,
    pub(super) coordinator: String,
    pub(super) authority: Digest,
    /// 0 where an earlier program did not write it down.
    #[serde(default)]
    issued_unix_secs: u64,
    expires_unix_secs: u64,
    signature: String,
    /// How the coordinator's operator calls the device.
    #[serde(default)]
    pub(super) label: String,
    /// What more the credential says where its authority keeps a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logged: Option<Placed>,
    /// The key by which the coordinator vouches for versions, where that is not the authority's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) publisher: Option<Digest>,
}

/// A [`Logged`], as it is written.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Placed {
    place: u64,
    enrolled_unix_secs: u64,
    label: [u8; 16],
    attested: Digest,
}

impl From<Logged> for Placed {
    fn from(Logged { place, enrolled_unix_secs, label, attested }: Logged) -> Self {
        Self { place, enrolled_unix_secs, label, attested: Digest(attested) }
    }
}

impl From<Placed> for Logged {
    fn from(Placed { place, enrolled_unix_secs, label, attested }: Placed) -> Self {
        Self { place, enrolled_unix_secs, label, attested: attested.0 }
    }
}

impl Enrolled {
    pub(super) fn lifetime(&self) -> Lifetime {
        let Self { issued_unix_secs, expires_unix_secs, .. } = *self;
        Lifetime { issued_unix_secs, expires_unix_secs }
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Membership({})", self.enrolled.device)
    }
}

impl Membership {
    /// Uses a token up, with the keys in `keys`, which are made there where they are not. They never leave.
    pub async fn by_token(
        keys: &Path,
        token: &BootstrapToken,
        (address, proxy): (Option<&str>, &Proxy),
        tpm: Option<&Tpm>,
    ) -> Result<Self, EnrollmentError> {
        let address = address.unwrap_or(token.address());
        // No key is made for a coordinator that is not there, or is another.
        let authority = pinned_authority(address, token.pin(), proxy.clone()).await?;
        let keys = DeviceKeys::open_or_create(keys, &SystemRandom::new())?;
        let mut transport =
            Transport::new(address, Trust::Authority(authority.clone()), None, proxy.clone())?;
        let key = IdentityKey::from_seed(keys.identity_seed()?);
        let identity = key.public();
        let request = pem::encode("CERTIFICATE REQUEST", &keys.signing_request()?);
        let attestation = match tpm.cloned() {
            None => None,
            Some(tpm) => {
                let challenge = challenge(&token.key().public().0, &identity.0, &request);
                let quoted = spawn_blocking(move || tpm.quote(&challenge)).await;
                Some(Attestation::Tpm(quoted.map_err(|_| EnrollmentError::Interrupted)??))
            }
        };
        let enrollment = Enrollment::attested(&token.key(), request, attestation, &key);
        let answer = transport.enroll(&enrollment).await?;
        if answer.authority != token.authority() {
            let (expected, found) = (Digest(token.authority().0), Digest(answer.authority.0));
            return Err(EnrollmentError::OtherAuthority { expected, found });
        }
        let chain = checked(&answer, answer.device, identity)?;
        // A certificate of another key is refused before anything is kept.
        let shown = ClientIdentity { chain: chain.clone(), key: keys.tls_key() };
        transport.showing(Some(shown))?;
        Ok(Self::of(&answer, &chain, (address, BASE64_STANDARD.encode(&authority))))
    }

    /// Asks for the next certificate and credential. The keys stay the same.
    ///
    /// `has_certificate` says whether the coordinator still takes the one that there is.
    pub async fn renew(
        &self,
        keys: &Path,
        transport: &Transport,
        has_certificate: bool,
    ) -> Result<(Self, Renewed), EnrollmentError> {
        let enrolled = &self.enrolled;
        let keys = DeviceKeys::open_or_create(keys, &SystemRandom::new())?;
        let key = IdentityKey::from_seed(keys.identity_seed()?);
        let request = pem::encode("CERTIFICATE REQUEST", &keys.signing_request()?);
        let renewal = Renewal::new(enrolled.device, request, &key);
        let mut asked = if has_certificate { transport.clone() } else { transport.showing(None)? };
        let answer = asked.renew(&renewal).await?;
        if Digest(answer.authority.0) != enrolled.authority {
            return Err(EnrollmentError::Answer(
                "it is signed by another authority than the one of the enrolment",
            ));
        }
        let chain = checked(&answer, enrolled.device, key.public())?;
        if answer.credential.expires_unix_secs <= answer.issued_unix_secs {
            return Err(EnrollmentError::Answer("what it renewed has ended already"));
        }
        let identity = ClientIdentity { chain: chain.clone(), key: keys.tls_key() };
        let transport = transport.showing(Some(identity))?;
        let mut next = Self::of(&answer, &chain, (&enrolled.coordinator, self.authority.clone()));
        if next.enrolled.label.is_empty() {
            next.enrolled.label.clone_from(&enrolled.label);
        }
        let expires_unix_secs = answer.credential.expires_unix_secs;
        let lifetime = Lifetime { issued_unix_secs: answer.issued_unix_secs, expires_unix_secs };
        Ok((next, Renewed { credential: answer.credential, lifetime, transport }))
    }

    fn of(
        answer: &convert::Enrolled,
        chain: &[CertificateDer<'_>],
        (coordinator, authority): (&str, String),
    ) -> Self {
        let chain: Vec<String> =
            chain.iter().map(|certificate| BASE64_STANDARD.encode(certificate)).collect();
        let label = if answer.label.is_empty() { String::new() } else { shown(&answer.label).to_string() };
        let enrolled = Enrolled {
            device: answer.device,
            coordinator: coordinator.to_owned(),
            authority: Digest(answer.authority.0),
            issued_unix_secs: answer.issued_unix_secs,
            expires_unix_secs: answer.credential.expires_unix_secs,
            signature: BASE64_STANDARD.encode(answer.credential.signature.0),
            label,
            logged: answer.credential.logged.map(Placed::from),
            publisher: answer.publisher.map(|key| Digest(key.0)),
        };
        // A single one is as it always was.
        Self { enrolled, certificates: chain.join(" "), authority }
    }

    /// The device's name.
    pub fn device(&self) -> DeviceId {
        self.enrolled.device
    }

    /// The device, with the keys in `keys`, which reaches its coordinator at `address` if not where it enrolled.
    pub fn enrolled(
        self,
        keys: &Path,
        (address, proxy): (Option<&str>, &Proxy),
        bases: Vec<Digest>,
        policy: Policy,
    ) -> Result<EnrolledDevice, EnrollmentError> {
        let Self { enrolled, certificates, authority } = self;
        let keys = DeviceKeys::open_or_create(keys, &SystemRandom::new())?;
        let read = |text: &str, name: &'static str| {
            let read = |word| BASE64_STANDARD.decode(word).map(CertificateDer::from);
            let read: Result<Vec<_>, _> = text.split(' ').map(read).collect();
            read.map_err(|_| EnrollmentError::Damaged(name))
        };
        let authority = read(&authority, super::AUTHORITY)?.pop();
        let authority = authority.ok_or(EnrollmentError::Damaged(super::AUTHORITY))?;
        let signature = BASE64_STANDARD
            .decode(&enrolled.signature)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(EnrollmentError::Damaged("credential"))?;
        let credential = Credential {
            device: enrolled.device.0,
            identity: IdentityPublic(keys.identity_public_key()?),
            expires_unix_secs: enrolled.expires_unix_secs,
            logged: enrolled.logged.map(Logged::from),
            signature: Signature(signature),
        };
        let device = Device {
            device: enrolled.device,
            identity: IdentityKey::from_seed(keys.identity_seed()?),
            credential,
            authority: IdentityPublic(enrolled.authority.0),
            bases,
            policy,
        };
        let lifetime = enrolled.lifetime();
        let label = if enrolled.label.is_empty() { enrolled.device.to_string() } else { enrolled.label };
        let coordinator = address.map_or(enrolled.coordinator, str::to_owned);
        let identity =
            ClientIdentity { chain: read(&certificates, super::CERTIFICATE)?, key: keys.tls_key() };
        let transport =
            Transport::new(&coordinator, Trust::Authority(authority), Some(identity), proxy.clone())?;
        Ok(EnrolledDevice { device, label, coordinator, transport, lifetime })
    }
}

/// The certificate of an answer, and those that vouch for it, if the answer is for this device and this key.
fn checked(
    answer: &convert::Enrolled,
    device: DeviceId,
    identity: IdentityPublic,
) -> Result<Vec<CertificateDer<'static>>, EnrollmentError> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(answer.certificate_pem.as_bytes()).collect();
    let chain = chain.map_err(|_| EnrollmentError::Answer("its certificate cannot be read"))?;
    if chain.is_empty() {
        return Err(EnrollmentError::Answer("it holds no certificate"));
    }
    if chain.len() > MOST_CERTIFICATES {
        return Err(EnrollmentError::Answer("it holds more certificates than a device shows, which are 8"));
    }
    if answer.device != device
        || answer.credential.device != device.0
        || answer.credential.identity != identity
    {
        return Err(EnrollmentError::Answer("the credential is for another device or key"));
    }
    // Whoever has no place in a log can be in rounds with devices that nobody has.
    if answer.credential.logged.is_none() {
        return Err(EnrollmentError::Answer("the credential has no place in a log of enrollments"));
    }
    answer
        .credential
        .verify(&answer.authority, 0)
        .map_err(|_| EnrollmentError::Answer("the credential is not signed by its authority"))?;
    Ok(chain)
}
