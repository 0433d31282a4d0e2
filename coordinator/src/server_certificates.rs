//! The certificate that the coordinator shows on both listeners, and the one of its operator on this machine: made anew
//! while it serves, so that it need not be started again to be reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::files;
use proto::ids::Timestamp;
use ring::rand::SystemRandom;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::audit::{AuditError, What, Who, With};
use crate::driver;
use crate::enrollment::Registry;
use crate::operators::OperatorsError;
use crate::peer::AdminName;
use crate::pki::{IdentityLock, PkiError, Validity, is_due};
use crate::tls::{self, Audience, TlsError};

/// Between two looks at the clock: a machine that slept, or a clock that was set, is noticed.
const LOOK: Duration = Duration::from_secs(10);

/// Before another try, where a certificate could not be made.
const AGAIN: Duration = Duration::from_secs(60);

/// Why a certificate could not be made, used or written.
#[derive(Debug, thiserror::Error)]
pub enum ServerCertificatesError {
    /// It could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS cannot use it.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operator has none.
    #[error(transparent)]
    Operators(#[from] OperatorsError),
    /// That the operator is given one could not be written down.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// For whom and for how long certificates are made.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Where the operator's certificate and key are.
    pub(crate) folder: PathBuf,
    /// Their name.
    pub(crate) operator: AdminName,
    /// How the coordinator is reached.
    pub(crate) names: Vec<String>,
    /// How long its own certificate lasts, in seconds.
    pub(crate) server_secs: u64,
    /// How long the operator's lasts, in seconds.
    pub(crate) operator_secs: u64,
}

/// The certificates that a coordinator shows.
#[derive(Debug)]
pub(crate) struct ServerCertificates {
    registry: Arc<Registry>,
    terms: Terms,
    expires_unix_secs: AtomicU64,
    device: watch::Sender<Arc<ServerConfig>>,
    operator: watch::Sender<Arc<ServerConfig>>,
}

impl ServerCertificates {
    /// Makes the first ones, and sees that the operator has one. Fails when one cannot be made, used or written.
    pub(crate) fn make(registry: Arc<Registry>, terms: Terms) -> Result<Self, ServerCertificatesError> {
        let now = driver::now();
        let (device, operator) = shown(&registry, &terms, now.as_secs())?;
        ensure_operator(&registry, &terms, now)?;
        let expires_unix_secs = AtomicU64::new(now.as_secs() + terms.server_secs);
        let (device, operator) = (watch::Sender::new(device), watch::Sender::new(operator));
        Ok(Self { registry, terms, expires_unix_secs, device, operator })
    }

    /// What the listener for devices shows, now and later.
    pub(crate) fn for_devices(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.device.subscribe()
    }

    /// What the listener for operators shows, now and later.
    pub(crate) fn for_operators(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.operator.subscribe()
    }

    /// When the certificate ends that is shown now.
    pub(crate) fn expires_unix_secs(&self) -> u64 {
        self.expires_unix_secs.load(Ordering::Relaxed)
    }

    /// Makes each anew when it is due, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut pause = LOOK;
        loop {
            tokio::time::sleep(pause).await;
            let certificates = Arc::clone(&self);
            let looked = spawn_blocking(move || certificates.look(driver::now())).await;
            let failed = match looked {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            pause = if failed.is_some() { AGAIN } else { LOOK };
            if let Some(error) = failed {
                tracing::error!(
                    error,
                    "the coordinator's or its operator's next certificate could not be made"
                );
            }
        }
    }

    /// Makes anew what is due: connections from now on see it, those that are open go on. That the operator's cannot be
    /// written keeps nobody from the coordinator's.
    fn look(&self, now: Timestamp) -> Result<(), ServerCertificatesError> {
        let now_unix_secs = now.as_secs();
        if is_due(self.expires_unix_secs(), self.terms.server_secs, now_unix_secs) {
            let (device, operator) = shown(&self.registry, &self.terms, now_unix_secs)?;
            self.device.send_replace(device);
            self.operator.send_replace(operator);
            self.expires_unix_secs.store(now_unix_secs + self.terms.server_secs, Ordering::Relaxed);
            tracing::info!("the coordinator's certificate was made anew");
        }
        ensure_operator(&self.registry, &self.terms, now)
    }
}

/// Sees that the operator on this machine has a certificate that is not due.
fn ensure_operator(
    registry: &Registry,
    Terms { folder, operator, operator_secs, .. }: &Terms,
    now: Timestamp,
) -> Result<(), ServerCertificatesError> {
    let is_due = |expires_unix_secs| is_due(expires_unix_secs, *operator_secs, now.as_secs());
    let validity = Validity::lasting(*operator_secs, now.as_secs());
    if registry.operators.has(folder, operator, &registry.authority, &is_due) {
        return Ok(());
    }
    files::create_folder(folder).map_err(PkiError::File)?;
    // Where somebody is about to put another one there, by `nightshift operator rotate`, it is looked at again later.
    let Some(_lock) = IdentityLock::take(folder, operator.as_str())? else { return Ok(()) };
    if registry.operators.has(folder, operator, &registry.authority, &is_due) {
        return Ok(());
    }
    let what = What::new("make the operator's certificate", [("name", operator.to_string())]);
    let intent = registry.audit.intent(&Who::Coordinator, &what, now)?;
    let made = registry.operators.ensure(folder, operator, &registry.authority, (validity, &is_due));
    let came = made.as_ref().map(drop).map_err(|_| "could not be made");
    registry.audit.outcome(&intent, (came, With::new()), now)?;
    made?;
    tracing::info!(folder = %folder.display(), "the operator's certificate was made anew");
    Ok(())
}

/// What the listeners for devices and for operators show from then on.
fn shown(
    registry: &Registry,
    terms: &Terms,
    now_unix_secs: u64,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), ServerCertificatesError> {
    let authority = &registry.authority;
    let validity = Validity::lasting(terms.server_secs, now_unix_secs);
    let identity = authority.issue_server(&terms.names, validity, &SystemRandom::new())?;
    // Of operators, and of the coordinator itself, nobody else makes certificates.
    let authorities = [std::slice::from_ref(authority.certificate()), registry.hooks.issuer.roots()].concat();
    let device = tls::server_config_of(&identity, &authorities, Audience::Devices)?;
    let operator = tls::server_config(&identity, authority.certificate(), Audience::Operators)?;
    Ok((device, operator))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    /// Four hundred days, looked at twice a day, with lives that differ: at no moment is either over.
    #[tokio::test]
    async fn over_four_hundred_days_neither_certificate_is_ever_over() {
        for (server_days, operator_days) in [(90, 90), (90, 30), (30, 90), (90, 2)] {
            let folder = tempfile::tempdir().unwrap();
            let registry = Arc::new(crate::enrollment::test_registry(folder.path()));
            let terms = Terms {
                folder: folder.path().to_owned(),
                operator: "operator".parse().unwrap(),
                names: Vec::new(),
                server_secs: server_days * DAY,
                operator_secs: operator_days * DAY,
            };
            let certificates = ServerCertificates::make(Arc::clone(&registry), terms).unwrap();
            let begun = driver::now().as_secs();
            let ends = || {
                let identity = crate::pki::Identity::load(folder.path(), "operator").unwrap();
                let read = crate::peer::read_certificate(&identity.chain()[0]).unwrap();
                assert!(registry.operators.admits(read.serial.unwrap()));
                read.not_after_unix_secs
            };
            for half_day in 1..800 {
                let now = begun + half_day * DAY / 2;
                assert!(certificates.expires_unix_secs() > now && ends() > now, "half day {half_day}");
                certificates.look(Timestamp(now * 1000)).unwrap();
                assert!(!is_due(certificates.expires_unix_secs(), server_days * DAY, now));
                assert!(!is_due(ends(), operator_days * DAY, now), "half day {half_day}");
            }
            let made = registry.operators.list().unwrap().len() as u64;
            assert!(made <= 400 * 3 / (2 * operator_days) + 401 / operator_days + 2, "{made}");
            // A clock that was two years ahead, and is right again.
            certificates.look(Timestamp((begun + 800 * DAY) * 1000)).unwrap();
            certificates.look(Timestamp(begun * 1000)).unwrap();
            assert_eq!(certificates.expires_unix_secs(), begun + server_days * DAY);
            assert_eq!(ends(), begun + operator_days * DAY);
        }
    }
}
