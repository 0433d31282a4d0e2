//! Runs the long step of a round on a thread of its own, while its task is free for everybody else.

use std::sync::Arc;

use proto::ids::SessionId;
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use task::round::{Opened, Opening};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::Driver;
use super::cell::Cell;
use super::clock::now;

impl Driver {
    /// Opens a sum and brings back what came of it. To be called on a thread where a runtime is known.
    pub(super) fn open_apart(&self, cell: Arc<Cell>, opening: Opening) {
        let (driver, under_way) = (self.clone(), Arc::clone(&self.under_way));
        let (session, open) = (opening.session(), self.opens(opening));
        under_way.send_modify(|openings| *openings += 1);
        let _brought = Handle::current().spawn(async move {
            driver.bring_back(cell, session, open).await;
            // Who waits for the last one may then open the store anew.
            drop(driver);
            under_way.send_modify(|openings| *openings -= 1);
        });
    }

    /// A panic of `open` ends the round and nothing else.
    pub(super) async fn bring_back(
        &self,
        cell: Arc<Cell>,
        session: SessionId,
        open: impl FnOnce() -> Opened + Send + 'static,
    ) {
        // What it worked on is gone with it, so that nobody sees it half done.
        let opened = spawn_blocking(open).await.unwrap_or_else(|_| {
            tracing::error!(task = %cell.id, "opening a sum broke off; its round ends");
            Opened::broken(session)
        });
        let mut hold = cell.hold().await;
        if self.has_failed() || hold.is_broken() {
            return;
        }
        let driver = self.clone();
        let settled = spawn_blocking(move || {
            hold.begin();
            // Also while the disk takes nothing: it is opened only once, and what comes of it waits behind what waits already.
            let outcome = hold.opened(opened, now(), &mut UnwrapErr(SysRng));
            // A refusal was logged by whatever failed.
            driver.settle(&mut hold, outcome).unwrap_or(());
        });
        if let Err(error) = settled.await {
            drop(self.broken(&error.to_string()));
        }
    }
}
