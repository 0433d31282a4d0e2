//! Opens a coordinator's store, where its configuration says that it is, and no other.
//!
//! A state folder belongs to one store. One that is in a database has an id, which was drawn when its tables were made: the folder keeps
//! it (`store.cluster`), so that a folder that is pointed at another coordinator's database is refused, and so is one that lost
//! its `[store]` and would begin anew with an empty store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::store::{Plain, Postgres, Settings};
use proto::files::{self, Audience, FileError};
use shell::store::{Kept, Store, StoreError};
use zeroize::Zeroizing;

use crate::config::StoreKeys;

/// The folder of the store in a state folder.
pub const STORE: &str = "store";

/// The file that says whose database a state folder's is.
pub const CLUSTER: &str = "store.cluster";

/// Opens the store of a state folder. Fails where another process has it open, and where it is not this folder's.
pub fn open_store(keys: &StoreKeys, state_dir: &Path) -> Result<Store, StoreError> {
    if !keys.is_database() {
        if let Some(cluster) = cluster(state_dir)? {
            let why = format!(
                "the store of this folder is in a database (of the cluster {cluster}, as {CLUSTER} says), and [store] address names none; \
                 name it, or move the store with `nightshift store export` and `import`"
            );
            return Err(StoreError::Refused { place: state_dir.join(STORE).display().to_string(), why });
        }
        return Store::open(&state_dir.join(STORE));
    }
    let (store, claim) = open_unclaimed(keys, state_dir)?;
    if claim.is_new && !is_empty(&store)? {
        let why = format!(
            "it has records of the cluster {}, and {} does not say that it is this coordinator's; put that file back where it is, or name \
             a database of this coordinator's own",
            claim.cluster,
            claim.path.display()
        );
        return Err(StoreError::Refused { place: keys.address.clone(), why });
    }
    claim.keep()?;
    Ok(store)
}

/// Asks a database whether it can be used, and changes nothing in it.
pub fn look(keys: &StoreKeys) -> Result<(), StoreError> {
    Postgres::look(&settings(keys).map_err(|why| why.told(keys))?)
}

/// Whose a database is, for the folder that has it from now on.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    cluster: String,
    is_new: bool,
}

impl Claim {
    /// Keeps in the folder whose database it has.
    pub fn keep(&self) -> Result<(), StoreError> {
        if self.is_new {
            files::write(&self.path, format!("{}\n", self.cluster).as_bytes(), Audience::Owner)?;
        }
        Ok(())
    }
}

/// Opens the database of a state folder that may not have it yet; for what is put into it. Fails where the folder has a store of
/// its own, or another database.
pub fn open_unclaimed(keys: &StoreKeys, state_dir: &Path) -> Result<(Store, Claim), StoreError> {
    let place = state_dir.join(STORE);
    let refused = |why: String| StoreError::Refused { place: keys.address.clone(), why };
    if place.join("db").exists() {
        return Err(refused(format!(
            "{} holds a store already, and [store] address names a database; export that store without [store], move the folder away, and \
             import it (`nightshift store export`, `nightshift store import`)",
            place.display()
        )));
    }
    // As with a store in a folder: one process at a time.
    let kept = Kept::new(&place)?;
    let settings = settings(keys).map_err(|why| why.told(keys))?;
    let database = Postgres::open(&settings)?.keeping(kept);
    let (path, cluster, known) =
        (state_dir.join(CLUSTER), database.cluster().to_owned(), cluster(state_dir)?);
    if known.as_ref().is_some_and(|known| *known != cluster) {
        return Err(refused(format!(
            "it is of the cluster {cluster}, and {} says that this coordinator's is {}: it is another coordinator's, or a copy that was made \
             anew; name the right one",
            path.display(),
            known.unwrap_or_default()
        )));
    }
    let claim = Claim { path, cluster, is_new: known.is_none() };
    Ok((Store::over(Arc::new(database)), claim))
}

/// Forgets which database a state folder has had, since its store is in the folder from now on.
pub fn forget_cluster(state_dir: &Path) -> Result<(), FileError> {
    let path = state_dir.join(CLUSTER);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::io("remove", &path)(error))
        }
        _ => files::sync_folder(state_dir),
    }
}

/// Whether a store has no records at all.
pub fn is_empty(store: &Store) -> Result<bool, StoreError> {
    let mut is_empty = true;
    store.engine().all(&mut |_| {
        is_empty = false;
        std::ops::ControlFlow::Break(())
    })?;
    Ok(is_empty)
}

fn cluster(state_dir: &Path) -> Result<Option<String>, StoreError> {
    match files::read(&state_dir.join(CLUSTER)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

enum Why {
    Refused(String),
    File(FileError),
}

impl Why {
    fn told(self, keys: &StoreKeys) -> StoreError {
        match self {
            Self::Refused(why) => StoreError::Refused { place: keys.address.clone(), why },
            Self::File(error) => StoreError::File(error),
        }
    }
}

fn settings(keys: &StoreKeys) -> Result<Settings, Why> {
    let StoreKeys { address, password_file, ca_file, connections, statement_secs, allow_plain } = keys;
    let address = address.parse().map_err(|error| Why::Refused(format!("its address is {error}")))?;
    let given = |path: &Path| !path.as_os_str().is_empty();
    let password = given(password_file).then(|| password(password_file)).transpose()?;
    let authorities = given(ca_file).then(|| files::read(ca_file).map_err(Why::File)).transpose()?;
    Ok(Settings {
        address,
        password,
        authorities,
        plain: if *allow_plain { Plain::Anywhere } else { Plain::Local },
        connections: usize::try_from(*connections).unwrap_or(usize::MAX),
        statement: Duration::from_secs((*statement_secs).into()),
    })
}

/// The password in a file, on one line.
fn password(path: &Path) -> Result<Zeroizing<String>, Why> {
    let bytes = Zeroizing::new(files::read_secret(path).map_err(Why::File)?);
    let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\r', '\n']));
    match text {
        Ok(text) if !text.is_empty() && !text.contains(['\r', '\n', '\0']) => {
            Ok(Zeroizing::new(text.to_owned()))
        }
        _ => Err(Why::Refused(format!("{} does not hold a password on one line", path.display()))),
    }
}
