//! What is due is closed when it is due, by a timer of each task that is not over: one whose step takes long holds up no other.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Driver;
use super::cell::Cell;
use super::clock::now;

/// The shortest sleep of a timer, so that a clock that stands still costs no processor.
const LEAST_SLEEP_MILLIS: u64 = 5;

impl Driver {
    /// Closes what is due when it is due, for ever.
    pub async fn run_timers(&self) {
        let mut created = self.tasks.created();
        let (mut timers, mut timed) = (JoinSet::new(), 0);
        loop {
            created.mark_unchanged();
            for cell in self.tasks.all().iter().skip(timed) {
                let (driver, cell) = (self.clone(), Arc::clone(cell));
                timers.spawn(async move { driver.run_timer(&cell).await });
                timed += 1;
            }
            tokio::select! {
                changed = created.changed() => if changed.is_err() { return },
                // Of a task that is over.
                Some(_) = timers.join_next() => {}
            }
        }
    }

    /// Until the task is over.
    async fn run_timer(&self, cell: &Arc<Cell>) {
        let mut due = cell.due();
        loop {
            let next = *due.borrow_and_update();
            if cell.seen().is_over {
                return;
            }
            let until_next = async {
                match next {
                    None => pending().await,
                    Some(at) => {
                        let millis = at.millis_since(now()).max(LEAST_SLEEP_MILLIS);
                        sleep(Duration::from_millis(millis)).await;
                    }
                }
            };
            tokio::select! {
                () = until_next => self.close_due(cell).await,
                changed = due.changed() => if changed.is_err() { return },
            }
        }
    }

    pub(super) async fn close_due(&self, cell: &Arc<Cell>) {
        // A refusal was logged by whatever failed, and says when to look again.
        let closed =
            self.step(Arc::clone(cell), |entry| entry.handle_timeout(now(), &mut UnwrapErr(SysRng))).await;
        if closed.is_err() && self.has_failed() {
            pending::<()>().await;
        }
    }
}
