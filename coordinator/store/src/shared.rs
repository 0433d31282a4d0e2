//! What a database that is open has, for all who ask it.
//!
//! It is asked on a runtime of its own. Who asks waits on a channel, and so may be on any thread.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use deadpool_postgres::Object;
use shell::store::{Feed, Forward, StoreError};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::connect::Connections;

/// How often a look that failed with its connection is repeated.
const LOOKS: u32 = 3;

/// A value in a statement.
pub(crate) type Value = Box<dyn ToSql + Sync + Send>;

/// What all who ask share.
pub(crate) struct Shared {
    pub(crate) connections: Connections,
    pub(crate) feed: Feed,
    pub(crate) is_stopped: AtomicBool,
    pub(crate) time: Forward,
    runtime: Handle,
}

impl Shared {
    pub(crate) fn new(connections: Connections, runtime: Handle) -> Self {
        let is_stopped = AtomicBool::new(false);
        Self { connections, feed: Feed::default(), is_stopped, time: Forward::default(), runtime }
    }

    /// Does something on the runtime, and waits for it, on whatever thread.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, answer) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Whoever asked always waits.
            drop(done.send(work.await));
        });
        answer.recv().unwrap_or_else(|_| {
            let place = self.connections.place.clone();
            Err(StoreError::Unavailable { place, why: "what was asked broke off; start again".to_owned() })
        })
    }

    pub(crate) async fn look(
        &self,
        statement: &'static str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let mut looks = 1;
        loop {
            let client = self.connections.get().await?;
            match self.look_by(&client, statement, values).await {
                Ok(rows) => return Ok(rows),
                Err(error) => {
                    let is_closed = client.is_closed();
                    // One that is silent, or has ended, is nobody's any more.
                    drop(Object::take(client));
                    if !is_closed || looks == LOOKS {
                        return Err(error);
                    }
                    looks += 1;
                }
            }
        }
    }

    /// The same by one connection, which is to be given up where this fails.
    pub(crate) async fn look_by(
        &self,
        client: &Object,
        statement: &'static str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        let answer = async {
            let prepared = client.prepare_cached(statement).await?;
            client.query(&prepared, &values).await
        };
        match timeout(self.connections.answer, answer).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(self.connections.told(&error)),
            Err(_) => Err(self.connections.silent()),
        }
    }
}
