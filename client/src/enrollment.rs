//! Becoming one of the coordinator's devices, by a token, once; and staying one: the certificate and the credential that
//! come for it end, and are renewed with the device's identity key.
//!
//! Here it is kept in a device's store; [`Membership`] is the same for whoever keeps it elsewhere.

mod membership;

use std::path::Path;

use aggregation::{Credential, IdentityPublic};
use proto::ids::{DeviceId, Digest};
use proto::token::BootstrapToken;
use shell::proxy::Proxy;

use crate::keys::KeyError;
use crate::store::{DeviceStore, DeviceStoreError};
use crate::tpm::{Tpm, TpmDeviceError};
use crate::transport::{Transport, TransportError};
use session::policy::Policy;
use session::{Device, Lifetime};

use membership::Enrolled;
pub use membership::Membership;

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
    way: (Option<&str>, &Proxy),
    tpm: Option<&Tpm>,
) -> Result<DeviceId, EnrollmentError> {
    let membership = Membership::by_token(&folder.join("keys"), token, way, tpm).await?;
    store.put(AUTHORITY, &membership.authority)?;
    // Whoever gave the token is trusted anew, with whatever log there is now. Not after what came is kept: a log that goes on from
    // nothing that this device saw would stay.
    store.put_seen_log(None)?;
    let device = membership.device();
    keep(store, membership)?;
    Ok(device)
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
    let membership = kept(store)?;
    let (next, renewed) = membership.renew(&folder.join("keys"), transport, has_certificate).await?;
    keep(store, next)?;
    Ok(renewed)
}

/// What the store has of an enrollment.
fn kept(store: &DeviceStore) -> Result<Membership, EnrollmentError> {
    let enrolled: Enrolled = store.get(ENROLLED)?.ok_or(EnrollmentError::NotEnrolled)?;
    let text = |name: &'static str| store.get::<String>(name)?.ok_or(EnrollmentError::NotEnrolled);
    Ok(Membership { enrolled, certificates: text(CERTIFICATE)?, authority: text(AUTHORITY)? })
}

/// Keeps what came. A power loss between the two leaves a newer certificate beside an older credential, which are both
/// good and are renewed at their time.
fn keep(store: &DeviceStore, membership: Membership) -> Result<(), EnrollmentError> {
    let Membership { mut enrolled, certificates, authority: _ } = membership;
    if enrolled.label.is_empty() {
        // Nobody gave it another name.
        let earlier = store.get::<Enrolled>(ENROLLED)?.filter(|earlier| earlier.device == enrolled.device);
        enrolled.label = earlier.map_or(String::new(), |earlier| earlier.label);
    }
    // One write, so that what vouches for a certificate is never that of another.
    store.put(CERTIFICATE, &certificates)?;
    Ok(store.put(ENROLLED, &enrolled)?)
}

/// The device that an earlier enrolment made.
pub fn load(
    folder: &Path,
    store: &DeviceStore,
    way: (Option<&str>, &Proxy),
    bases: Vec<Digest>,
    policy: Policy,
) -> Result<EnrolledDevice, EnrollmentError> {
    kept(store)?.enrolled(&folder.join("keys"), way, bases, policy)
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
