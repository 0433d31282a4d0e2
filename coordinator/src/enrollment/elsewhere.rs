//! Enrollment by an authority apart: what devices say is handed on, and what comes back is written down.

use std::sync::Arc;
use std::time::Duration;

use aggregation::log::Book;
use authority::asking::AskError;
use hooks::Signed;
use proto::admin::LogStatus;
use proto::authority::{AttestedBy, Introduction, Issued};
use proto::convert::{Enrolled, Enrollment, Renewal};
use proto::ids::{DeviceId, Digest, Timestamp};
use proto::message::Rejection;
use proto::shown::shown;
use proto::token::pin_of;
use shell::store::{Batch, Key, StoreError};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{RENEWAL_PAUSE_SECS, Registry, changed_meanwhile, refuse_enrollment};
use crate::audit::{What, Who, With};
use crate::driver;
use crate::enroller::{Apart, News, TREE};
use crate::kept_log::FollowError;
use crate::peer::Peer;
use crate::pki::Validity;
use crate::records::{self, AttestedRecord, DeviceRecord};
use crate::revocations::Revoked;

/// The key below which is how far the authority's list of revocations is read.
pub(crate) const READ: &str = "revocations";

/// Devices that the authority revoked, known here or not.
pub(crate) const BARRED: &str = "revoked by the authority";

/// Devices that were revoked here, of which the authority has not heard.
pub(crate) const UNREPORTED: &str = "revoked and not reported";

/// Between two calls to the authority.
const EVERY: Duration = Duration::from_secs(20);

/// The same, where it did not answer.
const AGAIN: Duration = Duration::from_secs(5);

impl Registry {
    /// Has the authority enroll a device, and records it. Whoever's answer was lost between the two may ask again.
    pub(super) async fn enrol_elsewhere(
        self: Arc<Self>,
        enrollment: Arc<Enrollment>,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        authority::decide::proved(&enrollment)?;
        let identity = enrollment.identity;
        let known = Arc::clone(&self).apart(move |registry| registry.standing(identity)).await?;
        let issued = self.authority_apart()?.enroll(&enrollment).await?;
        let device = DeviceId(issued.credential.device);
        if enrollment.attestation.is_some() && issued.attested.is_none() {
            tracing::info!(
                "a device showed a statement about its machine, which the enrollment authority did not ask for"
            );
        }
        if known.is_some_and(|(known, _)| known != device) {
            let why = "this coordinator knows the device's key by another name than the enrollment authority; enroll with an \
                       empty folder";
            return Err(refuse_enrollment(why.to_owned()));
        }
        // What fails now may be asked again: the authority answers the same key the same.
        let (whom, request) = ((device, &*issued.label), &enrollment.certificate_request_pem);
        let signed = self.signed(whom, request, self.until(&issued, now), now).await?;
        let own = Arc::clone(&self);
        let enrolled = own.apart(move |registry| registry.record(&enrollment, &issued, signed, now)).await?;
        self.catch_up().await;
        Ok(enrolled)
    }

    /// From when to when the certificate lasts that goes with what was stated.
    fn until(&self, issued: &Issued, now: Timestamp) -> Validity {
        let not_after_unix_secs = issued.credential.expires_unix_secs;
        Validity { not_after_unix_secs, ..self.devices_validity(now) }
    }

    /// Takes what is new of the authority's log, so that a device takes part as soon as it is in it. It is tried again later
    /// where that fails.
    async fn catch_up(self: &Arc<Self>) {
        if let Err(why) = Arc::clone(self).follow_log().await {
            tracing::debug!(why, "the enrollment authority's log is not read on yet");
        }
    }

    /// Takes what is new of the authority's log. That it went back, or on along another branch, stops nothing else: it is refused,
    /// and said once and where the coordinator's state is asked for.
    async fn follow_log(self: Arc<Self>) -> Result<(), String> {
        let Some(authority) = self.enroller.apart() else { return Ok(()) };
        let known = self.log.log().look(Book::size);
        let (entries, head) = authority.log_behind(known).await.map_err(|error| error.to_string())?;
        let own = Arc::clone(&self);
        let followed = spawn_blocking(move || {
            // Another call may have been quicker: then it is read on next time.
            if own.log.log().look(Book::size) == known { own.log.follow(&entries, &head) } else { Ok(()) }
        });
        let refused = match followed.await.map_err(|error| error.to_string())? {
            Ok(()) => None,
            Err(FollowError::Store(error)) => {
                return Err(format!("what is new of its log cannot be kept: {error}"));
            }
            // No entry is gone where its rounds are about an earlier head, which enough witnesses signed.
            Err(FollowError::Shorter { .. })
                if authority.show_log().await.is_some_and(|log| log.size >= known) =>
            {
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if authority.touch.log_refused(refused.clone()) {
            if let Some(why) = refused {
                tracing::error!(why, "the enrollment authority's log is not taken");
            } else {
                tracing::info!("the enrollment authority's log is taken again");
            }
        }
        Ok(())
    }

    /// Has the authority write the versions into its log that wait for it.
    async fn tell_versions(self: Arc<Self>) -> Result<(), String> {
        let Some(authority) = self.enroller.apart() else { return Ok(()) };
        let own = Arc::clone(&self);
        let waiting = spawn_blocking(move || own.log.waiting_versions()).await;
        let waiting = waiting.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        for (key, leaf) in waiting {
            match authority.log_version(leaf.to_bytes()).await {
                Ok(()) => {}
                // It never will: the others are not kept waiting for it.
                Err(AskError::Rejected(Rejection::Unacceptable { why, .. })) => {
                    tracing::error!(
                        why,
                        "the enrollment authority does not take a version, which is in no log therefore"
                    );
                }
                // It takes so many a day: the others wait, and `health` says how many.
                Err(AskError::Rejected(Rejection::Unavailable(why))) => {
                    if authority.may_say() {
                        tracing::warn!(why, "versions wait to be entries of the enrollment authority's log");
                    }
                    return Ok(());
                }
                Err(error) => return Err(error.to_string()),
            }
            let own = Arc::clone(&self);
            let done = spawn_blocking(move || own.log.waits_no_more(key)).await;
            done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What is known of a key, unless it was shut out.
    fn standing(
        &self,
        identity: aggregation::IdentityPublic,
    ) -> Result<Option<(DeviceId, DeviceRecord)>, Rejection> {
        match records::with_identity(&self.store, identity).map_err(|e| self.store(e))? {
            None => Ok(None),
            Some((_, None)) => {
                let why = "this coordinator's record of this device is damaged; enroll with an empty folder";
                Err(refuse_enrollment(why.to_owned()))
            }
            Some((_, Some(record))) if record.revoked => {
                let why = "this device was revoked; a token is for another one, with keys of its own in an empty folder";
                Err(refuse_enrollment(why.to_owned()))
            }
            Some((device, Some(record))) => Ok(Some((device, record))),
        }
    }

    /// Records what the authority stated of a device that enrolls.
    fn record(
        &self,
        asked: &Enrollment,
        issued: &Issued,
        signed: Option<Signed>,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let enrolled = self.certified((&asked.certificate_request_pem, signed), issued, now)?;
        let device = enrolled.device;
        let record = DeviceRecord::new(
            issued.label.clone(),
            asked.identity,
            now.0,
            issued.credential.expires_unix_secs,
        );
        let record = DeviceRecord { attested: attested(issued), place: place(issued), ..record };
        let earlier = self.standing(asked.identity)?;
        let mut batch = unless_barred(device);
        match &earlier {
            Some((_, earlier)) => records::replace_device(&mut batch, device, (earlier, &record)),
            None => records::insert_device(&mut batch, device, &record),
        }
        .map_err(|e| self.store(e))?;
        let write = || {
            self.commit(&batch)?;
            self.driver.known().enrolled(device);
            Ok(())
        };
        let came = |(): &()| record.attested.iter().flat_map(AttestedRecord::said).collect::<With>();
        let what = What::new("enroll", [("label", shown(&record.label).to_string())]);
        self.audit.change_here((Who::Device(device), what), write, came, self.audit_fails())?;
        tracing::info!("device enrolled");
        tracing::debug!(%device, again = earlier.is_some(), "device enrolled");
        Ok(enrolled)
    }

    /// Has the authority state the same of a device again, and records it. One that is not known here is recorded: the
    /// authority knows it, and its answer to the enrollment was lost.
    pub(super) async fn renew_elsewhere(
        self: Arc<Self>,
        renewal: Renewal,
        peer: Peer,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let device = renewal.device;
        if peer != Peer::Anonymous && peer != Peer::Device(device.0) {
            return Err(Rejection::NotEnrolled);
        }
        let asked = renewal.clone();
        Arc::clone(&self).apart(move |registry| registry.may_renew(&asked, now)).await?;
        let issued = self.authority_apart()?.renew(&renewal).await?;
        let (whom, request) = ((device, &*issued.label), &renewal.certificate_request_pem);
        let signed = self.signed(whom, request, self.until(&issued, now), now).await?;
        let own = Arc::clone(&self);
        let renewed =
            own.apart(move |registry| registry.record_renewal(&renewal, &issued, signed, now)).await?;
        self.catch_up().await;
        Ok(renewed)
    }

    /// Fails where what is known here is enough to say no: whoever is not the device learns nothing.
    fn may_renew(&self, asked: &Renewal, now: Timestamp) -> Result<(), Rejection> {
        let Some(record) = records::device(&self.store, asked.device).map_err(|e| self.store(e))? else {
            return Ok(());
        };
        let identity = aggregation::IdentityPublic(record.identity.0);
        if record.revoked || !asked.is_proved_by(&identity) {
            return Err(Rejection::NotEnrolled);
        }
        let since = now.as_secs().checked_sub(record.renewed_unix_secs);
        if since.is_some_and(|secs| secs < RENEWAL_PAUSE_SECS) {
            let why = "the certificate was renewed within the last minute".to_owned();
            return Err(Rejection::Unavailable(why));
        }
        Ok(())
    }

    fn record_renewal(
        &self,
        asked: &Renewal,
        issued: &Issued,
        signed: Option<Signed>,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let renewed = self.certified((&asked.certificate_request_pem, signed), issued, now)?;
        let (device, expires_unix_secs) = (renewed.device, issued.credential.expires_unix_secs);
        let record = records::device(&self.store, device).map_err(|e| self.store(e))?;
        let mut batch = unless_barred(device);
        let (renewed_unix_secs, attested, place) = (now.as_secs(), attested(issued), place(issued));
        match &record {
            Some(record) if record.revoked => return Err(Rejection::NotEnrolled),
            Some(record) => {
                let next =
                    DeviceRecord { expires_unix_secs, renewed_unix_secs, attested, place, ..record.clone() };
                records::replace_device(&mut batch, device, (record, &next)).map_err(|e| self.store(e))?;
                self.commit(&batch)?;
            }
            // The authority enrolled it, and looked at its machine; here it is new.
            None => {
                let identity = issued.credential.identity;
                let record = DeviceRecord::new(issued.label.clone(), identity, now.0, expires_unix_secs);
                let record = DeviceRecord { renewed_unix_secs, attested, place, ..record };
                records::insert_device(&mut batch, device, &record).map_err(|e| self.store(e))?;
                let write = || {
                    self.commit(&batch)?;
                    self.driver.known().enrolled(device);
                    Ok(())
                };
                let came = |(): &()| record.attested.iter().flat_map(AttestedRecord::said).collect::<With>();
                let label = ("label", shown(&record.label).to_string());
                let what = What::new("enroll by a renewal", [label]);
                self.audit.change_here((Who::Device(device), what), write, came, self.audit_fails())?;
            }
        }
        tracing::debug!(%device, "certificate renewed");
        Ok(renewed)
    }

    fn commit(&self, batch: &Batch) -> Result<(), Rejection> {
        self.store.commit_blocking(batch).map_err(|error| match error {
            StoreError::Conflict { tree, .. } if tree == BARRED => Rejection::NotEnrolled,
            StoreError::Conflict { .. } => changed_meanwhile(),
            other @ (StoreError::InUse { .. }
            | StoreError::File(_)
            | StoreError::Engine { .. }
            | StoreError::Damaged { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Unwritable { .. }
            | StoreError::TooLarge { .. }
            | StoreError::DiskFull { .. }
            | StoreError::Stopped { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Refused { .. }) => self.store(other),
        })
    }

    /// Keeps that the authority is to hear of a revocation, where there is one apart. Blocks.
    pub(super) fn will_report(&self, device: DeviceId) -> Result<(), Rejection> {
        if self.enroller.apart().is_none() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(UNREPORTED, device.0, &true).map_err(|e| self.store(e))?;
        self.store.commit_blocking(&batch).map_err(|e| self.store(e))
    }

    /// Tells the authority of revocations here, and is told of revocations there, for ever; ends at once where there is none
    /// apart. That it does not answer, and that it does again, is said once.
    pub(crate) async fn keep_in_touch(self: Arc<Self>) {
        while let Some(authority) = self.enroller.apart() {
            let heard = Arc::clone(&self).hear().await;
            let is_ok = heard.is_ok();
            match authority.touch.heard(&heard, driver::now().as_secs()) {
                News::Answers => tracing::info!("the enrollment authority answers again"),
                News::Silent => tracing::warn!(
                    why = heard.err(),
                    "the enrollment authority does not answer: rounds go on for a day at most, and no device enrolls or renews meanwhile"
                ),
                News::None => {}
            }
            sleep(if is_ok { EVERY } else { AGAIN }).await;
        }
    }

    /// How the log of enrollments is, and who signs it. Blocks.
    pub(crate) fn log_status(&self) -> LogStatus {
        let own = self.witnesses.status(&self.log, driver::now().as_secs());
        match self.enroller.apart() {
            None => own,
            Some(authority) => authority.touch.log(own),
        }
    }

    /// Each part whatever became of the others, and whom the authority revoked first: that must never wait.
    async fn hear(self: Arc<Self>) -> Result<(), String> {
        let revoked = Arc::clone(&self).hear_of_revocations().await;
        let reported = Arc::clone(&self).report_revocations().await;
        let told = Arc::clone(&self).tell_versions().await;
        let followed = Arc::clone(&self).follow_log().await;
        if let Some(authority) = self.enroller.apart() {
            // Of one that is away what it said last is still what is known.
            if let Some(log) = authority.show_log().await {
                authority.touch.told(log);
            }
        }
        revoked.and(reported).and(told).and(followed)
    }

    /// Tells the authority whom this coordinator's operators revoked.
    async fn report_revocations(self: Arc<Self>) -> Result<(), String> {
        let Some(authority) = self.enroller.apart() else { return Ok(()) };
        let unreported = Arc::clone(&self).apart(|registry| registry.marked(UNREPORTED)).await;
        for device in unreported.map_err(|rejection| rejection.to_string())? {
            match authority.report(device).await {
                Ok(()) => {}
                Err(AskError::Rejected(Rejection::Unacceptable { why, .. })) => {
                    tracing::error!(%device, why, "the enrollment authority does not take a revocation");
                }
                Err(error) => return Err(error.to_string()),
            }
            let mut batch = Batch::new();
            batch.remove(UNREPORTED, device.0);
            self.store.commit(batch).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Shuts out whom the authority revoked since it was asked last.
    async fn hear_of_revocations(self: Arc<Self>) -> Result<(), String> {
        let said = |error: AskError| error.to_string();
        let refused = |rejection: Rejection| rejection.to_string();
        let Some(authority) = self.enroller.apart() else { return Ok(()) };
        loop {
            let from: u64 = self.store.get(TREE, READ).map_err(|error| error.to_string())?.unwrap_or(0);
            let pin = pin_of(self.authority.certificate());
            let introduction = Introduction { address: self.address.clone(), pin, revocations_from: from };
            let told = authority.introduce(introduction).await.map_err(said)?;
            authority.touch.asks(told.attestation_policy);
            let (next, more) = (told.revocations_next, told.more);
            if next != from || !told.revoked.is_empty() {
                let written = Arc::clone(&self)
                    .apart(move |registry| registry.revoke_as_told(&told.revoked, next))
                    .await;
                written.map_err(refused)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Shuts out whom the authority revoked, and keeps how far its list is read. Blocks.
    pub(super) fn revoke_as_told(&self, revoked: &[DeviceId], next: u64) -> Result<(), Rejection> {
        let mut batch = Batch::new();
        for device in revoked {
            batch.put(BARRED, device.0, &true).map_err(|e| self.store(e))?;
        }
        self.store.commit_blocking(&batch).map_err(|e| self.store(e))?;
        for &device in revoked {
            let is_new = records::revoke(&self.store, device, Batch::new()).map_err(|e| self.store(e))?;
            // Whatever else fails, and also where it was begun before.
            self.driver.known().revoked(device);
            if is_new {
                let what = What::new("revoke as the authority did", [("device", device.to_string())]);
                self.audit.note(&what, driver::now());
                tracing::info!("device revoked, as the enrollment authority did");
            }
        }
        let lines: Vec<Revoked> = revoked.iter().copied().map(Revoked::Device).collect();
        self.revocations.add_all(&lines).map_err(|error| super::unavailable(&error))?;
        let mut batch = Batch::new();
        batch.put(TREE, READ, &next).map_err(|e| self.store(e))?;
        self.store.commit_blocking(&batch).map_err(|e| self.store(e))
    }

    fn marked(&self, tree: &'static str) -> Result<Vec<DeviceId>, Rejection> {
        let mut devices = Vec::new();
        for item in self.store.scan_prefix::<bool>(tree, &Key::default()).map_err(|e| self.store(e))? {
            let key = match item {
                Ok((key, _)) => key,
                Err(error @ (StoreError::Damaged { .. } | StoreError::Unreadable { .. })) => {
                    tracing::error!(%error, "the enrollment authority is not told of a revocation; revoke it there");
                    continue;
                }
                Err(error) => return Err(self.store(error)),
            };
            if let Some(device) = key.as_bytes().first_chunk() {
                devices.push(DeviceId(*device));
            }
        }
        Ok(devices)
    }

    fn authority_apart(&self) -> Result<&Apart, Rejection> {
        let none = || Rejection::Unavailable("there is no enrollment authority apart".to_owned());
        self.enroller.apart().ok_or_else(none)
    }
}

/// By what the authority admitted a device's machine.
fn attested(issued: &Issued) -> Option<AttestedRecord> {
    let AttestedBy { kind, at_unix_secs } = issued.attested.clone()?;
    let policy = Digest(issued.credential.logged?.attested);
    Some(AttestedRecord { policy, kind, at_unix_secs })
}

/// Where it stands in the authority's log.
fn place(issued: &Issued) -> Option<u64> {
    issued.credential.logged.map(|logged| logged.place)
}

/// A batch that is refused where the authority revoked the device meanwhile.
fn unless_barred(device: DeviceId) -> Batch {
    let mut batch = Batch::new();
    batch.expect_absent(BARRED, device.0);
    batch
}
