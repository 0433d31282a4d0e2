//! Who may operate the coordinator, and in which role: certificates that are known by their serial numbers, and can be revoked.
//!
//! The role stands in the certificate, for whoever reads it, and in the coordinator's record of its serial number, which
//! decides: what a certificate says counts for nothing without the record. A name has one role at a time.
//!
//! The coordinator makes one for whoever can read its state folder, and looks at it at the start and while it serves.
//! Another is made only where that one ends soon, is revoked or gone, or where an operator asks for a new one: whoever can
//! read the folder is an admin, whatever was revoked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use proto::admin::OperatorStatus;
use proto::ids::Serial;
use proto::role::Role;
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
    /// Somebody with this name operates already.
    #[error(
        "`{name}` operates already, as {role}, by the certificate {serial}; another role needs another name, or that this \
         certificate is revoked first"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// In which role.
        role: Role,
        /// By which certificate.
        serial: Serial,
    },
    /// Nobody would be left who can make an operator.
    #[error(
        "{0} is the last certificate of an admin: nobody could make another; add an admin first, or replace it by \
         `nightshift operator rotate`"
    )]
    LastAdmin(Serial),
}

/// The certificates of operators.
#[derive(Debug)]
pub struct Operators {
    store: Store,
    /// Known and not revoked, each with its role.
    good: RwLock<BTreeMap<Serial, Role>>,
    /// Who looks whether something may be changed, and then changes it, holds this meanwhile.
    changing: Mutex<()>,
}

impl Operators {
    /// Reads who may operate.
    pub fn open(store: Store) -> Result<Self, OperatorsError> {
        let known = records::operators(&store)?;
        let good = known.iter().filter(|operator| !operator.revoked);
        let good = good.map(|operator| (operator.serial, operator.role)).collect();
        Ok(Self { store, good: RwLock::new(good), changing: Mutex::new(()) })
    }

    /// Whether a certificate with this number is known, and was not revoked.
    pub fn admits(&self, serial: Serial) -> bool {
        self.role(serial).is_some()
    }

    /// What the holder of a certificate may do, by the record of it; `None` where it is not known, or was revoked.
    pub fn role(&self, serial: Serial) -> Option<Role> {
        // A map is whole after each change.
        self.good.read().unwrap_or_else(PoisonError::into_inner).get(&serial).copied()
    }

    /// Whether a certificate that is known was made for this name.
    pub fn is_named(&self, serial: Serial, name: &AdminName) -> Result<bool, OperatorsError> {
        let all = records::operators(&self.store)?;
        Ok(all.iter().any(|operator| operator.serial == serial && operator.name == name.as_str()))
    }

    /// All certificates, the newest first.
    pub fn list(&self) -> Result<Vec<OperatorStatus>, OperatorsError> {
        let mut operators = records::operators(&self.store)?;
        operators.sort_by_key(|operator| std::cmp::Reverse((operator.issued_unix_secs, operator.serial)));
        Ok(operators)
    }

    /// Whether `folder` holds a certificate and a key of an admin called `name` whose end is not `due`. What cannot be loaded
    /// is none.
    pub fn has(
        &self,
        folder: &Path,
        name: &AdminName,
        authority: &Authority,
        is_due: &dyn Fn(u64) -> bool,
    ) -> bool {
        if let Ok(identity) = Identity::load(folder, name.as_str())
            && identity.authority() == Some(authority.certificate())
            && let Some(Ok(certified)) = identity.chain().first().map(|der| peer::read_certificate(der))
        {
            let role = certified.serial.and_then(|serial| self.role(serial));
            certified.peer == Peer::Admin(name.clone())
                && role == Some(Role::Admin)
                && !is_due(certified.not_after_unix_secs)
        } else {
            false
        }
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
        if self.has(folder, name, authority, is_due) {
            return Ok(false);
        }
        let identity = authority.issue_admin((name, Role::Admin), validity, &SystemRandom::new())?;
        let certificate = identity.chain().first().ok_or(OperatorsError::Unreadable)?;
        let (serial, batch) = record(certificate, Role::Admin, validity)?;
        // Written first: one that cannot be is not good for anything either.
        identity.save(folder, name.as_str())?;
        self.store.commit_blocking(&batch)?;
        self.keep(serial, Role::Admin);
        Ok(true)
    }

    /// Vouches for a new key of the operator called `name`, whose role is `role`: the certificate and its authority's, in PEM.
    /// Blocks.
    pub fn sign(
        &self,
        request_pem: &str,
        (name, role): (&AdminName, Role),
        authority: &Authority,
        validity: Validity,
    ) -> Result<String, OperatorsError> {
        let certificate = authority.sign_admin(request_pem, (name, role), validity, &SystemRandom::new())?;
        let (serial, batch) = record(&certificate, role, validity)?;
        self.store.commit_blocking(&batch)?;
        self.keep(serial, role);
        Ok(authority.chain_pem(&certificate))
    }

    /// The same for somebody new; fails where somebody operates by this name. Blocks.
    pub fn add(
        &self,
        request_pem: &str,
        (name, role): (&AdminName, Role),
        authority: &Authority,
        validity: Validity,
        now_unix_secs: u64,
    ) -> Result<String, OperatorsError> {
        let _change = self.change();
        let all = records::operators(&self.store)?;
        let same = |one: &&OperatorStatus| is_good(one, now_unix_secs) && one.name == name.as_str();
        if let Some(taken) = all.iter().find(same) {
            let (role, serial) = (taken.role, taken.serial);
            return Err(OperatorsError::NameTaken { name: taken.name.clone(), role, serial });
        }
        self.sign(request_pem, (name, role), authority, validity)
    }

    /// Holds off every other change of who operates that asks for this too.
    pub fn change(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data, so a poisoned one is as good as another.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where nobody who can make an operator would be left without this certificate.
    pub fn check_not_last(&self, serial: Serial, now_unix_secs: u64) -> Result<(), OperatorsError> {
        let all = records::operators(&self.store)?;
        let mut admins = all.iter().filter(|one| is_good(one, now_unix_secs) && one.role == Role::Admin);
        match (admins.next(), admins.next()) {
            (Some(last), None) if last.serial == serial => Err(OperatorsError::LastAdmin(serial)),
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    /// Makes a certificate worthless, for ever; `false` when it is not known, or was worthless before. Blocks.
    pub fn revoke(&self, serial: Serial) -> Result<bool, OperatorsError> {
        let is_new = records::revoke_operator(&self.store, serial)?;
        self.good.write().unwrap_or_else(PoisonError::into_inner).remove(&serial);
        Ok(is_new)
    }

    fn keep(&self, serial: Serial, role: Role) {
        self.good.write().unwrap_or_else(PoisonError::into_inner).insert(serial, role);
    }
}

fn is_good(operator: &OperatorStatus, now_unix_secs: u64) -> bool {
    !operator.revoked && operator.expires_unix_secs > now_unix_secs
}

/// What is written down of a certificate.
fn record(certificate: &[u8], role: Role, validity: Validity) -> Result<(Serial, Batch), OperatorsError> {
    // What it says and what is written down of it are one.
    let Ok(Certified { peer: Peer::Admin(name), serial: Some(serial), role: Some(said), .. }) =
        peer::read_certificate(certificate)
    else {
        return Err(OperatorsError::Unreadable);
    };
    if said != role {
        return Err(OperatorsError::Unreadable);
    }
    let record = OperatorRecord {
        name: name.to_string(),
        issued_unix_secs: validity.not_before_unix_secs,
        expires_unix_secs: validity.not_after_unix_secs,
        revoked: false,
        role,
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
            .issue_admin((&name, Role::Admin), year_from(NOW), &SystemRandom::new())
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

    fn request() -> String {
        Identity::request().unwrap().1
    }

    fn serial_in(pem: &str) -> Serial {
        let (key, _) = Identity::request().unwrap();
        key.with_chain(pem).unwrap().serial().unwrap()
    }

    #[test]
    fn the_record_decides_what_a_certificate_may_and_a_restart_knows_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let authority = Authority::open_or_create(folder.path(), year_from(NOW)).unwrap();
        let operators = Operators::open(store.clone()).unwrap();
        let mut made = Vec::new();
        for role in Role::ALL {
            let name: AdminName = format!("the-{role}").parse().unwrap();
            let add = || operators.add(&request(), (&name, role), &authority, year_from(NOW), NOW);
            let pem = add().unwrap();
            made.push((serial_in(&pem), role));
            assert!(matches!(add(), Err(OperatorsError::NameTaken { role: has, .. }) if has == role));
        }
        for operators in [operators, Operators::open(store.clone()).unwrap()] {
            for (serial, role) in &made {
                assert_eq!(operators.role(*serial), Some(*role));
            }
            let listed = operators.list().unwrap();
            assert_eq!(listed.len(), 3);
            assert!(listed.iter().all(|one| made.contains(&(one.serial, one.role))));
        }
        // A coordinator of before there were roles reads the tree of admins only.
        let of_old = store.scan_prefix::<OperatorRecord>("operators", &shell::store::Key::default()).unwrap();
        assert_eq!(of_old.map(|item| item.unwrap().1.role).collect::<Vec<_>>(), [Role::Admin]);
    }

    #[test]
    fn a_record_of_before_there_were_roles_is_an_admins() {
        let text = r#"{"name":"operator","issued_unix_secs":1,"expires_unix_secs":2,"revoked":false}"#;
        assert_eq!(serde_json::from_str::<OperatorRecord>(text).unwrap().role, Role::Admin);
    }

    #[test]
    fn the_last_admin_who_can_still_come_is_known_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let authority = Authority::open_or_create(folder.path(), year_from(NOW)).unwrap();
        let operators = Operators::open(store).unwrap();
        let add = |name: &str, role, at| {
            let name: AdminName = name.parse().unwrap();
            serial_in(&operators.add(&request(), (&name, role), &authority, year_from(at), at).unwrap())
        };
        let first = add("owl", Role::Admin, NOW);
        let viewer = add("bat", Role::Viewer, NOW);
        let last = |serial, now| matches!(operators.check_not_last(serial, now), Err(OperatorsError::LastAdmin(one)) if one == serial);
        assert!(last(first, NOW) && !last(viewer, NOW));
        let second = add("fox", Role::Admin, NOW + YEAR / 2);
        assert!(!last(first, NOW) && !last(second, NOW));
        // The first one has ended.
        assert!(last(second, NOW + YEAR) && !last(first, NOW + YEAR));
        operators.revoke(first).unwrap();
        assert!(last(second, NOW));
    }
}
