//! Who may call the authority: certificates that it made, by their serial numbers. What each may ask is decided by the
//! record, not by what the certificate says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use proto::ids::Serial;
use proto::message::Rejection;
use proto::role::Role;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use serving::peer::{self, AdminName, Peer};
use serving::pki::{Authority, Identity, PkiError, Validity};
use shell::store::{Batch, Key, Store, StoreError};

const CERTIFICATES: &str = "certificates";

/// The name of the operator's certificate and key in the folder: `operator.pem`, `operator.key`.
pub const OPERATOR: &str = "operator";

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A coordinator's: it hands on what devices say.
    Coordinator,
    /// An operator's of the authority.
    Operator,
}

/// What is kept of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// Whose it is.
    pub name: String,
    /// What it is for.
    pub part: Part,
    /// Its last second.
    pub expires_unix_secs: u64,
    /// Whether it is worthless.
    pub revoked: bool,
}

/// The certificates, and who signs them.
#[derive(Debug)]
pub struct Peers {
    store: Store,
    authority: Authority,
    known: RwLock<BTreeMap<Serial, Certified>>,
    /// Changes come one after another.
    turn: Mutex<()>,
}

impl Peers {
    pub(super) fn open(store: Store, authority: Authority) -> Result<Self, StoreError> {
        let mut known = BTreeMap::new();
        for item in store.scan_prefix::<Certified>(CERTIFICATES, &Key::default())? {
            let (key, certified) = item?;
            if let Some(serial) = key.as_bytes().first_chunk() {
                known.insert(Serial(*serial), certified);
            }
        }
        Ok(Self { store, authority, known: RwLock::new(known), turn: Mutex::new(()) })
    }

    /// Who signs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What whoever shows this certificate may ask; nothing where it is not known, was revoked, or names somebody else.
    pub fn part(&self, peer: &Peer, serial: Serial) -> Option<Part> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let certified = known.get(&serial).filter(|certified| !certified.revoked)?;
        let fits = match (peer, certified.part) {
            (Peer::Coordinator(name), Part::Coordinator) | (Peer::Admin(name), Part::Operator) => {
                name.as_str() == certified.name
            }
            (Peer::Coordinator(_), Part::Operator)
            | (Peer::Admin(_), Part::Coordinator)
            | (Peer::Anonymous | Peer::Device(_), _) => false,
        };
        fits.then_some(certified.part)
    }

    /// Signs the request of a coordinator, in PEM: its certificate and the authority's own, in PEM. What was made for this name
    /// before is worthless from then on. Blocks.
    pub fn add_coordinator(
        &self,
        name: &str,
        request_pem: &str,
        validity: Validity,
    ) -> Result<String, Rejection> {
        let refuse = |why: String| Rejection::Unacceptable { request: "add coordinator".into(), why };
        let name: AdminName = name
            .parse()
            .map_err(|_| refuse("a coordinator's name is 1 to 64 of a-z, 0-9, '.', '_', '-'".to_owned()))?;
        let signed = self.authority.sign_coordinator(request_pem, &name, validity, &SystemRandom::new());
        let certificate = signed.map_err(|error| refuse(error.to_string()))?;
        let kept = self.keep(&certificate, (name.as_str(), Part::Coordinator));
        kept.map_err(|error| Rejection::Unavailable(error.to_string()))?;
        tracing::info!(%name, "a coordinator may call");
        Ok(self.authority.chain_pem(&certificate))
    }

    /// Sees that the folder holds a certificate of an operator whose end is not `due`. Blocks.
    pub fn ensure_operator(
        &self,
        folder: &Path,
        (validity, is_due): (Validity, &dyn Fn(u64) -> bool),
    ) -> Result<(), PeersError> {
        if let Ok(identity) = Identity::load(folder, OPERATOR)
            && identity.authority() == Some(self.authority.certificate())
            && let Some(Ok(certified)) = identity.chain().first().map(|der| peer::read_certificate(der))
            && let Some(serial) = certified.serial
            && self.part(&certified.peer, serial) == Some(Part::Operator)
            && !is_due(certified.not_after_unix_secs)
        {
            return Ok(());
        }
        let name: AdminName = OPERATOR.parse().map_err(|_| PeersError::Unreadable)?;
        let made = self.authority.issue_admin((&name, Role::Admin), validity, &SystemRandom::new())?;
        let certificate = made.chain().first().ok_or(PeersError::Unreadable)?;
        // Written first: one that cannot be is not good for anything either.
        made.save(folder, OPERATOR)?;
        self.keep(certificate, (OPERATOR, Part::Operator))?;
        tracing::info!(folder = %folder.display(), "the operator's certificate was made anew");
        Ok(())
    }

    /// Writes a certificate down, in the place of a coordinator's earlier ones.
    fn keep(&self, certificate: &[u8], (name, part): (&str, Part)) -> Result<(), PeersError> {
        let read = peer::read_certificate(certificate).map_err(|_| PeersError::Unreadable)?;
        let serial = read.serial.ok_or(PeersError::Unreadable)?;
        let expires_unix_secs = read.not_after_unix_secs;
        let certified = Certified { name: name.to_owned(), part, expires_unix_secs, revoked: false };
        // One after another, and while the disk takes its time everybody may call.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut next = known.clone();
        next.insert(serial, certified);
        for (other, earlier) in &mut next {
            if *other != serial && earlier.name == name && earlier.part == part && part == Part::Coordinator {
                earlier.revoked = true;
            }
        }
        let mut batch = Batch::new();
        for (serial, certified) in next.iter().filter(|(serial, next)| known.get(serial) != Some(next)) {
            batch.put(CERTIFICATES, serial.0, certified)?;
        }
        self.store.commit_blocking(&batch)?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

/// Why a certificate could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// It could not be made or written.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was made has no name or number of ours.
    #[error("the certificate that was made cannot be read")]
    Unreadable,
}
