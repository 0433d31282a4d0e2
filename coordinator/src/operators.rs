//! Who may operate the coordinator: certificates that are known by their serial numbers, and can be revoked.
//!
//! The coordinator makes one for whoever can read its state folder, and looks at it at the start and while it serves.
//! Another is made only where that one ends soon, is revoked or gone, or where an operator asks for a new one: whoever can
//! read the folder is an operator, whatever was revoked.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use proto::admin::OperatorStatus;
use proto::ids::Serial;
use ring::rand::SystemRandom;
use shell::store::{Batch, Store, StoreError};

use crate::peer::{self, AdminName, Certified, Peer};
use crate::pki::{Authority, Identity, PkiError, Validity};
use crate::records::{self, OperatorRecord, RecordError};

/// Why an operator has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OperatorsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds is not what it should.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The certificate could not be made or written.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What was made has no number of ours.
    #[error("the certificate that was made cannot be read")]
    Unreadable,
}

/// The certificates of operators.
#[derive(Debug)]
pub struct Operators {
    store: Store,
    /// Known and not revoked.
    good: RwLock<BTreeSet<Serial>>,
}

impl Operators {
    /// Reads who may operate.
    pub fn open(store: Store) -> Result<Self, OperatorsError> {
        let known = records::operators(&store)?;
        let good =
            known.iter().filter(|operator| !operator.revoked).map(|operator| operator.serial).collect();
        Ok(Self { store, good: RwLock::new(good) })
    }

    /// Whether a certificate with this number is known, and was not revoked.
    pub fn admits(&self, serial: Serial) -> bool {
        // A set is whole after each change.
        self.good.read().unwrap_or_else(PoisonError::into_inner).contains(&serial)
    }

    /// All certificates, the newest first.
    pub fn list(&self) -> Result<Vec<OperatorStatus>, OperatorsError> {
        let mut operators = records::operators(&self.store)?;
        operators.sort_by_key(|operator| std::cmp::Reverse((operator.issued_unix_secs, operator.serial)));
        Ok(operators)
    }

    /// Makes sure that `folder` holds a certificate and a key of an operator called `name` whose end is not `due`; says
    /// whether they are new.
    pub fn ensure(
        &self,
        folder: &Path,
        name: &AdminName,
        authority: &Authority,
        (validity, is_due): (Validity, &dyn Fn(u64) -> bool),
    ) -> Result<bool, OperatorsError> {
        // What cannot be loaded is replaced.
        if let Ok(identity) = Identity::load(folder, name.as_str())
            && identity.authority() == Some(authority.certificate())
            && let Some(Ok(certified)) = identity.chain().first().map(|der| peer::read_certificate(der))
            && certified.peer == Peer::Admin(name.clone())
            && certified.serial.is_some_and(|serial| self.admits(serial))
            && !is_due(certified.not_after_unix_secs)
        {
            return Ok(false);
        }
        let identity = authority.issue_admin(name, validity, &SystemRandom::new())?;
        let certificate = identity.chain().first().ok_or(OperatorsError::Unreadable)?;
        let (serial, batch) = record(certificate, validity)?;
        // Written first: one that cannot be is not good for anything either.
        identity.save(folder, name.as_str())?;
        self.store.commit_blocking(&batch)?;
        self.add(serial);
        Ok(true)
    }

    /// Vouches for a new key of the operator called `name`: the certificate and its authority's, in PEM.
    pub async fn sign(
        &self,
        request_pem: &str,
        name: &AdminName,
        authority: &Authority,
        validity: Validity,
    ) -> Result<String, OperatorsError> {
        let certificate = authority.sign_admin(request_pem, name, validity, &SystemRandom::new())?;
        let (serial, batch) = record(&certificate, validity)?;
        self.store.commit(batch).await?;
        self.add(serial);
        Ok(authority.chain_pem(&certificate))
    }

    /// Makes a certificate worthless, for ever; `false` when it is not known, or was worthless before. Blocks.
    pub fn revoke(&self, serial: Serial) -> Result<bool, OperatorsError> {
        let is_new = records::revoke_operator(&self.store, serial)?;
        self.good.write().unwrap_or_else(PoisonError::into_inner).remove(&serial);
        Ok(is_new)
    }

    fn add(&self, serial: Serial) {
        self.good.write().unwrap_or_else(PoisonError::into_inner).insert(serial);
    }
}

/// What is written down of a certificate.
fn record(certificate: &[u8], validity: Validity) -> Result<(Serial, Batch), OperatorsError> {
    let Ok(Certified { peer: Peer::Admin(name), serial: Some(serial), .. }) =
        peer::read_certificate(certificate)
    else {
        return Err(OperatorsError::Unreadable);
    };
    let record = OperatorRecord {
        name: name.to_string(),
        issued_unix_secs: validity.not_before_unix_secs,
        expires_unix_secs: validity.not_after_unix_secs,
        revoked: false,
    };
    let mut batch = Batch::new();
    records::insert_operator(&mut batch, serial, &record)?;
    Ok((serial, batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 24 * 3600;
    const NOW: u64 = 1_800_000_000;

    fn year_from(not_before_unix_secs: u64) -> Validity {
        Validity { not_before_unix_secs, not_after_unix_secs: not_before_unix_secs + YEAR }
    }

    fn serial(folder: &Path) -> Serial {
        let identity = Identity::load(folder, "operator").unwrap();
        peer::read_certificate(&identity.chain()[0]).unwrap().serial.unwrap()
    }

    #[test]
    fn a_certificate_is_used_again_until_it_ends_soon_or_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let store = Store::open(&path.join("store")).unwrap();
        let authority = Authority::open_or_create(path, year_from(NOW)).unwrap();
        let name: AdminName = "operator".parse().unwrap();
        let ensure = |operators: &Operators, now| {
            operators
                .ensure(path, &name, &authority, (year_from(now), &|end| end < now + 122 * 24 * 3600))
                .unwrap()
        };
        let operators = Operators::open(store.clone()).unwrap();
        assert!(ensure(&operators, NOW));
        let first = serial(path);
        assert!(!ensure(&operators, NOW + 1), "a restart makes no other");
        assert!(!ensure(&Operators::open(store.clone()).unwrap(), NOW + YEAR / 2));
        assert_eq!((serial(path), operators.list().unwrap().len()), (first, 1));
        // Less than a third is left.
        assert!(ensure(&operators, NOW + YEAR * 3 / 4));
        let second = serial(path);
        assert!(operators.admits(first) && operators.admits(second));

        assert!(operators.revoke(second).unwrap());
        assert!(!operators.admits(second) && !Operators::open(store.clone()).unwrap().admits(second));
        assert!(!operators.revoke(Serial([1; 16])).unwrap());
        // A key without its certificate is of no use.
        let another = tempfile::tempdir().unwrap();
        authority
            .issue_admin(&name, year_from(NOW), &SystemRandom::new())
            .unwrap()
            .save(another.path(), "operator")
            .unwrap();
        std::fs::copy(another.path().join("operator.key"), path.join("operator.key")).unwrap();
        assert!(Identity::load(path, "operator").is_err());
        // Whoever can read the state folder is an operator again at the next start.
        assert!(ensure(&operators, NOW + YEAR * 3 / 4));
        assert_eq!(operators.list().unwrap().len(), 3);
        assert!(!operators.admits(Serial([1; 16])), "a certificate that nobody wrote down");
    }
}
