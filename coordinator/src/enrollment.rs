//! Who may connect: tokens, enrolment, renewal and revocation.

use aggregation::IdentityPublic;
use shell::store::{Batch, Store, StoreError};
use std::sync::Arc;

use proto::admin::{DeviceStatus, OperatorStatus};
use proto::authority::Issued;
use proto::convert::{Enrolled, Enrollment, Renewal};
use proto::ids::{DeviceId, Serial, Timestamp};
use proto::message::Rejection;
use proto::role::Role;
use proto::shown::shown;
use proto::token::pin_of;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::spawn_blocking;

use crate::audit::{Audit, AuditError, What, Who, With};
use crate::driver::Driver;
use crate::enroller::Enroller;
use crate::last_seen::LastSeen;
use crate::operators::{Operators, OperatorsError};
use crate::peer::{AdminName, AdminNameError, Peer};
pub use crate::pki::CLOCK_SLACK_SECS;
use crate::pki::{Authority, PkiError, Validity};
use crate::records::{self, DeviceRecord};
use crate::revocations::{Revocations, Revoked};
use crate::tokens::{self, NewToken, TokenError, TokenRefusal, Use};

mod elsewhere;
mod listing;

/// A device is given no further certificate so soon after its last renewal, in seconds: each is a write.
const RENEWAL_PAUSE_SECS: u64 = 60;

/// The authority's keys and the records of devices.
#[derive(Debug)]
pub struct Registry {
    /// Where devices and tokens are kept.
    pub store: Store,
    /// Who vouches for devices' connections.
    pub authority: Authority,
    /// Who vouches for devices' signing keys, and by what key versions are vouched for.
    pub enroller: Enroller,
    /// Where devices find the coordinator, `host:port`; written into tokens.
    pub address: String,
    /// How long a certificate and a credential last, in seconds.
    pub device_secs: u64,
    /// How long after their end they may still be renewed, in seconds.
    pub renewal_grace_secs: u64,
    /// Who may operate.
    pub operators: Arc<Operators>,
    /// How long an operator's certificate lasts, in seconds.
    pub operator_secs: u64,
    /// Where revocations are kept once more.
    pub revocations: Revocations,
    /// Stops serving when the store fails.
    pub driver: Driver,
    /// Where changes are written down.
    pub audit: Audit,
    /// When each device called last.
    pub seen: LastSeen,
}

impl Registry {
    /// Enrols a device: uses its token up and records the device, in one transaction.
    pub async fn enrol(
        self: Arc<Self>,
        enrollment: Enrollment,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        match &self.enroller {
            Enroller::Here(_) => self.apart(move |registry| registry.enrol_here(&enrollment, now)).await,
            Enroller::Apart(_) => self.enrol_elsewhere(enrollment, now).await,
        }
    }

    /// The same on a thread that may block.
    fn enrol_here(&self, enrollment: &Enrollment, now: Timestamp) -> Result<Enrolled, Rejection> {
        authority::decide::proved(enrollment)?;
        let known = records::with_identity(&self.store, enrollment.identity).map_err(|e| self.store(e))?;
        // A device that comes again is the one that it was: how often it took part does not begin anew.
        let (device, earlier) = match known {
            Some((_, None)) => {
                let why = "this coordinator's record of this device is damaged; enroll with an empty folder";
                return Err(refuse_enrollment(why.to_owned()));
            }
            Some((_, Some(record))) if record.revoked => {
                let why = "this device was revoked; a token is for another one, with keys of its own in an empty folder";
                return Err(refuse_enrollment(why.to_owned()));
            }
            Some((device, Some(record))) => (device, Some(record)),
            None => (Self::new_device()?, None),
        };
        let by = (enrollment.identity, now.as_secs());
        let found = tokens::find(&self.store, enrollment.token, by.0, by.1);
        let (token, used) = found.map_err(|e| self.token(e))?;
        if used == Use::Again {
            let record = earlier.filter(|record| now.as_secs() < record.expires_unix_secs);
            let record = record.ok_or_else(|| refused_token(&TokenRefusal::Redeemed.into()))?;
            // What it was given and did not hear, once more: nothing changes.
            let until = (now, record.expires_unix_secs);
            let again =
                self.vouch_until(device, &enrollment.certificate_request_pem, enrollment.identity, until)?;
            return Ok(Enrolled { label: record.label, ..again });
        }
        let enrolled = self.vouch(device, &enrollment.certificate_request_pem, enrollment.identity, now)?;
        let expires_unix_secs = enrolled.credential.expires_unix_secs;
        let record = DeviceRecord::new(token.label, enrollment.identity, now.0, expires_unix_secs);
        let mut also = Batch::new();
        match &earlier {
            Some(earlier) => records::replace_device(&mut also, device, (earlier, &record)),
            None => records::insert_device(&mut also, device, &record),
        }
        .map_err(|e| self.store(e))?;
        let redeem = || {
            tokens::redeem(&self.store, enrollment.token, by, also).map_err(|error| match error {
                TokenError::Store(StoreError::Conflict { .. }) => changed_meanwhile(),
                other @ (TokenError::Store(_)
                | TokenError::Randomness
                | TokenError::Refused(_)
                | TokenError::Ambiguous
                | TokenError::Label { .. }
                | TokenError::Lifetime(_)) => self.token(other),
            })?;
            self.driver.known().enrolled(device);
            Ok(())
        };
        let what = What::new("enroll", [("label", shown(&record.label).to_string())]);
        self.audit.change_here((Who::Device(device), what), redeem, |()| With::new(), self.audit_fails())?;
        tracing::info!("device enrolled");
        tracing::debug!(%device, again = earlier.is_some(), "device enrolled");
        Ok(Enrolled { label: record.label, ..enrolled })
    }

    /// Gives an enrolled device its next certificate and credential. `peer` is whom its connection names, if anybody.
    ///
    /// Whoever does not hold the device's identity key learns nothing, not even whether there is such a device.
    pub async fn renew(
        self: Arc<Self>,
        renewal: Renewal,
        peer: Peer,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        match &self.enroller {
            Enroller::Here(_) => self.apart(move |registry| registry.renew_here(&renewal, &peer, now)).await,
            Enroller::Apart(_) => self.renew_elsewhere(renewal, peer, now).await,
        }
    }

    /// The same on a thread that may block.
    fn renew_here(&self, renewal: &Renewal, peer: &Peer, now: Timestamp) -> Result<Enrolled, Rejection> {
        let device = renewal.device;
        if *peer != Peer::Anonymous && *peer != Peer::Device(device.0) {
            return Err(Rejection::NotEnrolled);
        }
        let record = records::device(&self.store, device).map_err(|e| self.store(e))?;
        let record = record.filter(|record| !record.revoked).ok_or(Rejection::NotEnrolled)?;
        let identity = IdentityPublic(record.identity.0);
        if !renewal.is_proved_by(&identity) {
            return Err(Rejection::NotEnrolled);
        }
        let last = record.expires_unix_secs.saturating_add(self.renewal_grace_secs);
        if now.as_secs() > last {
            let days = now.as_secs().saturating_sub(record.expires_unix_secs) / (24 * 3600);
            let why = format!(
                "its certificate ended {days} days ago, longer than this coordinator renews one after its end; it \
                 enrolls again with a new token"
            );
            return Err(Rejection::Unacceptable { request: "renew".into(), why });
        }
        // A renewal that is still to come was by a clock that has been mended.
        let since = now.as_secs().checked_sub(record.renewed_unix_secs);
        if since.is_some_and(|secs| secs < RENEWAL_PAUSE_SECS) {
            let why = "the certificate was renewed within the last minute".to_owned();
            return Err(Rejection::Unavailable(why));
        }
        let renewed = self.vouch(device, &renewal.certificate_request_pem, identity, now)?;
        let next = DeviceRecord {
            expires_unix_secs: renewed.credential.expires_unix_secs,
            renewed_unix_secs: now.as_secs(),
            ..record.clone()
        };
        let mut batch = Batch::new();
        records::replace_device(&mut batch, device, (&record, &next)).map_err(|e| self.store(e))?;
        self.store.commit_blocking(&batch).map_err(|error| {
            // Revoked, or renewed by another call, since it was read.
            if matches!(error, StoreError::Conflict { .. }) { changed_meanwhile() } else { self.store(error) }
        })?;
        tracing::debug!(%device, "certificate renewed");
        Ok(Enrolled { label: record.label, ..renewed })
    }

    /// The certificate and the credential that a device is given now.
    fn vouch(
        &self,
        device: DeviceId,
        certificate_request_pem: &str,
        identity: IdentityPublic,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let until = (now, now.as_secs() + self.device_secs);
        self.vouch_until(device, certificate_request_pem, identity, until)
    }

    /// The same for as long as is said.
    fn vouch_until(
        &self,
        device: DeviceId,
        certificate_request_pem: &str,
        identity: IdentityPublic,
        (now, expires_unix_secs): (Timestamp, u64),
    ) -> Result<Enrolled, Rejection> {
        let Enroller::Here(key) = &self.enroller else {
            return Err(Rejection::Unavailable("the enrollment key is not here".to_owned()));
        };
        let credential = key.issue(device.0, identity, expires_unix_secs);
        let issued = Issued { credential, issued_unix_secs: now.as_secs(), label: String::new() };
        self.certified(certificate_request_pem, &issued, now)
    }

    /// The certificate that goes with what was stated of a device, and lasts as long.
    fn certified(
        &self,
        certificate_request_pem: &str,
        issued: &Issued,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let Issued { credential, issued_unix_secs, label } = issued.clone();
        let device = DeviceId(credential.device);
        let validity = Validity {
            not_before_unix_secs: now.as_secs().saturating_sub(CLOCK_SLACK_SECS),
            not_after_unix_secs: credential.expires_unix_secs,
        };
        let certificate_pem = self
            .authority
            .sign_device_pem(certificate_request_pem, &device.0, validity, &SystemRandom::new())
            .map_err(certificate)?;
        let (authority, publisher) = (self.public(), self.enroller.publisher());
        Ok(Enrolled { device, certificate_pem, credential, authority, issued_unix_secs, label, publisher })
    }

    fn new_device() -> Result<DeviceId, Rejection> {
        let mut device = [0; 16];
        let filled = SystemRandom::new().fill(&mut device);
        filled.map_err(|_| Rejection::Unavailable("no randomness".to_owned()))?;
        Ok(DeviceId(device))
    }

    /// Fails unless the device is enrolled and not shut out. Waits for no disk.
    pub fn check(&self, device: DeviceId) -> Result<(), Rejection> {
        if self.driver.known().is_enrolled(device) { Ok(()) } else { Err(Rejection::NotEnrolled) }
    }

    /// Makes a bootstrap token and gives its text.
    pub async fn issue_token(
        &self,
        label: &str,
        lifetime_secs: u64,
        now: Timestamp,
    ) -> Result<String, Rejection> {
        self.tokens_are_here("issue token")?;
        let new = NewToken {
            label,
            address: &self.address,
            pin: pin_of(self.authority.certificate()),
            authority: self.public(),
            lifetime_secs,
        };
        let issued = tokens::issue(&self.store, new, now.as_secs(), &SystemRandom::new()).await;
        issued.map(|text| text.reveal().to_owned()).map_err(|e| self.token(e))
    }

    /// All enrolled devices.
    pub async fn devices(self: Arc<Self>) -> Result<Vec<DeviceStatus>, Rejection> {
        self.apart(|registry| records::devices(&registry.store).map_err(|error| unavailable(&error))).await
    }

    /// Shuts a device out, for ever.
    pub async fn revoke(self: Arc<Self>, device: DeviceId) -> Result<(), Rejection> {
        self.apart(move |registry| {
            let is_known = records::device(&registry.store, device).map_err(|e| registry.store(e))?.is_some();
            if !is_known {
                let why = "no device has this name; `nightshift device ls` lists them".to_owned();
                return Err(Rejection::Unacceptable { request: "revoke device".into(), why });
            }
            registry.will_report(device)?;
            registry.revocations.add(Revoked::Device(device)).map_err(|error| unavailable(&error))?;
            records::revoke(&registry.store, device).map_err(|e| registry.store(e))?;
            registry.driver.known().revoked(device);
            tracing::info!("device revoked");
            Ok(())
        })
        .await
    }

    /// Runs what blocks on a thread of its own.
    async fn apart<T: Send + 'static>(
        self: Arc<Self>,
        run: impl FnOnce(&Self) -> Result<T, Rejection> + Send + 'static,
    ) -> Result<T, Rejection> {
        spawn_blocking(move || run(&self)).await.unwrap_or_else(|error| Err(unavailable(&error)))
    }

    /// Vouches for a new key of an operator, in the role that they have: the certificate and its authority's, in PEM.
    pub async fn sign_operator(
        self: Arc<Self>,
        (name, role): (AdminName, Role),
        request_pem: String,
        now: Timestamp,
    ) -> Result<String, Rejection> {
        let validity = self.operators_validity(now);
        self.apart(move |registry| {
            let signed = registry.operators.sign(&request_pem, (&name, role), &registry.authority, validity);
            let signed = signed.map_err(|error| registry.operators_failed(error))?;
            tracing::info!(%name, %role, "operator's certificate made anew");
            Ok(signed)
        })
        .await
    }

    /// Makes somebody an operator: the certificate and its authority's, in PEM.
    pub async fn add_operator(
        self: Arc<Self>,
        (name, role): (String, Role),
        request_pem: String,
        now: Timestamp,
    ) -> Result<String, Rejection> {
        let refuse = |why: String| Rejection::Unacceptable { request: "add operator".into(), why };
        let name: AdminName = name.parse().map_err(|error: AdminNameError| refuse(error.to_string()))?;
        let validity = self.operators_validity(now);
        self.apart(move |registry| {
            let at = (&registry.authority, validity, now.as_secs());
            let signed = registry.operators.add(&request_pem, (&name, role), at.0, at.1, at.2);
            let signed = signed.map_err(|error| registry.operators_failed(error))?;
            tracing::info!(%name, %role, "operator added");
            Ok(signed)
        })
        .await
    }

    fn operators_validity(&self, now: Timestamp) -> Validity {
        Validity {
            not_before_unix_secs: now.as_secs().saturating_sub(CLOCK_SLACK_SECS),
            not_after_unix_secs: now.as_secs() + self.operator_secs,
        }
    }

    /// Makes an operator's certificate worthless, for ever. Fails where nobody would be left who can make another.
    pub async fn revoke_operator(self: Arc<Self>, serial: Serial, now: Timestamp) -> Result<(), Rejection> {
        self.apart(move |registry| {
            let failed = |error| registry.operators_failed(error);
            let known = registry.operators.list().map_err(failed)?;
            if !known.iter().any(|operator| operator.serial == serial) {
                let why =
                    "no certificate of an operator has this number; `nightshift operator ls` lists them"
                        .to_owned();
                return Err(Rejection::Unacceptable { request: "revoke operator".into(), why });
            }
            let _change = registry.operators.change();
            registry.operators.check_not_last(serial, now.as_secs()).map_err(failed)?;
            registry.revocations.add(Revoked::Operator(serial)).map_err(|error| unavailable(&error))?;
            registry.operators.revoke(serial).map_err(failed)?;
            tracing::info!(%serial, "operator's certificate revoked");
            Ok(())
        })
        .await
    }

    /// All certificates of operators.
    pub async fn list_operators(self: Arc<Self>) -> Result<Vec<OperatorStatus>, Rejection> {
        self.apart(|registry| registry.operators.list().map_err(|error| registry.operators_failed(error)))
            .await
    }

    /// Whether a certificate was made for this name.
    pub fn is_operators_own(&self, serial: Serial, name: &AdminName) -> Result<bool, Rejection> {
        self.operators.is_named(serial, name).map_err(|error| self.operators_failed(error))
    }

    fn operators_failed(&self, error: OperatorsError) -> Rejection {
        match error {
            OperatorsError::Store(error) => self.store(error),
            OperatorsError::Pki(error) => certificate(error),
            error @ (OperatorsError::Record(_) | OperatorsError::Unreadable) => {
                Rejection::Unavailable(error.to_string())
            }
            error @ OperatorsError::NameTaken { .. } => {
                Rejection::Unacceptable { request: "add operator".into(), why: error.to_string() }
            }
            error @ OperatorsError::LastAdmin(_) => {
                Rejection::Unacceptable { request: "revoke operator".into(), why: error.to_string() }
            }
        }
    }

    /// The key that verifies devices' credentials.
    pub fn public(&self) -> IdentityPublic {
        self.enroller.public()
    }

    fn store(&self, error: StoreError) -> Rejection {
        self.driver.store_failed(&self.store, error)
    }

    fn token(&self, error: TokenError) -> Rejection {
        match error {
            TokenError::Store(error) => self.store(error),
            error @ (TokenError::Randomness
            | TokenError::Refused(_)
            | TokenError::Ambiguous
            | TokenError::Label { .. }
            | TokenError::Lifetime(_)) => refused_token(&error),
        }
    }

    /// What whoever asked for a change is told where no entry of it could be written.
    pub(crate) fn audit_fails(&self) -> impl Fn(AuditError) -> Rejection + Send + Sync + 'static {
        let (driver, store) = (self.driver.clone(), self.store.clone());
        move |error| match error {
            AuditError::File(error) => driver.store_failed(&store, StoreError::File(error)),
            AuditError::Store(error) => driver.store_failed(&store, error),
            error @ (AuditError::Key(_) | AuditError::Fault { .. } | AuditError::Unwritable(_)) => {
                unavailable(&error)
            }
        }
    }
}

fn refused_token(error: &TokenError) -> Rejection {
    match error {
        TokenError::Randomness => Rejection::Unavailable("no randomness".to_owned()),
        TokenError::Store(error) => unavailable(error),
        TokenError::Lifetime(_) => {
            Rejection::Unacceptable { request: "issue token".into(), why: error.to_string() }
        }
        TokenError::Refused(_) | TokenError::Ambiguous | TokenError::Label { .. } => {
            Rejection::Unacceptable { request: "token".into(), why: error.to_string() }
        }
    }
}

fn unavailable(error: &impl std::fmt::Display) -> Rejection {
    Rejection::Unavailable(error.to_string())
}

fn changed_meanwhile() -> Rejection {
    Rejection::Unavailable("the device's record changed meanwhile".to_owned())
}

fn refuse_enrollment(why: String) -> Rejection {
    Rejection::Unacceptable { request: "enroll".into(), why }
}

fn certificate(error: PkiError) -> Rejection {
    match error {
        error @ (PkiError::Request(_) | PkiError::RequestKey) => {
            Rejection::Malformed { what: "certificate request".into(), why: error.to_string() }
        }
        error @ (PkiError::File(_)
        | PkiError::Malformed { .. }
        | PkiError::KeyMismatch { .. }
        | PkiError::Validity { .. }
        | PkiError::ServerName(_)
        | PkiError::Issue(_)
        | PkiError::Randomness) => {
            tracing::error!(%error, "a device's certificate could not be made");
            Rejection::Unavailable("a certificate could not be made".to_owned())
        }
    }
}

#[cfg(test)]
pub(crate) use tests::registry as test_registry;

#[cfg(test)]
mod tests;
