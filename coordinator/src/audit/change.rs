//! A change with its entries before and after it.
#![expect(clippy::disallowed_methods, reason = "IO shell: a change goes on when its caller has gone")]

use proto::message::Rejection;
use tokio::task::{JoinError, spawn_blocking};

use super::words::kind;
use super::{Audit, AuditError, What, Who, With};
use crate::driver::now;

impl Audit {
    /// Writes down what is about to be done, does it, and writes down what came of it, which `came` makes of it. All of it
    /// goes on to its end when the caller has gone. Where an entry cannot be written, `fails` says what the caller is told.
    pub async fn change<T: Send + 'static>(
        &self,
        (who, what): (Who, What),
        change: impl Future<Output = Result<T, Rejection>> + Send + 'static,
        came: impl FnOnce(&T) -> With + Send + 'static,
        fails: impl Fn(AuditError) -> Rejection + Send + Sync + 'static,
    ) -> Result<T, Rejection> {
        let audit = self.clone();
        let all = tokio::spawn(async move {
            let log = audit.clone();
            let intent = spawn_blocking(move || log.intent(&who, &what, now())).await.map_err(broken)?;
            let intent = intent.map_err(&fails)?;
            let done = change.await;
            let outcome = outcome_of(&done, came);
            let written = spawn_blocking(move || audit.outcome(&intent, outcome, now()));
            written.await.map_err(broken)?.map_err(&fails)?;
            done
        });
        all.await.unwrap_or_else(|error| Err(broken(error)))
    }

    /// The same for a change that blocks, on a thread that may.
    pub fn change_here<T>(
        &self,
        (who, what): (Who, What),
        change: impl FnOnce() -> Result<T, Rejection>,
        came: impl FnOnce(&T) -> With,
        fails: impl Fn(AuditError) -> Rejection,
    ) -> Result<T, Rejection> {
        let intent = self.intent(&who, &what, now()).map_err(&fails)?;
        let done = change();
        self.outcome(&intent, outcome_of(&done, came), now()).map_err(fails)?;
        done
    }
}

fn outcome_of<T>(
    done: &Result<T, Rejection>,
    came: impl FnOnce(&T) -> With,
) -> (Result<(), &'static str>, With) {
    match done {
        Ok(value) => (Ok(()), came(value)),
        Err(rejection) => (Err(kind(rejection)), With::new()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn broken(error: JoinError) -> Rejection {
    Rejection::Unavailable(error.to_string())
}
