//! The certificates of operators.

use proto::admin::OperatorStatus;
use proto::ids::Serial;
use proto::role::Role;
use serde::{Deserialize, Serialize};
use shell::store::{Batch, Key, Store, StoreError};

use super::form::tree::{LESSER_OPERATORS, OPERATORS};
use super::form::{RecordError, key_part, whole};

/// A certificate of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// The operator's name.
    pub name: String,
    /// When it was made.
    pub issued_unix_secs: u64,
    /// Its last second.
    pub expires_unix_secs: u64,
    /// Whether it is worthless.
    pub revoked: bool,
    /// What its holder may do; an admin where it is of before there were roles.
    #[serde(default)]
    pub role: Role,
}

/// The tree with the certificates of a role.
fn operators_of(role: Role) -> &'static str {
    match role {
        Role::Admin => OPERATORS,
        Role::Viewer | Role::Operator => LESSER_OPERATORS,
    }
}

/// Writes down a certificate of an operator.
pub fn insert_operator(batch: &mut Batch, serial: Serial, record: &OperatorRecord) -> Result<(), StoreError> {
    batch.insert(operators_of(record.role), serial.0, record)?;
    Ok(())
}

/// All certificates of operators, in no telling order, less such as have a damaged record.
pub fn operators(store: &Store) -> Result<Vec<OperatorStatus>, RecordError> {
    let mut operators = Vec::new();
    for tree in [OPERATORS, LESSER_OPERATORS] {
        for item in store.scan_prefix::<OperatorRecord>(tree, &Key::default())? {
            let Some((key, record)) = whole(item)? else { continue };
            operators.push(OperatorStatus {
                serial: Serial(key_part(&key, 0, "operator")?),
                name: record.name,
                issued_unix_secs: record.issued_unix_secs,
                expires_unix_secs: record.expires_unix_secs,
                revoked: record.revoked,
                role: record.role,
            });
        }
    }
    Ok(operators)
}

/// Makes an operator's certificate worthless, for ever; durable when this returns. `false` when it is not known, or was
/// worthless before. Blocks.
pub fn revoke_operator(store: &Store, serial: Serial) -> Result<bool, StoreError> {
    let mut is_new = false;
    for tree in [OPERATORS, LESSER_OPERATORS] {
        let record = whole(store.get::<OperatorRecord>(tree, serial.0))?.flatten();
        if let Some(record) = record.filter(|record| !record.revoked) {
            let mut batch = Batch::new();
            batch.put(tree, serial.0, &OperatorRecord { revoked: true, ..record })?;
            store.commit_blocking(&batch)?;
            is_new = true;
        }
    }
    Ok(is_new)
}
