//! The engine: what a store asks, on a runtime of its own.
//!
//! A caller waits on a channel, so it may be on any thread: one that may block, or, for a moment, one of another runtime.

use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use deadpool_postgres::Object;
use shell::store::{Batch, Engine, Feed, FillError, Kept, Range, Raw, Record, Source, StoreError};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::Row;

use crate::commit::{Plan, commit};
use crate::connect::{Connections, Settings};
use crate::fill::Filling;
use crate::shared::{Shared, Value};
use crate::{listen, schema};

/// Records that are read at a time, of all.
const AT_A_TIME: i64 = 1_000;

/// A database, open.
pub struct Postgres {
    shared: Arc<Shared>,
    cluster: String,
    kept: Option<Kept>,
    /// Given up without waiting when this is dropped, on whatever thread.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, cluster, kept: _, runtime: _ } = self;
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
        let runtime = runtime.map_err(|error| no_thread(&place, &error))?;
        let shared = Arc::new(Shared::new(connections, runtime.handle().clone()));
        let mut opening = Self { shared, cluster: String::new(), kept: None, runtime: Some(runtime) };
        let shared = Arc::clone(&opening.shared);
        opening.cluster = opening.shared.wait(async move {
            let mut client = shared.connections.get().await?;
            let cluster = schema::make(&mut client, &place).await?;
            listen::begin(shared).await?;
            Ok(cluster)
        })?;
        Ok(opening)
    }

    /// Connects, and fails where that or the form of the tables is not as it should be. Changes nothing.
    pub fn look(settings: &Settings) -> Result<(), StoreError> {
        let connections = Connections::new(settings)?;
        let place = connections.place.clone();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| no_thread(&place, &error))?;
        let shared = Arc::new(Shared::new(connections, runtime.handle().clone()));
        let looking =
            Self { shared: Arc::clone(&shared), cluster: String::new(), kept: None, runtime: Some(runtime) };
        looking.shared.wait(async move {
            let client = shared.connections.get().await?;
            schema::check(&client, &place).await
        })
    }

    /// This one, with a place that is kept from others as long as it is open.
    #[must_use]
    pub fn keeping(mut self, kept: Kept) -> Self {
        self.kept = Some(kept);
        self
    }

    /// The id of the cluster whose database it is, which was drawn when its tables were made.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What a statement finds that changes nothing; it is asked again where its connection broke.
    fn asked(&self, statement: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.shared.wait(async move { shared.look(statement, &values).await })
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

fn no_thread(place: &str, error: &std::io::Error) -> StoreError {
    let why = format!("no thread could be made for it: {error}");
    StoreError::Unavailable { place: place.to_owned(), why }
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
        let rows = self.asked(look, vec![Box::new(tree.to_owned()), Box::new(key.to_vec())])?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    fn page(&self, tree: &str, bounds: Range<'_>, most: usize) -> Result<Vec<Record>, StoreError> {
        let (statement, from, to) = range(bounds);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut values: Vec<Value> = vec![Box::new(tree.to_owned()), Box::new(from), Box::new(most)];
        if let Some(to) = to {
            values.push(Box::new(to));
        }
        Ok(self.asked(statement, values)?.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn trees(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.asked("SELECT DISTINCT tree FROM nightshift.records ORDER BY tree", Vec::new())?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn all(&self, visit: &mut dyn FnMut(&Raw) -> ControlFlow<()>) -> Result<(), StoreError> {
        const FIRST: &str = "SELECT tree, key, record FROM nightshift.records ORDER BY tree, key LIMIT $1";
        const NEXT: &str = "SELECT tree, key, record FROM nightshift.records WHERE (tree, key) > ($2, $3) ORDER BY tree, key LIMIT $1";
        let shared = Arc::clone(&self.shared);
        // All of one moment, whatever others write meanwhile.
        let mut client = self.shared.wait(async move {
            let client = shared.connections.get().await?;
            let begun = client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await;
            begun.map_err(|error| shared.connections.told(&error))?;
            Ok(client)
        })?;
        let mut last: Option<(String, Vec<u8>)> = None;
        loop {
            let shared = Arc::clone(&self.shared);
            let mut values: Vec<Value> = vec![Box::new(AT_A_TIME)];
            let statement = last.take().map_or(FIRST, |(tree, key)| {
                values.extend([Box::new(tree) as Value, Box::new(key)]);
                NEXT
            });
            let (back, page) = self.shared.wait(async move {
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
        self.shared.wait(async move {
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
        self.marked(self.shared.wait(async move { commit(&shared.connections, &plan).await }))
    }

    fn fill(&self, source: &mut Source<'_>) -> Result<u64, FillError> {
        if self.is_stopped() {
            return Err(self.stopped().into());
        }
        let mut filling = Filling::begin(&self.shared)?;
        let mut count = 0;
        loop {
            let Some(records) = source() else {
                filling.give_up(&self.shared);
                return Err(FillError::BrokeOff);
            };
            if records.is_empty() {
                break;
            }
            count += records.len() as u64;
            filling = filling.put(&self.shared, records)?;
        }
        self.marked(filling.end(&self.shared))?;
        Ok(count)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        let look = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
        let rows = self.asked(look, Vec::new())?;
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
        let rows = self.asked("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", Vec::new())?;
        let millis = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(self.shared.time.at(u64::try_from(millis).unwrap_or(0)))
    }

    fn feed(&self) -> &Feed {
        &self.shared.feed
    }
}
