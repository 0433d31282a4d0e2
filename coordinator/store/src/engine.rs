//! The engine: what a store asks, on a runtime of its own.
//!
//! A caller waits on a channel, so it may be on any thread: one that may block, or, for a moment, one of another runtime.

use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use deadpool_postgres::Object;
use shell::store::{Batch, Engine, Feed, FillError, Forward, Range, Raw, Record, Source, StoreError};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::commit::{Plan, commit};
use crate::connect::{Connections, Settings};
use crate::fill::Filling;
use crate::{listen, schema};

/// How often a look that failed with its connection is repeated.
const LOOKS: u32 = 3;

/// Records that are read at a time, of all.
const AT_A_TIME: i64 = 1_000;

/// A database, open.
pub struct Postgres {
    shared: Arc<Shared>,
    cluster: String,
    /// Given up without waiting when this is dropped, on whatever thread.
    runtime: Option<Runtime>,
}

pub(crate) struct Shared {
    pub(crate) connections: Connections,
    pub(crate) feed: Feed,
    is_stopped: AtomicBool,
    time: Forward,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, cluster, runtime: _ } = self;
        f.debug_struct("Postgres")
            .field("place", &shared.connections.place)
            .field("cluster", cluster)
            .finish_non_exhaustive()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Postgres {
    /// Connects, makes the tables where there are none, and listens to what others commit. Fails where the server is not reached,
    /// does not vouch for itself, or has tables of another form.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let connections = Connections::new(settings)?;
        let place = connections.place.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("nightshift-store")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| StoreError::Unavailable {
            place: place.clone(),
            why: format!("no thread could be made for it: {error}"),
        })?;
        let shared = Arc::new(Shared {
            connections,
            feed: Feed::default(),
            is_stopped: AtomicBool::new(false),
            time: Forward::default(),
        });
        let mut opening = Self { shared, cluster: String::new(), runtime: Some(runtime) };
        let shared = Arc::clone(&opening.shared);
        opening.cluster = opening.wait(async move {
            let mut client = shared.connections.get().await?;
            let cluster = schema::make(&mut client, &place).await?;
            listen::begin(shared).await?;
            Ok(cluster)
        })?;
        Ok(opening)
    }

    /// The id of the cluster whose database it is, which was drawn when its tables were made.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Does something on the runtime, and waits for it.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Unavailable {
            place: self.shared.connections.place.clone(),
            why: "what was asked broke off; start again".to_owned(),
        };
        let (done, answer) = mpsc::sync_channel(1);
        let runtime = self.runtime.as_ref().ok_or_else(gone)?;
        runtime.spawn(async move {
            // Whoever asked always waits.
            drop(done.send(work.await));
        });
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What a statement finds that changes nothing; it is asked again where its connection broke.
    fn look(
        &self,
        statement: &'static str,
        values: Vec<Box<dyn ToSql + Sync + Send>>,
    ) -> Result<Vec<Row>, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.wait(async move { shared.look(statement, &values).await })
    }

    /// Marks that nobody knows what is stored, where that is so.
    fn marked<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(outcome, Err(StoreError::Stopped { .. })) {
            self.shared.is_stopped.store(true, Ordering::Release);
        }
        outcome
    }

    fn stopped(&self) -> StoreError {
        StoreError::Stopped { path: self.place() }
    }
}

impl Shared {
    async fn look(
        &self,
        statement: &'static str,
        values: &[Box<dyn ToSql + Sync + Send>],
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
    async fn look_by(
        &self,
        client: &Object,
        statement: &'static str,
        values: &[Box<dyn ToSql + Sync + Send>],
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

/// The statement for a range, and the key that it ends at.
fn range(range: Range<'_>) -> (&'static str, Vec<u8>, Option<Vec<u8>>) {
    macro_rules! page {
        ($from:literal, $to:literal) => {
            concat!(
                "SELECT key, record FROM nightshift.records WHERE tree = $1 AND key ",
                $from,
                " $2 ",
                $to,
                " ORDER BY tree, key LIMIT $3"
            )
        };
    }
    let (from, to) = range;
    let (is_after, from) = match from {
        Bound::Unbounded => (false, Vec::new()),
        Bound::Included(key) => (false, key.to_vec()),
        Bound::Excluded(key) => (true, key.to_vec()),
    };
    let (statement, to) = match (is_after, to) {
        (false, Bound::Unbounded) => (page!(">=", ""), None),
        (false, Bound::Included(to)) => (page!(">=", "AND key <= $4"), Some(to)),
        (false, Bound::Excluded(to)) => (page!(">=", "AND key < $4"), Some(to)),
        (true, Bound::Unbounded) => (page!(">", ""), None),
        (true, Bound::Included(to)) => (page!(">", "AND key <= $4"), Some(to)),
        (true, Bound::Excluded(to)) => (page!(">", "AND key < $4"), Some(to)),
    };
    (statement, from, to.map(<[u8]>::to_vec))
}

impl Engine for Postgres {
    fn place(&self) -> PathBuf {
        PathBuf::from(&self.shared.connections.place)
    }

    fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let look = "SELECT record FROM nightshift.records WHERE tree = $1 AND key = $2";
        let rows = self.look(look, vec![Box::new(tree.to_owned()), Box::new(key.to_vec())])?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    fn page(&self, tree: &str, bounds: Range<'_>, most: usize) -> Result<Vec<Record>, StoreError> {
        let (statement, from, to) = range(bounds);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut values: Vec<Box<dyn ToSql + Sync + Send>> =
            vec![Box::new(tree.to_owned()), Box::new(from), Box::new(most)];
        if let Some(to) = to {
            values.push(Box::new(to));
        }
        Ok(self.look(statement, values)?.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn trees(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.look("SELECT DISTINCT tree FROM nightshift.records ORDER BY tree", Vec::new())?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn all(&self, visit: &mut dyn FnMut(&Raw) -> ControlFlow<()>) -> Result<(), StoreError> {
        const FIRST: &str = "SELECT tree, key, record FROM nightshift.records ORDER BY tree, key LIMIT $1";
        const NEXT: &str = "SELECT tree, key, record FROM nightshift.records WHERE (tree, key) > ($2, $3) ORDER BY tree, key LIMIT $1";
        let shared = Arc::clone(&self.shared);
        // All of one moment, whatever others write meanwhile.
        let mut client = self.wait(async move {
            let client = shared.connections.get().await?;
            let begun = client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await;
            begun.map_err(|error| shared.connections.told(&error))?;
            Ok(client)
        })?;
        let mut last: Option<(String, Vec<u8>)> = None;
        loop {
            let shared = Arc::clone(&self.shared);
            let mut values: Vec<Box<dyn ToSql + Sync + Send>> = vec![Box::new(AT_A_TIME)];
            let statement = last.take().map_or(FIRST, |(tree, key)| {
                values.extend([Box::new(tree) as Box<dyn ToSql + Sync + Send>, Box::new(key)]);
                NEXT
            });
            let (back, page) = self.wait(async move {
                match shared.look_by(&client, statement, &values).await {
                    Ok(rows) => Ok((client, rows)),
                    Err(error) => {
                        drop(Object::take(client));
                        Err(error)
                    }
                }
            })?;
            client = back;
            let page: Vec<Raw> = page
                .iter()
                .map(|row| Raw { tree: row.get(0), key: row.get(1), record: row.get(2) })
                .collect();
            last = page.last().map(|raw| (raw.tree.clone(), raw.key.clone()));
            let goes_on = page.iter().all(|raw| visit(raw).is_continue());
            if !goes_on || last.is_none() {
                break;
            }
        }
        let shared = Arc::clone(&self.shared);
        self.wait(async move {
            let ended = timeout(shared.connections.answer, client.batch_execute("COMMIT")).await;
            if !matches!(ended, Ok(Ok(()))) {
                drop(Object::take(client));
            }
            Ok(())
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.is_stopped() {
            return Err(self.stopped());
        }
        if batch.is_empty() {
            return Ok(());
        }
        let (shared, plan) = (Arc::clone(&self.shared), Plan::of(batch));
        self.marked(self.wait(async move { commit(&shared.connections, &plan).await }))
    }

    fn fill(&self, source: &mut Source<'_>) -> Result<u64, FillError> {
        if self.is_stopped() {
            return Err(self.stopped().into());
        }
        let mut filling = Filling::begin(self)?;
        let mut count = 0;
        loop {
            let Some(records) = source() else {
                filling.give_up(self);
                return Err(FillError::BrokeOff);
            };
            if records.is_empty() {
                break;
            }
            count += records.len() as u64;
            filling = filling.put(self, records)?;
        }
        self.marked(filling.end(self))?;
        Ok(count)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        let look = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
        let rows = self.look(look, Vec::new())?;
        let why = match rows.first().map(|row| (row.get(0), row.get(1))) {
            Some((true, _)) => {
                "it is a standby, or recovers, and can be read only; name the primary in address"
            }
            Some((false, true)) => "it is set read-only (default_transaction_read_only); set it back",
            Some((false, false)) => return Ok(()),
            None => "it says nothing of itself",
        };
        Err(StoreError::Unavailable { place: self.shared.connections.place.clone(), why: why.to_owned() })
    }

    fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::Acquire)
    }

    fn now_millis(&self) -> Result<u64, StoreError> {
        let rows = self.look("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", Vec::new())?;
        let millis = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(self.shared.time.at(u64::try_from(millis).unwrap_or(0)))
    }

    fn feed(&self) -> &Feed {
        &self.shared.feed
    }
}
