//! All records of a file in one transaction: where it fails, there are none.

use std::sync::Arc;

use deadpool_postgres::Object;
use shell::store::{FillError, Raw, StoreError};
use tokio::time::timeout;

use crate::commit::ended;
use crate::shared::Shared;
use crate::told::ANYTHING;

/// A transaction that fills a database, on a connection that nobody else has meanwhile.
pub(crate) struct Filling {
    client: Object,
}

impl Filling {
    /// Keeps everybody else from writing, and fails where there are records.
    pub(crate) fn begin(store: &Arc<Shared>) -> Result<Self, FillError> {
        let shared = Arc::clone(store);
        let (client, is_empty) = store.wait(async move {
            let connections = &shared.connections;
            let client = connections.get().await?;
            let begun = async {
                client.batch_execute("BEGIN; LOCK TABLE nightshift.records IN EXCLUSIVE MODE").await?;
                client.query_one("SELECT NOT EXISTS (SELECT FROM nightshift.records)", &[]).await
            };
            let row = match timeout(connections.answer, begun).await {
                Ok(row) => row.map_err(|error| connections.told(&error)),
                Err(_) => Err(connections.silent()),
            };
            match row {
                Ok(row) => Ok((client, row.get::<_, bool>(0))),
                Err(error) => {
                    drop(Object::take(client));
                    Err(error)
                }
            }
        })?;
        let filling = Self { client };
        if is_empty {
            return Ok(filling);
        }
        filling.give_up(store);
        Err(FillError::NotEmpty)
    }

    /// Puts some records.
    pub(crate) fn put(self, store: &Arc<Shared>, records: Vec<Raw>) -> Result<Self, StoreError> {
        let (shared, Self { client }) = (Arc::clone(store), self);
        let client = store.wait(async move {
            let connections = &shared.connections;
            let (mut trees, mut keys, mut framed) = (Vec::new(), Vec::new(), Vec::new());
            for Raw { tree, key, record } in records {
                trees.push(tree);
                keys.push(key);
                framed.push(record);
            }
            let put = "INSERT INTO nightshift.records (tree, key, record) SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[]) \
                       ON CONFLICT (tree, key) DO UPDATE SET record = excluded.record";
            let done = match timeout(connections.answer, client.execute(put, &[&trees, &keys, &framed])).await {
                Ok(done) => done.map_err(|error| connections.told(&error)),
                Err(_) => Err(connections.silent()),
            };
            match done {
                Ok(_) => Ok(client),
                Err(error) => {
                    drop(Object::take(client));
                    Err(error)
                }
            }
        })?;
        Ok(Self { client })
    }

    /// Makes all of it durable, or nothing.
    pub(crate) fn end(self, store: &Arc<Shared>) -> Result<(), StoreError> {
        let (shared, Self { client }) = (Arc::clone(store), self);
        store.wait(async move { ended(&shared.connections, client, ANYTHING).await })
    }

    /// Leaves the database as it was: the server undoes what a connection that ends had begun.
    pub(crate) fn give_up(self, store: &Arc<Shared>) {
        let Self { client } = self;
        let undone = store.wait(async move {
            if client.batch_execute("ROLLBACK").await.is_err() {
                drop(Object::take(client));
            }
            Ok(())
        });
        if let Err(error) = undone {
            tracing::warn!(%error, "a transaction is left to the server to undo");
        }
    }
}
