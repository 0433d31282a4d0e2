//! A coordinator's store in PostgreSQL: an [engine](shell::store::Engine) for [`shell::store::Store`].
//!
//! Records lie in one table, as the same framed bytes as in a folder. A batch is one transaction, `SERIALIZABLE`
//! (`commit.rs` says why), and one whose connection broke at its `COMMIT` is looked for afterwards, so that its caller is told
//! what became of it. Everything that waits has a limit. Start at [`Postgres::open`].

mod address;
mod commit;
mod connect;
mod engine;
mod error;
mod fill;
mod listen;
mod schema;
mod shared;
mod told;

pub use address::{Address, AddressError};
pub use connect::{Plain, Settings};
pub use engine::Postgres;
pub use schema::SCHEMA;
