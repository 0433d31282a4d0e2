//! Becoming one of the coordinator's devices: a token once, a certificate and a credential after that.

use std::path::Path;

use aggregation::{Credential, IdentityKey, IdentityPublic, Signature};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proto::convert::Enrollment;
use proto::ids::{DeviceId, Digest};
use proto::token::BootstrapToken;
use ring::rand::SystemRandom;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use shell::pem;
use shell::proxy::Proxy;
use shell::tls::{ClientIdentity, Trust};

use crate::keys::{DeviceKeys, KeyError};
use crate::store::{DeviceStore, DeviceStoreError};
use crate::transport::{Transport, TransportError, pinned_authority};
use session::Device;
use session::policy::Policy;

const ENROLLED: &str = "enrolled";
const CERTIFICATE: &str = "certificate";
const AUTHORITY: &str = "authority-certificate";

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
    /// There is nothing to run with.
    #[error("this device is not enrolled; run `nightshift-agent enroll --token-file FILE` first")]
    NotEnrolled,
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
    expires_unix_secs: u64,
    signature: String,
}

/// A device that may connect.
#[derive(Debug)]
pub struct EnrolledDevice {
    /// What it is.
    pub device: Device,
    /// Where its coordinator is.
    pub coordinator: String,
    /// How it connects.
    pub transport: Transport,
}

/// Uses a token up. The keys are made here and never leave.
pub async fn enroll(
    folder: &Path,
    store: &DeviceStore,
    token: &BootstrapToken,
    address: Option<&str>,
    proxy: &Proxy,
) -> Result<DeviceId, EnrollmentError> {
    let address = address.unwrap_or(token.address());
    let keys = DeviceKeys::open_or_create(&folder.join("keys"), &SystemRandom::new())?;
    let authority = pinned_authority(address, token.pin(), proxy.clone()).await?;
    let mut transport = Transport::new(address, Trust::Authority(authority.clone()), None, proxy.clone())?;
    let key = IdentityKey::from_seed(keys.identity_seed()?);
    let identity = key.public();
    let request = pem::encode("CERTIFICATE REQUEST", &keys.signing_request()?);
    let enrollment = Enrollment::new(**token.secret(), request, &key);
    let answer = transport.enroll(&enrollment).await?;
    let certificate = CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes())
        .map_err(|_| EnrollmentError::Answer("its certificate cannot be read"))?;
    if answer.credential.device != answer.device.0 || answer.credential.identity != identity {
        return Err(EnrollmentError::Answer("the credential is for another device or key"));
    }
    answer
        .credential
        .verify(&answer.authority, 0)
        .map_err(|_| EnrollmentError::Answer("the credential is not signed by its authority"))?;
    store.put(CERTIFICATE, &BASE64_STANDARD.encode(&certificate))?;
    store.put(AUTHORITY, &BASE64_STANDARD.encode(&authority))?;
    let enrolled = Enrolled {
        device: answer.device,
        coordinator: address.to_owned(),
        authority: Digest(answer.authority.0),
        expires_unix_secs: answer.credential.expires_unix_secs,
        signature: BASE64_STANDARD.encode(answer.credential.signature.0),
    };
    store.put(ENROLLED, &enrolled)?;
    Ok(answer.device)
}

/// The device that an earlier enrolment made.
pub fn load(
    folder: &Path,
    store: &DeviceStore,
    (address, proxy): (Option<&str>, &Proxy),
    base: Digest,
    policy: Policy,
) -> Result<EnrolledDevice, EnrollmentError> {
    let enrolled: Enrolled = store.get(ENROLLED)?.ok_or(EnrollmentError::NotEnrolled)?;
    let keys = DeviceKeys::open_or_create(&folder.join("keys"), &SystemRandom::new())?;
    let certificate = |name: &'static str| {
        let text: String = store.get(name)?.ok_or(EnrollmentError::NotEnrolled)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| EnrollmentError::Damaged(name))?;
        Ok::<_, EnrollmentError>(CertificateDer::from(bytes))
    };
    let signature = BASE64_STANDARD
        .decode(&enrolled.signature)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(EnrollmentError::Damaged("credential"))?;
    let credential = Credential {
        device: enrolled.device.0,
        identity: IdentityPublic(keys.identity_public_key()?),
        expires_unix_secs: enrolled.expires_unix_secs,
        signature: Signature(signature),
    };
    let device = Device {
        device: enrolled.device,
        identity: IdentityKey::from_seed(keys.identity_seed()?),
        credential,
        authority: IdentityPublic(enrolled.authority.0),
        base,
        policy,
    };
    let coordinator = address.map_or(enrolled.coordinator, str::to_owned);
    let identity = ClientIdentity { chain: vec![certificate(CERTIFICATE)?], key: keys.tls_key() };
    let trust = Trust::Authority(certificate(AUTHORITY)?);
    let transport = Transport::new(&coordinator, trust, Some(identity), proxy.clone())?;
    Ok(EnrolledDevice { device, coordinator, transport })
}

/// The name of the enrolled device, if it is one.
pub fn device_id(store: &DeviceStore) -> Result<Option<DeviceId>, EnrollmentError> {
    Ok(store.get::<Enrolled>(ENROLLED)?.map(|enrolled| enrolled.device))
}

/// The key by which its coordinator vouches for devices and versions, if it is enrolled.
pub fn authority(store: &DeviceStore) -> Result<Option<IdentityPublic>, EnrollmentError> {
    Ok(store.get::<Enrolled>(ENROLLED)?.map(|enrolled| IdentityPublic(enrolled.authority.0)))
}
