//! Becoming one of the coordinator's devices, by a token, once; and staying one: the certificate and the credential that
//! come for it end, and are renewed with the device's identity key.

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
use shell::pem;
use shell::proxy::Proxy;
use shell::tls::{ClientIdentity, Trust};
use tokio::task::spawn_blocking;

use crate::keys::{DeviceKeys, KeyError};
use crate::store::{DeviceStore, DeviceStoreError};
use crate::tpm::{Tpm, TpmDeviceError};
use crate::transport::{Transport, TransportError, pinned_authority};
use session::policy::Policy;
use session::{Device, Lifetime};

const ENROLLED: &str = "enrolled";
const CERTIFICATE: &str = "certificate";
const AUTHORITY: &str = "authority-certificate";

/// A device shows no more certificates than this, its own included.
const MOST_CERTIFICATES: usize = 8;

/// Why enrollment failed, or why a stored enrollment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentError {
    /// The device's keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// What is durable.
    #[error(transparent)]
    Store(#[from] DeviceStoreError),
    /// The coordinator.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The coordinator gave something that does not fit the device's keys.
    #[error("the coordinator's answer is not for this device: {0}")]
    Answer(&'static str),
    /// This machine's TPM.
    #[error(transparent)]
    Tpm(#[from] TpmDeviceError),
    /// Another enrollment authority than the token's vouched for the device: nothing of it is kept.
    #[error(
        "the coordinator's answer is of another enrollment authority ({found}) than the token ({expected}): who answered is not \
         whom the token is for; ask whoever gave it to you for a new one"
    )]
    OtherAuthority {
        /// Which one the token names.
        expected: Digest,
        /// Which one answered.
        found: Digest,
    },
    /// There is nothing to run with.
    #[error("this device is not enrolled; run `nightshift-agent enroll --token-file FILE` first")]
    NotEnrolled,
    /// What asked the TPM ended before it had answered.
    #[error("the TPM was not asked to the end")]
    Interrupted,
    /// The state holds something else.
    #[error("the stored {0} cannot be read; enrol again")]
    Damaged(&'static str),
}

/// What the state holds of an enrolment, beside the two certificates.
#[derive(Serialize, Deserialize)]
struct Enrolled {
    device: DeviceId,
    coordinator: String,
    authority: Digest,
    /// 0 where an earlier program did not write it down.
    #[serde(default)]
    issued_unix_secs: u64,
    expires_unix_secs: u64,
    signature: String,
    /// How the coordinator's operator calls the device.
    #[serde(default)]
    label: String,
    /// What more the credential says where its authority keeps a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logged: Option<Placed>,
    /// The key by which the coordinator vouches for versions, where that is not the authority's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publisher: Option<Digest>,
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
    fn lifetime(&self) -> Lifetime {
        let Self { issued_unix_secs, expires_unix_secs, .. } = *self;
        Lifetime { issued_unix_secs, expires_unix_secs }
    }
}

/// A device that may connect.
#[derive(Debug)]
pub struct EnrolledDevice {
    /// What it is.
    pub device: Device,
    /// How its operator calls it, or its name where that is not known.
    pub label: String,
    /// Where its coordinator is.
    pub coordinator: String,
    /// How it connects.
    pub transport: Transport,
    /// How long its certificate and its credential last.
    pub lifetime: Lifetime,
}

/// What came of a renewal, which is kept already.
#[derive(Debug)]
pub struct Renewed {
    /// The next statement about the device.
    pub credential: Credential,
    /// How long both last.
    pub lifetime: Lifetime,
    /// How the device connects from now on.
    pub transport: Transport,
}

/// Uses a token up. The keys are made here and never leave.
pub async fn enroll(
    folder: &Path,
    store: &DeviceStore,
    token: &BootstrapToken,
    (address, proxy): (Option<&str>, &Proxy),
    tpm: Option<&Tpm>,
) -> Result<DeviceId, EnrollmentError> {
    let address = address.unwrap_or(token.address());
    // No key is made for a coordinator that is not there, or is another.
    let authority = pinned_authority(address, token.pin(), proxy.clone()).await?;
    let keys = DeviceKeys::open_or_create(&folder.join("keys"), &SystemRandom::new())?;
    let mut transport = Transport::new(address, Trust::Authority(authority.clone()), None, proxy.clone())?;
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
    store.put(AUTHORITY, &BASE64_STANDARD.encode(&authority))?;
    // Whoever gave the token is trusted anew, with whatever log there is now. Not after what came is kept: a log that goes on from
    // nothing that this device saw would stay.
    store.put_seen_log(None)?;
    keep(store, &answer, &chain, address)?;
    Ok(answer.device)
}

/// Asks for the next certificate and credential of an enrolled device, and keeps them. The keys stay the same.
///
/// `has_certificate` says whether the coordinator still takes the one that there is.
pub async fn renew(
    folder: &Path,
    store: &DeviceStore,
    transport: &Transport,
    has_certificate: bool,
) -> Result<Renewed, EnrollmentError> {
    let enrolled: Enrolled = store.get(ENROLLED)?.ok_or(EnrollmentError::NotEnrolled)?;
    let keys = DeviceKeys::open_or_create(&folder.join("keys"), &SystemRandom::new())?;
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
    keep(store, &answer, &chain, &enrolled.coordinator)?;
    let expires_unix_secs = answer.credential.expires_unix_secs;
    let lifetime = Lifetime { issued_unix_secs: answer.issued_unix_secs, expires_unix_secs };
    Ok(Renewed { credential: answer.credential, lifetime, transport })
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

/// Keeps what came. A power loss between the two leaves a newer certificate beside an older credential, which are both
/// good and are renewed at their time.
fn keep(
    store: &DeviceStore,
    answer: &convert::Enrolled,
    chain: &[CertificateDer<'_>],
    coordinator: &str,
) -> Result<(), EnrollmentError> {
    // One write, so that what vouches for a certificate is never that of another; a single one is as it always was.
    let chain: Vec<String> = chain.iter().map(|certificate| BASE64_STANDARD.encode(certificate)).collect();
    store.put(CERTIFICATE, &chain.join(" "))?;
    let label = if answer.label.is_empty() {
        // Nobody gave it another name.
        let earlier = store.get::<Enrolled>(ENROLLED)?.filter(|earlier| earlier.device == answer.device);
        earlier.map_or(String::new(), |earlier| earlier.label)
    } else {
        shown(&answer.label).to_string()
    };
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
    Ok(store.put(ENROLLED, &enrolled)?)
}

/// The device that an earlier enrolment made.
pub fn load(
    folder: &Path,
    store: &DeviceStore,
    (address, proxy): (Option<&str>, &Proxy),
    bases: Vec<Digest>,
    policy: Policy,
) -> Result<EnrolledDevice, EnrollmentError> {
    let enrolled: Enrolled = store.get(ENROLLED)?.ok_or(EnrollmentError::NotEnrolled)?;
    let keys = DeviceKeys::open_or_create(&folder.join("keys"), &SystemRandom::new())?;
    let certificates = |name: &'static str| {
        let text: String = store.get(name)?.ok_or(EnrollmentError::NotEnrolled)?;
        let read = |word| BASE64_STANDARD.decode(word).map(CertificateDer::from);
        let read: Result<Vec<_>, _> = text.split(' ').map(read).collect();
        read.map_err(|_| EnrollmentError::Damaged(name))
    };
    let authority = certificates(AUTHORITY)?.pop().ok_or(EnrollmentError::Damaged(AUTHORITY))?;
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
    let identity = ClientIdentity { chain: certificates(CERTIFICATE)?, key: keys.tls_key() };
    let trust = Trust::Authority(authority);
    let transport = Transport::new(&coordinator, trust, Some(identity), proxy.clone())?;
    Ok(EnrolledDevice { device, label, coordinator, transport, lifetime })
}

/// The name of the enrolled device, and how long its certificate lasts, if it is one.
pub fn enrolled_as(store: &DeviceStore) -> Result<Option<(DeviceId, Lifetime)>, EnrollmentError> {
    Ok(store.get::<Enrolled>(ENROLLED)?.map(|enrolled| (enrolled.device, enrolled.lifetime())))
}

/// How its operator calls the device, and where its coordinator is, if it is enrolled.
pub(crate) fn enrolled_with(store: &DeviceStore) -> Result<Option<(String, String)>, EnrollmentError> {
    Ok(store.get::<Enrolled>(ENROLLED)?.map(|enrolled| (enrolled.label, enrolled.coordinator)))
}

/// The key by which its coordinator vouches for versions, if it is enrolled: its own, or, where it has none, that by which it
/// vouches for devices too.
pub fn publisher(store: &DeviceStore) -> Result<Option<IdentityPublic>, EnrollmentError> {
    let enrolled = store.get::<Enrolled>(ENROLLED)?;
    Ok(enrolled.map(|enrolled| IdentityPublic(enrolled.publisher.unwrap_or(enrolled.authority).0)))
}
