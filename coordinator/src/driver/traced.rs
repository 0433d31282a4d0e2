//! What the driver tells of its tasks, for traces.

use task::round::{Opened, Opening};

use super::Driver;
use crate::traces::Traces;

impl Driver {
    /// From now on it tells what its tasks do, and first which of them it has taken up. A second time changes nothing.
    pub fn trace(&self, traces: Traces) {
        if self.kept.traces.set(traces).is_err() {
            return;
        }
        if let Some(book) = self.kept.book() {
            for cell in self.tasks.all().iter() {
                cell.look(|task| book.takes_up(task));
            }
        }
    }

    /// Traces, where it tells of its tasks.
    pub fn traces(&self) -> Option<&Traces> {
        self.kept.traces.get()
    }

    /// What opens a sum, and says how that went.
    pub(super) fn opens(&self, opening: Opening) -> impl FnOnce() -> Opened + Send + use<> {
        let mut span = self.kept.book().map(|book| book.opens(opening.session()));
        move || {
            let opened = opening.run();
            if let Some(span) = &mut span {
                span.came(opened.came());
            }
            opened
        }
    }
}
