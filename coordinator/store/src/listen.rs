//! What others commit, as the server tells it, on a connection beside the pool.
//!
//! While that is broken, nobody tells anything: so whoever follows is told to read all again when it is back. Whoever listens also
//! sweeps, now and then, what is no longer asked for.
#![expect(clippy::disallowed_methods, reason = "IO shell: a task that listens as long as the store is open")]

use std::sync::{Arc, Weak};
use std::time::Duration;

use shell::store::{Change, StoreError};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};

use crate::shared::Shared;
use crate::told::{CHANNEL, heard};

/// How often the server is asked whether it is still there: a connection that went away in silence tells nothing.
const LOOK: Duration = Duration::from_secs(15);

/// How long it is waited before it is connected to again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Looks between two sweeps: some ten minutes.
const SWEEP_EVERY: u32 = 40;

/// Listens from now on, as long as the store is open.
pub(crate) async fn begin(shared: Arc<Shared>) -> Result<(), StoreError> {
    let listening = Listening::new(&shared).await?;
    tokio::spawn(go_on(Arc::downgrade(&shared), listening));
    Ok(())
}

struct Listening {
    client: Client,
    driven: JoinHandle<()>,
}

impl Listening {
    async fn new(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let tells = Arc::downgrade(shared);
        let hears = move |message| {
            // Notices are the server's, and not ours to read.
            if let (AsyncMessage::Notification(said), Some(shared)) = (message, tells.upgrade()) {
                shared.feed.tell(&heard(said.payload()));
            }
        };
        let (client, connection) = shared.connections.apart(hears).await?;
        let driven = tokio::spawn(connection);
        let asked =
            timeout(shared.connections.answer, client.batch_execute(&format!("LISTEN {CHANNEL}"))).await;
        match asked {
            Ok(Ok(())) => Ok(Self { client, driven }),
            Ok(Err(error)) => Err(shared.connections.told(&error)),
            Err(_) => Err(shared.connections.silent()),
        }
    }

    /// Returns when the connection broke or the store was closed.
    async fn until_broken(mut self, shared: &Weak<Shared>) {
        let mut looks = 0;
        loop {
            tokio::select! {
                _ = &mut self.driven => return,
                () = sleep(LOOK) => {}
            }
            let Some(shared) = shared.upgrade() else { break };
            looks += 1;
            if looks % SWEEP_EVERY == 1 {
                sweep(&shared, &self.client).await;
            }
            let is_there = timeout(shared.connections.answer, self.client.batch_execute("SELECT 1")).await;
            if !matches!(is_there, Ok(Ok(()))) {
                break;
            }
        }
        self.driven.abort();
    }
}

/// Removes ids of transactions that nobody looks for any more.
async fn sweep(shared: &Shared, client: &Client) {
    let sweep = "DELETE FROM nightshift.commits WHERE at < now() - interval '1 hour'";
    let swept = timeout(shared.connections.answer, client.execute(sweep, &[])).await;
    if let Ok(Err(error)) = swept {
        let error = shared.connections.told(&error);
        tracing::warn!(%error, "ids of old transactions stay for now");
    }
}

async fn go_on(shared: Weak<Shared>, mut listening: Listening) {
    loop {
        listening.until_broken(&shared).await;
        let mut wait = AGAIN.0;
        listening = loop {
            let Some(open) = shared.upgrade() else { return };
            match Listening::new(&open).await {
                Ok(listening) => break listening,
                Err(error) => tracing::warn!(%error, "nobody tells what others commit"),
            }
            drop(open);
            sleep(wait).await;
            wait = (2 * wait).min(AGAIN.1);
        };
        if let Some(open) = shared.upgrade() {
            open.feed.tell(&[Change::Everything]);
        }
    }
}
