//! What lies in the database, and how an older form of it becomes this one.
//!
//! Forms are numbered, and each says how old a program may be that still uses it: one step back, so that programs can be replaced one
//! after another. A program takes its own form and the next one, if that says so; an older form it makes its own. It does so in one
//! transaction, under a lock that all programs ask for.

use shell::store::StoreError;
use tokio_postgres::{Client, GenericClient, Transaction};

use crate::error::told;

/// The form that this version writes.
pub const SCHEMA: u32 = 1;

/// A step from one form to the next.
struct Migration {
    /// The form that it makes.
    makes: u32,
    /// The oldest form whose programs may still use it.
    readable_by: u32,
    statements: &'static str,
}

const MIGRATIONS: &[Migration] =
    &[Migration { makes: 1, readable_by: 1, statements: include_str!("schema/1.sql") }];

/// Whoever changes the form holds this lock: "nightshi" as a number.
const LOCK: i64 = 0x6e69_6768_7473_6869;

/// The oldest PostgreSQL.
const LEAST_SERVER: i32 = 130_000;

/// What is there.
#[derive(Debug)]
struct Found {
    schema: u32,
    readable_by: u32,
    cluster: String,
}

/// Makes the database's form this version's, or refuses it, and gives the cluster's id, which was drawn when it was made.
pub(crate) async fn make(client: &mut Client, place: &str) -> Result<String, StoreError> {
    let failed = |error: tokio_postgres::Error| told(place, &error);
    let refused = |why: String| StoreError::Refused { place: place.to_owned(), why };
    let row =
        client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.map_err(failed)?;
    let server: i32 = row.get(0);
    if server < LEAST_SERVER {
        return Err(refused(format!(
            "the server is PostgreSQL {}, and 13 is the oldest that will do",
            server / 10_000
        )));
    }
    // A look first: a database that can only be read, and whose form is right, can be opened.
    if let Some(found) = look(client).await.map_err(failed)?
        && found.schema >= SCHEMA
    {
        return accepted(found).map_err(refused);
    }
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(failed)?;
    let found = look(&transaction).await.map_err(failed)?;
    migrate(&transaction, found.map_or(0, |found| found.schema)).await.map_err(failed)?;
    let found = look(&transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    let found = found.ok_or_else(|| refused("its tables were made and are not there".to_owned()))?;
    accepted(found).map_err(refused)
}

/// Fails where the tables that are there are of a form that this version cannot use.
pub(crate) async fn check(client: &Client, place: &str) -> Result<(), StoreError> {
    match look(client).await.map_err(|error| told(place, &error))? {
        Some(found) if found.schema >= SCHEMA => {
            accepted(found).map(drop).map_err(|why| StoreError::Refused { place: place.to_owned(), why })
        }
        // What is older is made this version's at the next start.
        Some(_) | None => Ok(()),
    }
}

async fn migrate(transaction: &Transaction<'_>, from: u32) -> Result<(), tokio_postgres::Error> {
    for Migration { makes, readable_by, statements } in MIGRATIONS.iter().filter(|step| step.makes > from) {
        transaction.batch_execute(statements).await?;
        for (name, value) in [("schema", makes), ("readable_by", readable_by)] {
            let put = "INSERT INTO nightshift.meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            transaction.execute(put, &[&name, &value.to_string()]).await?;
        }
        tracing::info!(schema = makes, "the form of the database was made");
    }
    Ok(())
}

/// What the database says of itself; nothing where it has no tables of ours. A number that
/// cannot be read is one that nobody takes.
async fn look(client: &impl GenericClient) -> Result<Option<Found>, tokio_postgres::Error> {
    // In the catalog itself: a look-up by name may still know of what was not there before others made it.
    let look = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                WHERE n.nspname = 'nightshift' AND c.relname = 'meta')";
    let row = client.query_one(look, &[]).await?;
    if !row.get::<_, bool>(0) {
        return Ok(None);
    }
    let mut found = Found { schema: 0, readable_by: 0, cluster: String::new() };
    for row in client.query("SELECT name, value FROM nightshift.meta", &[]).await? {
        let (name, value): (String, String) = (row.get(0), row.get(1));
        match name.as_str() {
            "schema" => found.schema = value.parse().unwrap_or(u32::MAX),
            "readable_by" => found.readable_by = value.parse().unwrap_or(u32::MAX),
            "cluster" => found.cluster = value,
            // A later form may say more of itself.
            _ => {}
        }
    }
    Ok(Some(found))
}

fn accepted(Found { schema, readable_by, cluster }: Found) -> Result<String, String> {
    let is_ours = schema == SCHEMA;
    let is_next = schema == SCHEMA + 1 && readable_by <= SCHEMA;
    if cluster.is_empty() {
        return Err("its table nightshift.meta names no cluster; restore the database".to_owned());
    }
    if is_ours || is_next {
        return Ok(cluster);
    }
    Err(format!(
        "its form is number {schema}, readable by programs of form {readable_by} and later, and this program writes form {SCHEMA}; run the \
         version that made it, or a later one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_in_order_and_end_at_this_version_s_form() {
        let made: Vec<u32> = MIGRATIONS.iter().map(|step| step.makes).collect();
        assert_eq!(made, (1..=SCHEMA).collect::<Vec<_>>());
        assert!(MIGRATIONS.iter().all(|step| step.makes - step.readable_by <= 1));
    }

    #[test]
    fn this_form_and_a_next_one_that_is_readable_are_accepted() {
        let found =
            |schema, readable_by| accepted(Found { schema, readable_by, cluster: "c".to_owned() }).is_ok();
        assert!(found(SCHEMA, SCHEMA) && found(SCHEMA + 1, SCHEMA));
        assert!(!found(SCHEMA + 1, SCHEMA + 1) && !found(SCHEMA + 2, SCHEMA) && !found(0, 0));
    }
}
