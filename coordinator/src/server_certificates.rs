//! The certificate that the coordinator shows on both listeners, and the one of its operator on this machine: made anew
//! while it serves, so that it need not be started again to be reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::rand::SystemRandom;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::driver;
use crate::enrollment::{CLOCK_SLACK_SECS, Registry};
use crate::operators::OperatorsError;
use crate::peer::AdminName;
use crate::pki::{PkiError, Validity};
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
        let now = driver::now().as_secs();
        let (device, operator) = shown(&registry, &terms, now)?;
        let expires_unix_secs = AtomicU64::new(now + terms.server_secs);
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

    /// Makes them anew when they are due, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut pause = LOOK;
        loop {
            tokio::time::sleep(pause).await;
            let due = due_unix_secs(self.expires_unix_secs(), self.terms.server_secs);
            let now = driver::now().as_secs();
            pause = LOOK.min(Duration::from_secs(due.saturating_sub(now).max(1)));
            if now < due {
                continue;
            }
            let certificates = Arc::clone(&self);
            let made = spawn_blocking(move || certificates.renew(now)).await;
            match made {
                Ok(Ok(())) => tracing::info!("the coordinator's certificate was made anew"),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the coordinator's next certificate could not be made");
                    pause = AGAIN;
                }
                Err(error) => {
                    tracing::error!(%error, "the coordinator's next certificate could not be made");
                    pause = AGAIN;
                }
            }
        }
    }

    /// Makes them anew: connections from now on see them, those that are open go on.
    fn renew(&self, now_unix_secs: u64) -> Result<(), ServerCertificatesError> {
        let (device, operator) = shown(&self.registry, &self.terms, now_unix_secs)?;
        self.device.send_replace(device);
        self.operator.send_replace(operator);
        self.expires_unix_secs.store(now_unix_secs + self.terms.server_secs, Ordering::Relaxed);
        Ok(())
    }
}

/// When a certificate is made anew: when two thirds of its life are over.
fn due_unix_secs(expires_unix_secs: u64, life_secs: u64) -> u64 {
    expires_unix_secs.saturating_sub(life_secs / 3)
}

/// What the listeners for devices and for operators show from then on. The operator is given a certificate where theirs
/// is due.
fn shown(
    registry: &Registry,
    terms: &Terms,
    now_unix_secs: u64,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), ServerCertificatesError> {
    let lasting = |secs: u64| Validity {
        not_before_unix_secs: now_unix_secs.saturating_sub(CLOCK_SLACK_SECS),
        not_after_unix_secs: now_unix_secs + secs,
    };
    let authority = &registry.authority;
    let identity = authority.issue_server(&terms.names, lasting(terms.server_secs), &SystemRandom::new())?;
    let device = tls::server_config(&identity, authority.certificate(), Audience::Devices)?;
    let operators = Audience::Operators(Arc::clone(&registry.operators));
    let operator = tls::server_config(&identity, authority.certificate(), operators)?;
    registry.operators.ensure(&terms.folder, &terms.operator, authority, lasting(terms.operator_secs))?;
    Ok((device, operator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_when_two_thirds_of_its_life_are_over() {
        assert_eq!(due_unix_secs(1_090, 90), 1_060);
    }
}
