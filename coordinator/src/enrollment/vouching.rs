//! What a device is given when it enrolls or renews: a certificate for its connections, a credential, and its entry in the log.

use aggregation::{Credential, IdentityPublic, Logged};
use hooks::Signed;
use proto::authority::Issued;
use proto::convert::Enrolled;
use proto::ids::{DeviceId, Timestamp};
use proto::message::Rejection;
use ring::rand::SystemRandom;
use shell::store::Batch;

use super::{CLOCK_SLACK_SECS, Registry, certificate};
use crate::kept_log::Turn;
use crate::pki::{EnrollmentKey, Validity};
use crate::records::AttestedRecord;

impl Registry {
    /// From when to when a device's certificate lasts that is made now.
    pub(super) fn devices_validity(&self, now: Timestamp) -> Validity {
        Validity {
            not_before_unix_secs: now.as_secs().saturating_sub(CLOCK_SLACK_SECS),
            not_after_unix_secs: now.as_secs() + self.device_secs,
        }
    }

    /// The certificate and the credential that a device is given now: the certificate that was signed elsewhere, or one of
    /// the coordinator's own authority. Both end together.
    pub(super) fn vouch(
        &self,
        device: DeviceId,
        (certificate_request_pem, signed): (&str, Option<Signed>),
        (identity, logged): (IdentityPublic, Logged),
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let ends = signed.as_ref().map_or(u64::MAX, |signed| signed.not_after_unix_secs);
        let until = (now, self.devices_validity(now).not_after_unix_secs.min(ends));
        self.vouch_until(device, (certificate_request_pem, signed), (identity, logged), until)
    }

    /// The same for as long as is said.
    pub(super) fn vouch_until(
        &self,
        device: DeviceId,
        (certificate_request_pem, signed): (&str, Option<Signed>),
        (identity, logged): (IdentityPublic, Logged),
        (now, expires_unix_secs): (Timestamp, u64),
    ) -> Result<Enrolled, Rejection> {
        let credential = self.key()?.issue(device.0, identity, expires_unix_secs, logged);
        let (issued_unix_secs, label, attested) = (now.as_secs(), String::new(), None);
        let issued = Issued { credential, issued_unix_secs, label, attested };
        self.certified((certificate_request_pem, signed), &issued, now)
    }

    /// The certificate that goes with what was stated of a device: the one that was signed elsewhere, or one of the
    /// coordinator's own authority, which lasts as long.
    pub(super) fn certified(
        &self,
        (certificate_request_pem, signed): (&str, Option<Signed>),
        issued: &Issued,
        now: Timestamp,
    ) -> Result<Enrolled, Rejection> {
        let Issued { credential, issued_unix_secs, label, attested: _ } = issued.clone();
        let device = DeviceId(credential.device);
        let certificate_pem = if let Some(signed) = signed {
            signed.chain_pem
        } else {
            let not_after_unix_secs = credential.expires_unix_secs;
            let validity = Validity { not_after_unix_secs, ..self.devices_validity(now) };
            let rng = SystemRandom::new();
            let signed = self.authority.sign_device_pem(certificate_request_pem, &device.0, validity, &rng);
            signed.map_err(certificate)?
        };
        let (authority, publisher) = (self.public(), self.enroller.publisher());
        Ok(Enrolled { device, certificate_pem, credential, authority, issued_unix_secs, label, publisher })
    }

    /// The enrollment key, which is here unless an authority apart has it.
    pub(super) fn key(&self) -> Result<&EnrollmentKey, Rejection> {
        let elsewhere = || Rejection::Unavailable("the enrollment key is not here".to_owned());
        self.enroller.here().ok_or_else(elsewhere)
    }

    /// Adds the leaf of a credential to what is written with it.
    pub(super) fn log_credential(
        &self,
        turn: &mut Turn<'_>,
        batch: &mut Batch,
        credential: &Credential,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let Some((_, leaf)) = credential.leaf() else { return Ok(()) };
        let written = turn.write(batch, &leaf, self.key()?.key(), now.as_secs());
        written.map_err(|error| self.store(error))
    }

    /// What the log is to say of a device in a place, by when it enrolled first and how it is called.
    pub(super) fn logged(
        &self,
        place: u64,
        (enrolled_unix_millis, label): (u64, &str),
        attested: Option<&AttestedRecord>,
    ) -> Result<Logged, Rejection> {
        Ok(Logged {
            place,
            enrolled_unix_secs: enrolled_unix_millis / 1000,
            label: self.key()?.label(label),
            attested: attested.map_or([0; 32], |attested| attested.policy.0),
        })
    }
}
