//! The records of an enrollment authority, its key, and the one place where anything is stated of a device.
//!
//! | tree | key | record |
//! | --- | --- | --- |
//! | `tokens` | hash of a token's public key | [`Token`](decide::Token) |
//! | `devices` | device | [`Device`] |
//! | `identities` | identity key | the device that enrolled with it |
//! | `revoked by` | device | the name of the coordinator by whose word it was revoked |
//! | `days` | day of UTC | how many devices were new on it |
//! | `revocations` | number | the device |
//! | `ends` | `revocations` | how many there are |
//! | `enrollment log`, `enrollment head` | see [`kept_log`](crate::kept_log) | all that was stated, and the signed head over it |
//! | `logged versions` | hash of an entry of the log | that it is one |
//! | `version days` | name of a coordinator | the last day of UTC, and how many entries of versions it had written on it |
//! | `certificates` | serial number | [`Certified`](peers::Certified) |
//! | `coordinators` | name | where it is found |
//!
//! One request is worked on at a time, from what is read to what is written: there are few, and none waits for another
//! machine.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aggregation::log::Leaf;
use aggregation::{IdentityKey, IdentityPublic};
use proto::authority::{Introduced, Introduction, IssuedDevice, MOST_LISTED};
use proto::ids::{DeviceId, Digest, TokenId};
use proto::message::{LogPart, Rejection};
use proto::shown::shown;
use ring::rand::{SecureRandom, SystemRandom};
use serving::peer::AdminName;
use serving::pki::{Authority, PkiError};
use shell::keys::{KeyFileError, SEED_BYTES, load_or_create_seed};
use shell::store::{Batch, Key, Store, StoreError};
use zeroize::Zeroizing;

use crate::decide::{self, Device, Terms};
use crate::kept_log::{KeptLog, LogError};
use crate::tokens::{self, NewToken, TokenError, TokenRefusal};

pub mod enrolling;
pub mod list;
pub mod peers;

use list::List;
use peers::Peers;

const DEVICES: &str = "devices";
const IDENTITIES: &str = "identities";
const DAYS: &str = "days";
const REVOKED_BY: &str = "revoked by";
const COORDINATORS: &str = "coordinators";
const VERSIONS: &str = "logged versions";

/// The file of the key that vouches for devices.
pub const SEED_FILE: &str = "enrolment.seed";

/// The folder of the store.
pub const STORE: &str = "store";

/// What of a folder shows that it was given to an authority, and no other purpose.
pub const OURS: [&str; 4] = [STORE, SEED_FILE, "ca.key", "authority.toml"];

const VERSION_DAYS: &str = "version days";

/// The most entries of versions that a coordinator may have written on a day of UTC. One version a minute and a half is more than rounds
/// make, and whoever reads all of the log takes four million entries: ten years of this.
const MOST_VERSIONS_A_DAY: u32 = 1000;

/// Bytes of an address that tokens say.
const MOST_ADDRESS_BYTES: usize = 256;

/// Why an authority's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The log of what was stated.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Where a coordinator is found, as it said.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Found {
    address: String,
    pin: Digest,
}

/// The authority: its key, its records, and who may call.
#[derive(Debug)]
pub struct Keeper {
    store: Store,
    key: IdentityKey,
    terms: Terms,
    list: List,
    log: Arc<KeptLog>,
    /// Who may call.
    pub peers: Peers,
    /// Held from what is read to what is written.
    deciding: Mutex<()>,
}

impl Keeper {
    /// Opens the store and the key in a folder, which are made where they are not there. Blocks.
    pub fn open(folder: &Path, terms: Terms, authority: Authority) -> Result<Self, KeeperError> {
        let store = Store::open(&folder.join(STORE))?;
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        load_or_create_seed(&folder.join(SEED_FILE), &SystemRandom::new(), &mut seed)?;
        let peers = Peers::open(store.clone(), authority)?;
        let key = IdentityKey::from_seed(&seed);
        let (list, log) = (List::new(store.clone()), Arc::new(KeptLog::open(store.clone(), key.public())?));
        Ok(Self { list, log, store, key, terms, peers, deciding: Mutex::new(()) })
    }

    /// The key that verifies what is stated of devices.
    pub fn public(&self) -> IdentityPublic {
        self.key.public()
    }

    /// The log of all that was stated.
    pub fn log(&self) -> Arc<KeptLog> {
        Arc::clone(&self.log)
    }

    /// Returns when nobody works on a request. Blocks.
    pub fn pulse(&self) {
        drop(self.deciding());
    }

    /// Whether a write failed half-way, so that only a restart recovers.
    pub fn is_stopped(&self) -> bool {
        self.store.is_stopped()
    }

    /// Writes that a version came out of a round, by a coordinator's word. Blocks.
    pub fn log_version(&self, name: &AdminName, entry: &[u8], now_unix_secs: u64) -> Result<(), Rejection> {
        let Some(leaf @ Leaf::Version { .. }) = Leaf::from_bytes(entry) else {
            let why = "it is no entry of a version".to_owned();
            return Err(Rejection::Unacceptable { request: "log version".into(), why });
        };
        let _deciding = self.deciding();
        // It may be told again, where the answer was lost.
        let known: Option<bool> = self.store.get(VERSIONS, leaf.hash()).map_err(unavailable)?;
        if known.is_some() {
            return Ok(());
        }
        let today = decide::day(now_unix_secs);
        let written: Option<(u64, u32)> = self.store.get(VERSION_DAYS, name.as_str()).map_err(unavailable)?;
        let written = written.filter(|(day, _)| *day == today).map_or(0, |(_, written)| written);
        if written >= MOST_VERSIONS_A_DAY {
            return Err(Rejection::Unavailable(format!(
                "the coordinator {name} had {written} versions written into the log today, as many as one may on a day of UTC; this one \
                 has to wait"
            )));
        }
        let (mut turn, mut batch) = (self.log.turn(), Batch::new());
        batch.put(VERSION_DAYS, name.as_str(), &(today, written + 1)).map_err(unavailable)?;
        batch.insert(VERSIONS, leaf.hash(), &true).map_err(unavailable)?;
        turn.write(&mut batch, &leaf, &self.key, now_unix_secs).map_err(unavailable)?;
        self.store.commit_blocking(&batch).map_err(unavailable)?;
        turn.kept();
        Ok(())
    }

    /// The log, from a place on. Blocks.
    pub fn log_part(&self, from: u64) -> Result<LogPart, Rejection> {
        self.log.part(from).map_err(|error| log_failed(&error))
    }

    /// Signs the log anew where its head gets old: devices take none that is older than a day. Blocks.
    pub fn refresh_head(&self, now_unix_secs: u64) -> Result<(), LogError> {
        self.log.refresh(&self.key, now_unix_secs)
    }

    /// The same at a start, which a full disk does not stop: what was signed is shown meanwhile, and a new head is signed when there is
    /// room.
    pub fn refresh_head_if_room(&self, now_unix_secs: u64) -> Result<(), LogError> {
        match self.refresh_head(now_unix_secs) {
            Err(LogError::Store(error @ StoreError::DiskFull { .. })) => {
                tracing::warn!(%error, "no new head of the log is signed, and nobody is enrolled or renewed, until there is room");
                Ok(())
            }
            other => other,
        }
    }

    /// Vouches for a device no more, for ever, by the word of a coordinator or of an operator; durable when this returns. One that was
    /// revoked stays so. Blocks.
    pub fn revoke(&self, id: DeviceId, by: Option<&AdminName>, now_unix_secs: u64) -> Result<(), Rejection> {
        let _deciding = self.deciding();
        let Some(device) = self.device(id)? else {
            let why = "no device has this id; `nightshift-authority device ls` lists them".to_owned();
            return Err(Rejection::Unacceptable { request: "revoke device".into(), why });
        };
        if device.revoked_unix_secs.is_some() {
            return Ok(());
        }
        let mut batch = Batch::new();
        let revoked = Device { revoked_unix_secs: Some(now_unix_secs), ..device };
        batch.put(DEVICES, id.0, &revoked).map_err(unavailable)?;
        self.list.append_revoked(&mut batch, id).map_err(unavailable)?;
        if let Some(name) = by {
            batch.put(REVOKED_BY, id.0, &name.as_str()).map_err(unavailable)?;
        }
        let mut turn = self.log.turn();
        let leaf = Leaf::Revocation { device: id.0, unix_secs: now_unix_secs };
        turn.write(&mut batch, &leaf, &self.key, now_unix_secs).map_err(unavailable)?;
        self.store.commit_blocking(&batch).map_err(unavailable)?;
        turn.kept();
        let by = by.map_or("operator", AdminName::as_str);
        tracing::info!(by, "device revoked");
        tracing::debug!(device = %id, "device revoked");
        Ok(())
    }

    /// Keeps where a coordinator is found, and says whom it is to shut out. Blocks.
    pub fn introduce(&self, name: &AdminName, introduction: &Introduction) -> Result<Introduced, Rejection> {
        let Introduction { address, pin, revocations_from } = introduction;
        let is_address = address.len() <= MOST_ADDRESS_BYTES
            && address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_address {
            let why = format!("{} is no address of the form host:port", shown(address));
            return Err(Rejection::Unacceptable { request: "introduce".into(), why });
        }
        let found = Found { address: address.clone(), pin: Digest(*pin) };
        let _deciding = self.deciding();
        let before: Option<Found> = self.store.get(COORDINATORS, name.as_str()).map_err(unavailable)?;
        if before.as_ref() != Some(&found) {
            let mut batch = Batch::new();
            batch.put(COORDINATORS, name.as_str(), &found).map_err(unavailable)?;
            self.store.commit_blocking(&batch).map_err(unavailable)?;
            tracing::info!(%name, address = %shown(address), "a coordinator says where devices find it");
        }
        let (revoked, revocations_next, more) =
            self.list.revoked_from(*revocations_from, MOST_LISTED).map_err(unavailable)?;
        let (authority, attestation_policy) = (self.public(), None);
        Ok(Introduced { authority, revoked, revocations_next, more, attestation_policy })
    }

    /// Makes a bootstrap token for a coordinator, by its name, or for the only one; gives its text. Blocks.
    pub fn issue_token(
        &self,
        (label, lifetime_secs): (&str, u64),
        coordinator: &str,
        now_unix_secs: u64,
    ) -> Result<String, Rejection> {
        let Found { address, pin } = self.coordinator(coordinator)?;
        let new = NewToken { label, address: &address, pin: pin.0, authority: self.public(), lifetime_secs };
        let made = tokens::make(new, now_unix_secs, &SystemRandom::new());
        let (text, batch) = made.map_err(|error| refused("issue token", error))?;
        self.store.commit_blocking(&batch).map_err(unavailable)?;
        Ok(text.reveal().to_owned())
    }

    /// All bootstrap tokens, the newest first. Blocks.
    pub fn tokens(&self) -> Result<Vec<proto::admin::TokenStatus>, Rejection> {
        let mut tokens = tokens::list(&self.store).map_err(unavailable)?;
        tokens.sort_by_key(|token| std::cmp::Reverse((token.issued_unix_secs, token.token)));
        Ok(tokens)
    }

    /// Makes a token worthless that nobody has used. Blocks.
    pub fn revoke_token(&self, token: TokenId, now_unix_secs: u64) -> Result<(), Rejection> {
        let _deciding = self.deciding();
        tokens::revoke(&self.store, token, now_unix_secs).map_err(|error| refused("revoke token", error))?;
        tracing::info!(%token, "bootstrap token revoked");
        Ok(())
    }

    /// Devices behind this one, and whether there are more. Blocks.
    pub fn devices(&self, after: Option<DeviceId>) -> Result<(Vec<IssuedDevice>, bool), Rejection> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, |device| Bound::Excluded(Key::from(device.0)));
        let mut devices = Vec::new();
        for item in self.store.scan::<Device>(DEVICES, (from, Bound::Unbounded)).map_err(unavailable)? {
            let (key, device) = item.map_err(unavailable)?;
            let Some(id) = key.as_bytes().first_chunk() else { continue };
            if devices.len() == MOST_LISTED {
                return Ok((devices, true));
            }
            let revoked_by = match device.revoked_unix_secs {
                Some(_) => self.store.get(REVOKED_BY, *id).map_err(unavailable)?,
                None => None,
            };
            devices.push(IssuedDevice {
                device: DeviceId(*id),
                label: device.label,
                identity: IdentityPublic(device.identity.0),
                enrolled_unix_secs: device.enrolled_unix_secs,
                expires_unix_secs: device.stated.expires_unix_secs,
                revoked_unix_secs: device.revoked_unix_secs,
                revoked_by,
            });
        }
        Ok((devices, false))
    }

    fn coordinator(&self, name: &str) -> Result<Found, Rejection> {
        let refuse = |why: String| Rejection::Unacceptable { request: "issue token".into(), why };
        let all = self.store.scan_prefix::<Found>(COORDINATORS, &Key::default()).map_err(unavailable)?;
        let mut all: Vec<(Key, Found)> = all.collect::<Result<_, _>>().map_err(unavailable)?;
        let named = |key: &Key| String::from_utf8_lossy(key.as_bytes()).into_owned();
        if !name.is_empty() {
            all.retain(|(key, _)| key.as_bytes() == name.as_bytes());
        }
        let names: Vec<String> = all.iter().map(|(key, _)| named(key)).collect();
        let mut all = all.into_iter();
        match (all.next(), all.next()) {
            (Some((_, found)), None) => Ok(found),
            (None, _) if name.is_empty() => Err(refuse(
                "no coordinator has said yet where devices find it: make a file for one by `nightshift-authority \
                 coordinator-file`, and start it with that"
                    .to_owned(),
            )),
            (None, _) => Err(refuse(format!("no coordinator called `{}` has said where devices find it", shown(name)))),
            (Some(_), Some(_)) => Err(refuse(format!(
                "there are several coordinators ({}): say which one by --coordinator",
                names.join(", ")
            ))),
        }
    }

    fn with_identity(&self, identity: IdentityPublic) -> Result<Option<(DeviceId, Device)>, Rejection> {
        let Some(id) = self.store.get::<DeviceId>(IDENTITIES, identity.0).map_err(unavailable)? else {
            return Ok(None);
        };
        let device = self.device(id)?.ok_or_else(|| {
            Rejection::Unavailable("the authority's record of this device is not there".to_owned())
        })?;
        Ok(Some((id, device)))
    }

    fn device(&self, id: DeviceId) -> Result<Option<Device>, Rejection> {
        self.store.get(DEVICES, id.0).map_err(unavailable)
    }

    fn deciding(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data, so a poisoned one is as good as another.
        self.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_device() -> Result<DeviceId, Rejection> {
    let mut device = [0; 16];
    let filled = SystemRandom::new().fill(&mut device);
    filled.map_err(|_| Rejection::Unavailable("no randomness".to_owned()))?;
    Ok(DeviceId(device))
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn unavailable(error: StoreError) -> Rejection {
    tracing::error!(%error, "the store failed");
    Rejection::Unavailable("the enrollment authority's store fails".to_owned())
}

fn log_failed(error: &LogError) -> Rejection {
    tracing::error!(%error, "the enrollment log failed");
    Rejection::Unavailable("the enrollment authority's log fails".to_owned())
}

fn refused(request: &'static str, error: TokenError) -> Rejection {
    let why = match error {
        TokenError::Store(error) => return unavailable(error),
        TokenError::Randomness => return Rejection::Unavailable(error.to_string()),
        TokenError::Refused(TokenRefusal::Unknown) => {
            "no bootstrap token has this id; `nightshift-authority token ls` lists them".to_owned()
        }
        TokenError::Refused(TokenRefusal::Redeemed) => {
            "a device has enrolled with it already; `nightshift-authority device revoke` shuts that out"
                .to_owned()
        }
        error @ (TokenError::Refused(TokenRefusal::Expired { .. } | TokenRefusal::Revoked)
        | TokenError::Ambiguous
        | TokenError::Label { .. }
        | TokenError::Lifetime(_)) => error.to_string(),
    };
    Rejection::Unacceptable { request: request.into(), why }
}

#[cfg(test)]
mod tests;
