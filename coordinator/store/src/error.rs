//! What a database says, as what a person can do about it.

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use shell::store::StoreError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// Whether a transaction that failed in this way is to be tried again as a whole.
pub(crate) fn is_for_again(error: &Error) -> bool {
    match error.code() {
        Some(code) => [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code),
        // The connection broke, and with it the transaction.
        None => true,
    }
}

/// Whether the server said that the transaction is over and nothing of it is there. What ends the whole connection may have come
/// after the transaction was written.
pub(crate) fn is_undone(error: &Error) -> bool {
    error.as_db_error().and_then(DbError::parsed_severity) == Some(Severity::Error)
}

/// The same for whoever asked.
pub(crate) fn told(place: &str, error: &Error) -> StoreError {
    let place = place.to_owned();
    let Some(said) = error.as_db_error() else {
        let why =
            format!("the connection failed: {}; look whether the server runs and is reached", chain(error));
        return StoreError::Unavailable { place, why };
    };
    let (passes, what) = what_to_do(said.code());
    // Without its detail, which may hold what is stored.
    let why = format!("{} (SQLSTATE {}); {what}", said.message(), said.code().code());
    if passes { StoreError::Unavailable { place, why } } else { StoreError::Refused { place, why } }
}

/// Whether it passes, by itself or once somebody did something, and what.
fn what_to_do(code: &SqlState) -> (bool, &'static str) {
    const KNOWN: [(&SqlState, bool, &str); 22] = [
        (&SqlState::DISK_FULL, true, "make room on the database server's disk"),
        (
            &SqlState::READ_ONLY_SQL_TRANSACTION,
            true,
            "only the primary can be written, and not while it is set read-only: name it in address",
        ),
        (
            &SqlState::TOO_MANY_CONNECTIONS,
            true,
            "raise max_connections of the server, or lower connections of [store]",
        ),
        (&SqlState::OUT_OF_MEMORY, true, "the database server lacks memory"),
        (&SqlState::CONFIGURATION_LIMIT_EXCEEDED, true, "a limit of the database server is reached"),
        (&SqlState::INSUFFICIENT_RESOURCES, true, "the database server lacks something"),
        (&SqlState::CANNOT_CONNECT_NOW, true, "the server starts, stops or recovers: it is asked again"),
        (&SqlState::ADMIN_SHUTDOWN, true, "the server was stopped: it is asked again"),
        (&SqlState::CRASH_SHUTDOWN, true, "the server crashed and recovers: it is asked again"),
        (&SqlState::QUERY_CANCELED, true, "it took longer than statement_secs, or was canceled"),
        (
            &SqlState::LOCK_NOT_AVAILABLE,
            true,
            "another session holds what is needed for longer than statement_secs",
        ),
        (&SqlState::T_R_SERIALIZATION_FAILURE, true, "too many wrote the same at the same time"),
        (&SqlState::T_R_DEADLOCK_DETECTED, true, "too many wrote the same at the same time"),
        (&SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, true, "this process did not go on in time"),
        (&SqlState::INVALID_PASSWORD, false, "look at password_file, and whether the user may log in"),
        (
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            false,
            "look at pg_hba.conf of the server, and at the user in address",
        ),
        (&SqlState::INVALID_CATALOG_NAME, false, "make the database, owned by the user in address"),
        (
            &SqlState::INSUFFICIENT_PRIVILEGE,
            false,
            "the user in address has to own the database, or its schema nightshift",
        ),
        (&SqlState::UNDEFINED_TABLE, false, "tables of the schema nightshift are gone: restore the database"),
        (
            &SqlState::UNDEFINED_COLUMN,
            false,
            "tables of the schema nightshift were changed: restore the database",
        ),
        (&SqlState::DATA_CORRUPTED, false, "restore the database from a backup"),
        (&SqlState::INDEX_CORRUPTED, false, "reindex or restore the database"),
    ];
    let known = KNOWN.iter().find(|(known, ..)| *known == code);
    known.map_or((false, "look into the log of the database server"), |(_, passes, what)| (*passes, what))
}

/// What the pool says where it gives no connection.
pub(crate) fn no_connection(place: &str, connections: usize, error: &PoolError) -> StoreError {
    let why = match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            return told(place, error);
        }
        PoolError::Timeout(TimeoutType::Wait) => {
            format!(
                "all {connections} connections are in use; raise connections of [store], or look what holds them"
            )
        }
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            "the server does not answer in time; look whether it runs and is reached".to_owned()
        }
        PoolError::Closed | PoolError::NoRuntimeSpecified => "the store is being closed".to_owned(),
        PoolError::PostCreateHook(error) => format!("a connection could not be set up: {error}"),
    };
    StoreError::Unavailable { place: place.to_owned(), why }
}

/// An error with what it came from; the driver's own says nothing of it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
