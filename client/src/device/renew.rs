//! How a device that runs renews its certificate.

use session::{Event, Lifetime};

use super::run::Running;
use crate::enrollment::{EnrollmentError, renew};
use crate::error::Error;

impl Running {
    /// Asks for the next certificate, and connects with it from now on.
    pub(super) async fn renew(&mut self, has_certificate: bool) -> Result<Event, Error> {
        let renewed = renew(self.store.folder(), &self.store, &self.transport, has_certificate).await;
        let renewed = match renewed {
            Ok(renewed) => renewed,
            Err(EnrollmentError::Transport(error)) => return Ok(self.failure(error)),
            // A full disk, or a key that cannot be read now, is no reason to end where the certificate is still good.
            Err(error) => {
                self.trouble(&error.to_string());
                return Ok(Event::Unreachable);
            }
        };
        self.bases.connect_by(renewed.transport.clone());
        self.transport = renewed.transport;
        self.live.keeps(&self.store)?;
        let Lifetime { issued_unix_secs, .. } = renewed.lifetime;
        self.live.note("renewed", "the certificate by which it connects");
        Ok(Event::Renewed { credential: renewed.credential, issued_unix_secs })
    }
}
