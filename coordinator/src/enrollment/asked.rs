//! Who else is asked when a device enrolls, and when its certificate is renewed; and what an operator learns of it.
#![expect(clippy::disallowed_methods, reason = "IO shell: how long somebody takes is measured here")]

use std::sync::atomic::Ordering;
use std::time::Instant;

use hooks::{AttestationError, CertIssuer, HookError, Policy, Shown, Signed, ToSign};
use proto::convert::Enrollment;
use proto::ids::{DeviceId, Timestamp};
use proto::message::Rejection;
use proto::shown::shown;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Registry, certificate};
use crate::audit::What;
use crate::peer::{self, Peer};
use crate::pki::{self, Validity};
use crate::records::AttestedRecord;

/// Who asks others, as devices are told.
const WHO: &str = "this coordinator";

impl Registry {
    /// By what a device is admitted that enrolls now; none where nothing is asked.
    pub(super) async fn attested(
        &self,
        enrollment: &Enrollment,
        (device, label): (DeviceId, &str),
        now: Timestamp,
    ) -> Result<Option<AttestedRecord>, Rejection> {
        let verifier = &self.hooks.attestation;
        let Some(Policy { kind, digest }) = verifier.policy().cloned() else {
            if enrollment.attestation.is_some() {
                tracing::info!(
                    "a device showed a statement about its machine, which was not asked for: nobody read it"
                );
            }
            return Ok(None);
        };
        let began = Instant::now();
        let answer = verifier.verify(Shown::by(enrollment, (device.0, label), now.as_secs())).await;
        let outcome = match &answer {
            Ok(()) => "done",
            Err(AttestationError::NotAdmitted(_)) => "refused",
            Err(AttestationError::Hook(error)) => error.word(),
        };
        self.driver.metrics().asked("attestation", outcome, began.elapsed());
        let Err(error) = answer else {
            return Ok(Some(AttestedRecord {
                policy: digest,
                kind: kind.to_owned(),
                at_unix_secs: now.as_secs(),
            }));
        };
        self.comes_to_nothing(("attestation", outcome), (label, device), &error.to_string(), now);
        Err(error.rejection(WHO))
    }

    /// The certificate that somebody else makes; none where the coordinator's own authority does.
    pub(super) async fn signed(
        &self,
        (device, label): (DeviceId, &str),
        request_pem: &str,
        validity: Validity,
        now: Timestamp,
    ) -> Result<Option<Signed>, Rejection> {
        let CertIssuer::Outside(outside) = &self.hooks.issuer else { return Ok(None) };
        let asked = ToSign {
            device: device.0,
            name: peer::device_uri(&device.0),
            request_der: pki::check_request(request_pem).map_err(certificate)?,
            request_pem: request_pem.to_owned(),
            not_before_unix_secs: validity.not_before_unix_secs,
            not_after_unix_secs: validity.not_after_unix_secs,
            now_unix_secs: now.as_secs(),
        };
        let began = Instant::now();
        let signed = outside.sign(asked).await.and_then(|signed| named(signed, device));
        let outcome = signed.as_ref().map_or_else(HookError::word, |_| "done");
        self.driver.metrics().asked("issuer", outcome, began.elapsed());
        signed.map(Some).map_err(|error| {
            self.comes_to_nothing(("issuer", outcome), (label, device), &error.to_string(), now);
            error.rejection("no certificate was made for this device", WHO)
        })
    }

    /// Tells the operator, in the log and in the audit log.
    fn comes_to_nothing(
        &self,
        (hook, outcome): (&'static str, &'static str),
        (label, device): (&str, DeviceId),
        why: &str,
        now: Timestamp,
    ) {
        tracing::debug!(%device, label = %shown(label), hook, outcome, why = %shown(why), "a device was turned away");
        if !self.hooks.said.may_say(now) {
            self.hooks.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unsaid = self.hooks.unsaid.swap(0, Ordering::Relaxed);
        tracing::warn!(hook, outcome, why = %shown(why), unsaid, "a device was given no certificate");
        let with = [
            ("hook", hook.to_owned()),
            ("outcome", outcome.to_owned()),
            ("label", shown(label).to_string()),
            ("unsaid", unsaid.to_string()),
        ];
        let (audit, what) = (self.audit.clone(), What::new("turn a device away", with));
        drop(tokio::task::spawn_blocking(move || audit.note(&what, now)));
    }
}

/// As the listener will read it.
fn named(signed: Signed, device: DeviceId) -> Result<Signed, HookError> {
    let leaf = CertificateDer::from_pem_slice(signed.chain_pem.as_bytes()).ok();
    let read = leaf.and_then(|leaf| peer::read_certificate(&leaf).ok());
    if read.is_some_and(|read| read.peer == Peer::Device(device.0)) {
        Ok(signed)
    } else {
        Err(HookError::Garbage { why: "the certificate does not name the device alone".to_owned() })
    }
}
