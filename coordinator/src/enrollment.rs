//! Who may connect: tokens, enrolment, renewal and revocation.
#![expect(clippy::disallowed_methods, reason = "IO shell: an enrollment goes on when its caller has gone")]

use aggregation::IdentityPublic;
use authority::witnesses::Witnesses;
use hooks::Signed;
use shell::store::{Batch, Store, StoreError};
use std::sync::Arc;

use proto::admin::DeviceStatus;
use proto::convert::{Enrolled, Enrollment, Renewal};
use proto::ids::{DeviceId, Timestamp};
use proto::message::{LogPart, Rejection};
use proto::shown::shown;
use proto::token::pin_of;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::spawn_blocking;

use crate::audit::{Audit, AuditError, What, Who, With};
use crate::driver::Driver;
use crate::enroller::Enroller;
use crate::kept_log::{KeptLog, LogError};
use crate::last_seen::LastSeen;
use crate::operators::Operators;
use crate::outside::Hooks;
use crate::peer::Peer;
pub use crate::pki::CLOCK_SLACK_SECS;
use crate::pki::{Authority, PkiError};
use crate::records::{self, AttestedRecord, DeviceRecord};
use crate::revocations::{Revocations, Revoked};
use crate::tokens::{self, NewToken, TokenError, TokenRefusal, Use};

mod asked;
mod beginning;
pub(crate) mod elsewhere;
pub(crate) mod keeping;
mod listing;
mod operators;
mod vouching;

/// A device is given no further certificate so soon after its last renewal, in seconds: each is a write.
const RENEWAL_PAUSE_SECS: u64 = 60;

/// A device that may be enrolled, as far as is known here.
#[derive(Debug)]
struct Begun {
    device: DeviceId,
    /// Its record, where it comes again.
    earlier: Option<DeviceRecord>,
    /// The label of its token.
    label: String,
    /// How it uses its token.
    used: Use,
}

/// The authority's keys and the records of devices.
#[derive(Debug)]
pub struct Registry {
    /// Where devices and tokens are kept.
    pub store: Store,
    /// Who vouches for devices' connections.
    pub authority: Authority,
    /// Who vouches for devices' signing keys, and by what key versions are vouched for.
    pub enroller: Enroller,
    /// The log of all that was stated of devices.
    pub log: Arc<KeptLog>,
    /// Who is asked to sign heads of that log.
    pub witnesses: Arc<Witnesses>,
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
    /// Who else is asked when a device enrolls.
    pub hooks: Hooks,
}

impl Registry {
    /// Enrols a device: uses its token up and records the device, in one transaction. Before that its machine is looked at,
    /// and its certificate made, as the operator wants it; what fails there uses nothing up.
    ///
    /// All of it goes on to its end when the caller has gone.
    pub async fn enrol(
        self: Arc<Self>,
        enrollment: Enrollment,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let enrollment = Arc::new(enrollment);
        let all = tokio::spawn(async move {
            if self.enroller.apart().is_some() {
                return self.enrol_elsewhere(enrollment, now).await;
            }
            let asked = Arc::clone(&enrollment);
            let begun = Arc::clone(&self).apart(move |registry| registry.begin(&asked, now)).await?;
            let (whom, request) = ((begun.device, &*begun.label), &enrollment.certificate_request_pem);
            if begun.used == Use::Again {
                let signed = self.signed(whom, request, self.devices_validity(now), now).await?;
                return self.apart(move |registry| registry.again(&enrollment, begun, signed, now)).await;
            }
            let attested = self.attested(&enrollment, whom, now).await?;
            let signed = self.signed(whom, request, self.devices_validity(now), now).await?;
            self.apart(move |registry| registry.enrol_here(&enrollment, begun, attested, signed, now)).await
        });
        all.await.unwrap_or_else(|error| Err(unavailable(&error)))
    }

    /// Whether a device may be enrolled, as far as is known here. Blocks.
    fn begin(&self, enrollment: &Enrollment, now: Timestamp) -> Result<Begun, Rejection> {
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
        let found = tokens::find(&self.store, enrollment.token, enrollment.identity, now.as_secs());
        let (token, used) = found.map_err(|e| self.token(e))?;
        Ok(Begun { device, earlier, label: token.label, used })
    }

    /// What a device was given and did not hear, once more: nothing changes. Blocks.
    fn again(
        &self,
        enrollment: &Enrollment,
        Begun { device, earlier, .. }: Begun,
        signed: Option<Signed>,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let stated = earlier.filter(|record| now.as_secs() < record.expires_unix_secs);
        let stated = stated.and_then(|record| Some((record.place?, record)));
        let (place, record) = stated.ok_or_else(|| refused_token(&TokenRefusal::Redeemed.into()))?;
        let of = (record.enrolled_unix_millis, record.label.as_str());
        let logged = self.logged(place, of, record.attested.as_ref())?;
        let request = (&*enrollment.certificate_request_pem, signed);
        let until = (now, record.expires_unix_secs);
        let again = self.vouch_until(device, request, (enrollment.identity, logged), until)?;
        Ok(Enrolled { label: record.label, ..again })
    }

    /// Uses the token up. Blocks.
    fn enrol_here(
        &self,
        enrollment: &Enrollment,
        Begun { device, earlier, label, .. }: Begun,
        attested: Option<AttestedRecord>,
        signed: Option<Signed>,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let by = (enrollment.identity, now.as_secs());
        let request = &enrollment.certificate_request_pem;
        self.begun()?;
        let mut turn = self.log.turn();
        let first = earlier.as_ref().map_or(now.0, |earlier| earlier.enrolled_unix_millis);
        let logged = self.logged(turn.place(), (first, &label), attested.as_ref())?;
        let enrolled = self.vouch(device, (request, signed), (enrollment.identity, logged), now)?;
        let expires_unix_secs = enrolled.credential.expires_unix_secs;
        // A device that comes again enrolled when it came first.
        let record = DeviceRecord::new(label, enrollment.identity, first, expires_unix_secs);
        let record = DeviceRecord { attested, place: Some(logged.place), ..record };
        let mut also = Batch::new();
        self.log_credential(&mut turn, &mut also, &enrolled.credential, now)?;
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
            // It is durable, whatever becomes of what is written of it elsewhere.
            turn.kept();
            self.driver.known().enrolled(device);
            Ok(())
        };
        let what = What::new("enroll", [("label", shown(&record.label).to_string())]);
        let came = |(): &()| record.attested.iter().flat_map(AttestedRecord::said).collect::<With>();
        self.audit.change_here((Who::Device(device), what), redeem, came, self.audit_fails())?;
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
        if self.enroller.apart().is_some() {
            return self.renew_elsewhere(renewal, peer, now).await;
        }
        let renewal = Arc::new(renewal);
        let asked = Arc::clone(&renewal);
        let record = Arc::clone(&self).apart(move |registry| registry.renewable(&asked, &peer, now)).await?;
        let (whom, request) = ((renewal.device, &*record.label), &renewal.certificate_request_pem);
        let signed = self.signed(whom, request, self.devices_validity(now), now).await?;
        self.apart(move |registry| registry.renew_here(&renewal, &record, signed, now)).await
    }

    /// The record of a device whose certificate may be renewed now. Blocks.
    fn renewable(&self, renewal: &Renewal, peer: &Peer, now: Timestamp) -> Result<DeviceRecord, Rejection> {
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
        Ok(record)
    }

    /// Gives the next certificate and credential, and writes down until when they last. Blocks.
    fn renew_here(
        &self,
        renewal: &Renewal,
        record: &DeviceRecord,
        signed: Option<Signed>,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let (device, identity) = (renewal.device, IdentityPublic(record.identity.0));
        self.begun()?;
        let mut turn = self.log.turn();
        let of = (record.enrolled_unix_millis, record.label.as_str());
        let logged = self.logged(turn.place(), of, record.attested.as_ref())?;
        let request = &renewal.certificate_request_pem;
        let renewed = self.vouch(device, (request, signed), (identity, logged), now)?;
        let next = DeviceRecord {
            expires_unix_secs: renewed.credential.expires_unix_secs,
            renewed_unix_secs: now.as_secs(),
            place: Some(logged.place),
            ..record.clone()
        };
        let mut batch = Batch::new();
        self.log_credential(&mut turn, &mut batch, &renewed.credential, now)?;
        records::replace_device(&mut batch, device, (record, &next)).map_err(|e| self.store(e))?;
        self.store.commit_blocking(&batch).map_err(|error| {
            // Revoked, or renewed by another call, since it was read.
            if matches!(error, StoreError::Conflict { .. }) { changed_meanwhile() } else { self.store(error) }
        })?;
        turn.kept();
        tracing::debug!(%device, "certificate renewed");
        Ok(Enrolled { label: record.label.clone(), ..renewed })
    }

    /// Sees that the devices from before there was a log are in it before anything later is, where the log is kept here. Blocks.
    fn begun(&self) -> Result<(), Rejection> {
        let Some(key) = self.enroller.here() else { return Ok(()) };
        beginning::begun(&self.log, key, &self.store).map_err(|error| match error {
            LogError::Store(error) => self.store(error),
            error @ (LogError::Entry { .. } | LogError::Head(_) | LogError::Book(_)) => unavailable(&error),
        })
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

    /// A part of the enrollment log, from a place on.
    pub async fn log_part(self: Arc<Self>, from: u64) -> Result<LogPart, Rejection> {
        self.apart(move |registry| registry.log.part(from).map_err(|error| unavailable(&error))).await
    }

    /// All enrolled devices.
    pub async fn devices(self: Arc<Self>) -> Result<Vec<DeviceStatus>, Rejection> {
        self.apart(|registry| records::devices(&registry.store).map_err(|error| unavailable(&error))).await
    }

    /// Shuts a device out, for ever.
    pub async fn revoke(self: Arc<Self>, device: DeviceId, now: Timestamp) -> Result<(), Rejection> {
        self.apart(move |registry| {
            let is_known = records::device(&registry.store, device).map_err(|e| registry.store(e))?.is_some();
            if !is_known {
                let why = "no device has this name; `nightshift device ls` lists them".to_owned();
                return Err(Rejection::Unacceptable { request: "revoke device".into(), why });
            }
            registry.will_report(device)?;
            registry.revocations.add(Revoked::Device(device)).map_err(|error| unavailable(&error))?;
            registry.begun()?;
            let store = &registry.store;
            let revoke = |also| records::revoke(store, device, also);
            match registry.enroller.here() {
                Some(key) => registry.log.revoke(device, key.key(), now.as_secs(), revoke),
                // The authority writes it down that is told of it.
                None => revoke(Batch::new()),
            }
            .map_err(|e| registry.store(e))?;
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
