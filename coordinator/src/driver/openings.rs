//! Runs the long step of a round on a thread of its own, while the state is free for everybody else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proto::ids::{SessionId, TaskId};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use task::round::{Opened, Opening};
use tokio::runtime::Handle;

use super::{Driver, now};

impl Driver {
    /// Opens a sum and brings back what came of it. To be called on a thread where a runtime is known.
    pub(super) fn open_apart(&self, task: TaskId, opening: Opening) {
        let (driver, under_way) = (self.clone(), Arc::clone(&self.under_way));
        under_way.send_modify(|openings| *openings += 1);
        Handle::current().spawn_blocking(move || {
            driver.bring_back(task, opening.session(), || opening.run());
            // Who waits for the last one may then open the store anew.
            drop(driver);
            under_way.send_modify(|openings| *openings -= 1);
        });
    }

    /// A panic of `open` ends the round and nothing else.
    pub(super) fn bring_back(&self, task: TaskId, session: SessionId, open: impl FnOnce() -> Opened) {
        // What it worked on is gone with it, so that nobody sees it half done.
        let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
            tracing::error!(%task, "opening a sum broke off; its round ends");
            Opened::broken(session)
        });
        let mut state = self.state.blocking_lock();
        // A refusal was logged by whatever failed.
        self.step_in(&mut state, |state| state.opened(task, opened, now(), &mut UnwrapErr(SysRng)))
            .unwrap_or(());
    }
}
