//! A batch as one transaction, and what became of it.
//!
//! It is `SERIALIZABLE`. Row locks would not do: a batch may expect that a key has *no* record, there is no row to lock then, and two
//! batches that each expect the other's key to be absent would both be taken. Locks by hand on every key would do, but a batch has up
//! to thousands of keys, and the server's table of locks is small. So the server finds out who was in whose way (SSI); whoever was is
//! told 40001 and tries again, with pauses that are drawn, a bounded number of times. Keys are read and written in their order, so
//! that deadlocks are rare; they are tried again too.
//!
//! A connection may break at `COMMIT`, when the answer is on its way. So a transaction writes a random id. Whoever lost the answer
//! writes the same id as one that will never be: the server has that wait for a transaction which is still at it, and then either there
//! was one that committed, or there can be none any more. Who cannot even do that says that the store stopped.
#![expect(clippy::disallowed_methods, reason = "IO shell: waits, and knows when to give up")]

use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use ring::rand::{SecureRandom, SystemRandom};
use shell::store::{Batch, Change, Expected, StoreError, Write};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;

use crate::connect::Connections;
use crate::error::{is_for_again, is_undone};
use crate::told::{CHANNEL, said};

/// How often a batch is tried.
const MOST_TRIES: u32 = 40;

/// Between two looks at what became of a transaction.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a transaction is known by.
type Id = [u8; 16];

type Trees = Vec<&'static str>;
type Keys = Vec<Vec<u8>>;

/// A batch by columns, each part in the order of trees and keys.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    expected: (Trees, Keys, Vec<Option<Vec<u8>>>),
    put: (Trees, Keys, Vec<Vec<u8>>),
    removed: (Trees, Keys),
    said: String,
}

impl Plan {
    pub(crate) fn of(batch: &Batch) -> Self {
        let mut plan = Self { said: said(&Change::of(batch)), ..Self::default() };
        for (tree, key, step) in batch.steps() {
            let key = || key.as_bytes().to_vec();
            let mut expect = |record| {
                plan.expected.0.push(tree);
                plan.expected.1.push(key());
                plan.expected.2.push(record);
            };
            match &step.expected {
                None => {}
                Some(Expected::Absent) => expect(None),
                Some(Expected::Record(record)) => expect(Some(record.clone())),
            }
            match &step.write {
                None => {}
                Some(Write::Put(record)) => {
                    plan.put.0.push(tree);
                    plan.put.1.push(key());
                    plan.put.2.push(record.clone());
                }
                Some(Write::Remove) => {
                    plan.removed.0.push(tree);
                    plan.removed.1.push(key());
                }
            }
        }
        plan
    }

    fn writes(&self) -> bool {
        !self.put.0.is_empty() || !self.removed.0.is_empty()
    }
}

/// How a try came to nothing.
#[derive(Debug)]
enum Failed {
    /// Nothing was changed, and the same may do well at once.
    Again(StoreError),
    /// Nothing was changed.
    Known(StoreError),
    /// Nobody knows.
    Unknown,
}

/// Commits a batch; `Stopped` where nobody knows whether it was.
pub(crate) async fn commit(connections: &Connections, plan: &Plan) -> Result<(), StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match attempt(connections, plan).await {
            Ok(()) => return Ok(()),
            Err(Failed::Again(error)) => error,
            Err(Failed::Known(error)) => return Err(error),
            Err(Failed::Unknown) => return Err(stopped(connections)),
        };
        if tries == MOST_TRIES {
            return Err(error);
        }
        sleep(pause(tries)).await;
    }
}

/// That nobody knows what became of a transaction.
fn stopped(connections: &Connections) -> StoreError {
    StoreError::Stopped { path: connections.place.clone().into() }
}

/// A pause that gets longer, up to a quarter of a second, of which the half is drawn.
fn pause(tries: u32) -> Duration {
    let most = (2_u64 << tries.min(7)).min(250);
    let [drawn, ..] = random();
    Duration::from_millis(most / 2 + most * u64::from(drawn) / 512)
}

fn random() -> Id {
    let mut id = Id::default();
    // Where the system has no randomness, an id that was used is refused by the table, and the batch with it.
    if SystemRandom::new().fill(&mut id).is_err() {
        tracing::error!("the system gave no randomness");
    }
    id
}

/// Writes a new id down in a transaction, and what it says to those who listen. They hear it once it is committed.
async fn write_id(connections: &Connections, client: &Object, said: &str) -> Result<Id, Broken> {
    let id = random();
    let put = "INSERT INTO nightshift.commits (id, is_done) VALUES ($1, true)";
    ask(connections, client, put, &[&id.as_slice()]).await?;
    ask(connections, client, "SELECT pg_notify($1, $2)", &[&CHANNEL, &said]).await?;
    Ok(id)
}

/// A statement that failed.
struct Broken {
    error: StoreError,
    is_for_again: bool,
}

/// One statement, with a limit.
async fn ask(
    connections: &Connections,
    client: &Object,
    statement: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<tokio_postgres::Row>, Broken> {
    let answer = async {
        let prepared = client.prepare_cached(statement).await?;
        client.query(&prepared, values).await
    };
    match timeout(connections.answer, answer).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(Broken { error: connections.told(&error), is_for_again: is_for_again(&error) }),
        Err(_) => Err(Broken { error: connections.silent(), is_for_again: false }),
    }
}

async fn attempt(connections: &Connections, plan: &Plan) -> Result<(), Failed> {
    let client = connections.get().await.map_err(Failed::Known)?;
    match within(connections, &client, plan).await {
        Ok(id) => end(connections, client, id).await,
        Err(failed) => {
            // Back to the others only where it is certain that it holds no transaction any more.
            let undone = timeout(connections.answer, client.batch_execute("ROLLBACK")).await;
            if !matches!(undone, Ok(Ok(()))) {
                drop(Object::take(client));
            }
            Err(failed)
        }
    }
}

/// All of a transaction but its end; gives its id, where it changes anything.
async fn within(connections: &Connections, client: &Object, plan: &Plan) -> Result<Option<Id>, Failed> {
    let failed = |Broken { error, is_for_again }| {
        if is_for_again { Failed::Again(error) } else { Failed::Known(error) }
    };
    begin(connections, client, "BEGIN ISOLATION LEVEL SERIALIZABLE").await.map_err(failed)?;
    let (trees, keys, records) = &plan.expected;
    if !trees.is_empty() {
        let look = "SELECT r.record FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS t(tree, key, place) \
                    LEFT JOIN nightshift.records r ON r.tree = t.tree AND r.key = t.key ORDER BY t.place";
        let found = ask(connections, client, look, &[trees, keys]).await.map_err(failed)?;
        for (((tree, key), expected), row) in trees.iter().zip(keys).zip(records).zip(&found) {
            if row.get::<_, Option<&[u8]>>(0) != expected.as_deref() {
                return Err(Failed::Known(StoreError::conflict(tree, key)));
            }
        }
    }
    let (trees, keys, records) = &plan.put;
    if !trees.is_empty() {
        let put = "INSERT INTO nightshift.records (tree, key, record) SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[]) \
                   ON CONFLICT (tree, key) DO UPDATE SET record = excluded.record";
        ask(connections, client, put, &[trees, keys, records]).await.map_err(failed)?;
    }
    let (trees, keys) = &plan.removed;
    if !trees.is_empty() {
        let remove = "DELETE FROM nightshift.records r USING unnest($1::text[], $2::bytea[]) AS t(tree, key) \
                      WHERE r.tree = t.tree AND r.key = t.key";
        ask(connections, client, remove, &[trees, keys]).await.map_err(failed)?;
    }
    if !plan.writes() {
        return Ok(None);
    }
    write_id(connections, client, &plan.said).await.map(Some).map_err(failed)
}

async fn begin(connections: &Connections, client: &Object, statement: &str) -> Result<(), Broken> {
    match timeout(connections.answer, client.batch_execute(statement)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Broken { error: connections.told(&error), is_for_again: is_for_again(&error) }),
        Err(_) => Err(Broken { error: connections.silent(), is_for_again: false }),
    }
}

/// Ends a transaction, and finds out whether it did.
async fn end(connections: &Connections, client: Object, id: Option<Id>) -> Result<(), Failed> {
    let broke = match timeout(connections.answer, client.batch_execute("COMMIT")).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) if is_undone(&error) => {
            drop(Object::take(client));
            let told = connections.told(&error);
            return Err(if is_for_again(&error) { Failed::Again(told) } else { Failed::Known(told) });
        }
        Ok(Err(error)) => connections.told(&error),
        Err(_) => connections.silent(),
    };
    drop(Object::take(client));
    // What changes nothing may be done again, whatever became of it.
    let Some(id) = id else { return Err(Failed::Again(broke)) };
    match became(connections, &id).await {
        Some(true) => Ok(()),
        Some(false) => Err(Failed::Again(broke)),
        None => Err(Failed::Unknown),
    }
}

/// Whether the transaction of this id was committed; if not, it never will be. `None` where nobody can say.
async fn became(connections: &Connections, id: &Id) -> Option<bool> {
    let until = Instant::now() + connections.patience;
    loop {
        if let Ok(client) = connections.get().await {
            let never =
                "INSERT INTO nightshift.commits (id, is_done) VALUES ($1, false) ON CONFLICT (id) DO NOTHING";
            let look = "SELECT is_done FROM nightshift.commits WHERE id = $1";
            // In this order: the first waits for a transaction that is still at it.
            let said = async {
                ask(connections, &client, never, &[&id.as_slice()]).await?;
                ask(connections, &client, look, &[&id.as_slice()]).await
            };
            match said.await {
                Ok(rows) => {
                    if let Some(row) = rows.first() {
                        let is_done = row.get(0);
                        tracing::warn!(
                            is_done,
                            "a connection broke while a transaction ended, and what became of it was found"
                        );
                        return Some(is_done);
                    }
                }
                Err(Broken { error, .. }) => {
                    tracing::warn!(%error, "nobody says yet what became of a transaction");
                    drop(Object::take(client));
                }
            }
        }
        if Instant::now() >= until {
            return None;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Ends a transaction that somebody brought so far; tries nothing again.
pub(crate) async fn ended(connections: &Connections, client: Object, said: &str) -> Result<(), StoreError> {
    let id = match write_id(connections, &client, said).await {
        Ok(id) => id,
        Err(Broken { error, .. }) => {
            drop(Object::take(client));
            return Err(error);
        }
    };
    end(connections, client, Some(id)).await.map_err(|failed| match failed {
        Failed::Again(error) | Failed::Known(error) => error,
        Failed::Unknown => stopped(connections),
    })
}
