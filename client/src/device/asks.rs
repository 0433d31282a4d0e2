//! What a user asks of a device that runs, done between two of its actions.

use super::forget;
use super::live::Ask;
use super::run::Running;

impl Running {
    /// Does what the user asked for meanwhile.
    pub(super) fn answer(&mut self) {
        for ask in self.live.asks() {
            match ask {
                Ask::Forget(task, answer) => {
                    let done = forget::forget(&self.store, task);
                    // Whatever could be deleted: it is written down that the task was left.
                    if forget::forgotten(&self.store).is_ok_and(|forgotten| forgotten.contains(&task)) {
                        self.live.note("forgot", &format!("task {task}"));
                        self.session.forget(task);
                        self.bases.forget(task);
                    }
                    let told = self.live.keeps(&self.store);
                    let _gone = answer.send(done.and_then(|done| told.map(|()| done)));
                }
                Ask::Rejoin(task, answer) => {
                    let done = forget::rejoin(&self.store, task);
                    if done.is_ok() {
                        self.session.rejoin(task);
                    }
                    let told = self.live.keeps(&self.store);
                    let _gone = answer.send(done.and_then(|done| told.map(|()| done)));
                }
            }
        }
    }
}
