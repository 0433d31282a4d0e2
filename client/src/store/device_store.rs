//! What is durable of a device: its enrolment, its ledger, and the version that it holds.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use aggregation::log::Seen;
use proto::adapter::AdapterSpec;
use proto::ids::{Digest, TaskId, Timestamp};
use proto::message::Published;
use proto::shown::shown;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::store::artifact_cache::{Cache, DEFAULT_CACHE_MIB};
use crate::store::bases::FetchedBases;
use crate::store::checkpoint::Checkpoint;
use crate::store::error::DeviceStoreError;
use crate::store::installed::{DEFAULT_INSTALLED_MIB, Installed};
use crate::store::journal::Journal;
use crate::store::ledger::Ledger;
use crate::store::seen_log::{SEEN_LOG, SeenLog};
use crate::store::state::State;
use session::spending::{Charge, Found, Spending};
use session::{Signed, Work};

/// How often a folder that another process has open is tried again, and how long that is waited for in between: three
/// seconds.
const TRIES: u32 = 60;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

const INSTALLED: &str = "installed";
const DECLINED: &str = "declined";
const NAMES: &str = "task-names";

/// Of which tasks a base was fetched, and which bases do not come.
const TASK_BASES: &str = "task-bases";
const IN_VAIN: &str = "bases-in-vain";
const MOST_IN_VAIN: usize = 8;
const DAY_MILLIS: u64 = 24 * 3_600_000;

/// Names that are remembered, and the bytes of each: together they fit a record.
const MOST_NAMES: usize = 24;
const MOST_NAME_BYTES: usize = 60;

/// What of a folder shows that it was given to an agent, and no other purpose.
const OURS: [&str; 4] = ["ledger", "keys", "base", "agent.toml"];

/// A record of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Privacy was spent: written before the masked input leaves.
    Charge {
        /// When, in milliseconds since 1970.
        unix_millis: u64,
        /// What.
        #[serde(flatten)]
        charge: Charge,
    },
    /// Privacy was spent by the coordinator's word, and no charge of it was here: the folder was restored from a backup, or
    /// the coordinator errs. Written before the device does anything else.
    FoundAtCoordinator {
        /// When it was found, in milliseconds since 1970.
        unix_millis: u64,
        /// What.
        #[serde(flatten)]
        found: Found,
    },
    /// With whom the device masked was signed, or, in older ledgers, a transcript: written before the signature
    /// leaves. The device takes part in no other round of that number.
    Signature(Signed),
    /// Shares were given away: written before they leave.
    Answer(Signed),
}

/// Why this device did not take part when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// When, in milliseconds since 1970.
    pub unix_millis: u64,
    /// Why, in words.
    pub why: String,
}

/// A name of a task as it is remembered: of bounded length, and without what orders a terminal about.
pub fn short_name(name: &str) -> String {
    let mut short = String::new();
    for char in shown(name).to_string().chars() {
        if short.len() + char.len_utf8() > MOST_NAME_BYTES {
            break;
        }
        short.push(char);
    }
    short
}

/// What is durable of a device.
#[derive(Debug)]
pub struct DeviceStore {
    pub(super) folder: PathBuf,
    pub(super) state: State,
    pub(super) ledger: Ledger,
    pub(super) entries: Vec<Entry>,
    /// A record that was to be written when the disk failed: whether it is there is not known yet.
    pub(super) failed: Option<Entry>,
    /// One that is there although its writing seemed to fail.
    pub(super) written: Option<Entry>,
    cache: Cache,
    installed: Installed,
}

impl DeviceStore {
    /// Opens, or makes, everything below `folder`, which is closed to others. Fails when it cannot be closed, when
    /// another process keeps it open, when the ledger is damaged, when records were cut off its end, or when it is not the
    /// one that the state knows. Blocks.
    #[expect(clippy::disallowed_methods, reason = "waits for another process")]
    pub fn open(folder: &Path) -> Result<Self, DeviceStoreError> {
        // A command that only looks has it open for a moment: no reason for a daemon not to start.
        for _ in 0..TRIES {
            match Self::open_now(folder) {
                Err(error) if error.is_in_use() => sleep(BETWEEN_TRIES),
                other => return other,
            }
        }
        Self::open_now(folder)
    }

    fn open_now(folder: &Path) -> Result<Self, DeviceStoreError> {
        if let Some(closed) = files::own_folder(folder, &OURS)? {
            tracing::warn!("{closed}");
        }
        let state = State::open(&folder.join("state"))?;
        let ledger = Ledger::open(&folder.join("ledger"))?.ledger;
        let entries = ledger.entries()?;
        let cache = Cache::below(folder, DEFAULT_CACHE_MIB);
        let installed = Installed::below(folder, DEFAULT_INSTALLED_MIB);
        let folder = folder.to_owned();
        let store = Self { folder, state, ledger, entries, failed: None, written: None, cache, installed };
        store.check_head()?;
        // Earlier versions held one version of one task.
        if let Some(published) = store.state.get::<Published>(INSTALLED)? {
            store.installed.adopt(&published)?;
            store.state.remove(INSTALLED)?;
        }
        Ok(store)
    }

    /// The same, with so much room for artefacts, in MiB.
    #[must_use]
    pub fn with_cache_mib(self, most_mib: u64) -> Self {
        Self { cache: Cache::below(&self.folder, most_mib), ..self }
    }

    /// The same, with so much room for installed versions, in MiB.
    #[must_use]
    pub fn with_installed_mib(self, most_mib: u64) -> Self {
        Self { installed: Installed::below(&self.folder, most_mib), ..self }
    }

    /// The ledger's records, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Walks the ledger's chain on disk.
    pub fn verify(&self) -> Result<(), DeviceStoreError> {
        Ok(self.ledger.verify()?)
    }

    /// The sum of all charges.
    pub fn spending(&self) -> Spending {
        let mut spending = Spending::new();
        for entry in &self.entries {
            match entry {
                Entry::Charge { unix_millis, charge } => spending.add(charge, Timestamp(*unix_millis)),
                Entry::FoundAtCoordinator { unix_millis, found } => {
                    spending.add_found(found, Timestamp(*unix_millis));
                }
                Entry::Signature(_) | Entry::Answer(_) => {}
            }
        }
        spending
    }

    /// Writes a charge; it is on disk when this returns.
    pub fn charge(&mut self, charge: Charge, unix_millis: u64) -> Result<(), DeviceStoreError> {
        self.append(Entry::Charge { unix_millis, charge })
    }

    /// Writes charges that were found at the coordinator; they are on disk when this returns.
    pub fn charge_found(&mut self, found: Found, unix_millis: u64) -> Result<(), DeviceStoreError> {
        self.append(Entry::FoundAtCoordinator { unix_millis, found })
    }

    /// Participations that the ledger has by the coordinator's word alone.
    pub fn found_at_coordinator(&self) -> u32 {
        let times = self.entries.iter().map(|entry| match entry {
            Entry::FoundAtCoordinator { found, .. } => found.times,
            Entry::Charge { .. } | Entry::Signature(_) | Entry::Answer(_) => 0,
        });
        times.fold(0, u32::saturating_add)
    }

    /// Writes a signature; it is on disk when this returns. The same one again is nothing new, another one for
    /// the same round is refused.
    pub fn sign(&mut self, signed: Signed) -> Result<(), DeviceStoreError> {
        let known =
            self.signed().find(|earlier| (earlier.task, earlier.round) == (signed.task, signed.round));
        match known {
            Some(earlier) if earlier == signed => Ok(()),
            Some(_) => Err(DeviceStoreError::SignedBefore { task: signed.task, round: signed.round }),
            None => self.append(Entry::Signature(signed)),
        }
    }

    /// Writes that shares are about to leave; it is on disk when this returns. The same answer again is nothing
    /// new, another one for the same round is refused.
    pub fn answer(&mut self, answered: Signed) -> Result<(), DeviceStoreError> {
        let answers = self.entries.iter().filter_map(|entry| match entry {
            Entry::Answer(answered) => Some(answered),
            Entry::Charge { .. } | Entry::FoundAtCoordinator { .. } | Entry::Signature(_) => None,
        });
        let mut of_round = answers.filter(|a| (a.task, a.round) == (answered.task, answered.round));
        match of_round.next() {
            Some(earlier) if *earlier == answered => Ok(()),
            Some(_) => Err(DeviceStoreError::AnsweredBefore { task: answered.task, round: answered.round }),
            None => self.append(Entry::Answer(answered)),
        }
    }

    /// Everything that the device signed.
    pub fn signed(&self) -> impl Iterator<Item = Signed> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Signature(signed) => Some(signed.clone()),
            Entry::Charge { .. } | Entry::FoundAtCoordinator { .. } | Entry::Answer(_) => None,
        })
    }

    /// Holds the folder as this does, for as long as what it gives is kept.
    pub(crate) fn lock(&self) -> impl Send + 'static {
        self.state.clone()
    }

    /// Where it all is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A handle of the named values.
    pub(crate) fn state(&self) -> State {
        self.state.clone()
    }

    /// What the device did, for its user.
    pub fn journal(&self) -> Journal {
        Journal::below(&self.folder)
    }

    /// Deletes what is there of a task but for the ledger: its versions; its base, where that came from the coordinator and
    /// is no other version's; and a training that was interrupted and everything that was fetched, of whatever task,
    /// because nothing says of which they are. Returns the files and folders that were there and are gone; fails where
    /// one is still there.
    pub(crate) fn delete_task(&self, task: TaskId) -> Result<Vec<PathBuf>, DeviceStoreError> {
        let checkpoint = self.checkpoint();
        let mut there: Vec<PathBuf> = checkpoint.paths().into_iter().filter(|path| path.exists()).collect();
        checkpoint.delete("its user left a task");
        let mut known = self.task_bases()?;
        let of_task = known.iter().filter(|(of, _)| *of == task).map(|(_, base)| *base);
        let bases: Vec<Digest> = of_task.chain(self.installed.base_of(task)).collect();
        there.extend(self.installed.delete(task)?);
        if !bases.is_empty() {
            known.retain(|(of, _)| *of != task);
            self.state.put(TASK_BASES, &known)?;
        }
        let needed = self.needed_bases()?;
        for base in bases.into_iter().filter(|base| !needed.contains(base)) {
            there.extend(self.bases().delete(base)?);
        }
        for path in self.cache.paths() {
            std::fs::remove_file(&path).map_err(FileError::io("delete", &path))?;
            there.push(path);
        }
        match there.iter().find(|path| path.exists()) {
            Some(left) => {
                let error =
                    std::io::Error::other("it is still there after it was deleted; delete it by hand");
                Err(FileError::io("delete", left)(error).into())
            }
            None => Ok(there),
        }
    }

    /// Records of the ledger that are about a task.
    pub(crate) fn records_of(&self, task: TaskId) -> usize {
        let of = |entry: &&Entry| match entry {
            Entry::Charge { charge, .. } => charge.task == task,
            Entry::FoundAtCoordinator { found, .. } => found.task == task,
            Entry::Signature(signed) | Entry::Answer(signed) => signed.task == task,
        };
        self.entries.iter().filter(of).count()
    }

    /// The version that the device holds of each task.
    pub fn installed(&self) -> Vec<Published> {
        self.installed.current()
    }

    /// The trained parameters of a version of the task, by their hash, where it is one that the device holds.
    pub(crate) fn installed_adapter(&self, task: TaskId, adapter: Digest) -> Option<Vec<u8>> {
        self.installed.adapter(task, adapter)
    }

    /// Keeps a version for the user, in a folder of its own below `installed`: `adapter.f32`, the trained parameters as
    /// they were published; `shipped.f32`, all of the change as an adapter of two factors; and `manifest.json`, which
    /// says what both are.
    pub fn install(&self, work: &Work) -> Result<(), DeviceStoreError> {
        self.install_shipped(work, &work.state.shipped(work.plan.shipped_rank())?)
    }

    /// The same for who has made what comes out, by [`proto::adapter::State::shipped`] at the plan's rank.
    pub(crate) fn install_shipped(
        &self,
        work: &Work,
        shipped: &(AdapterSpec, Vec<f32>),
    ) -> Result<(), DeviceStoreError> {
        self.installed.install(work, shipped)
    }

    /// The names of the tasks that the device heard of last, as their plans call them; such as order a terminal about do not.
    pub fn task_names(&self) -> Result<Vec<(TaskId, String)>, DeviceStoreError> {
        Ok(self.state.get(NAMES)?.unwrap_or_default())
    }

    /// Remembers how a plan calls its task.
    pub(crate) fn name_task(&self, task: TaskId, name: &str) -> Result<(), DeviceStoreError> {
        let short = short_name(name);
        let mut names = self.task_names()?;
        if names.first().is_some_and(|first| *first == (task, short.clone())) {
            return Ok(());
        }
        names.retain(|(known, _)| *known != task);
        names.insert(0, (task, short));
        names.truncate(MOST_NAMES);
        Ok(self.state.put(NAMES, &names)?)
    }

    /// A task for people: its name, where that is known, and its id.
    pub(crate) fn in_words(&self, task: TaskId) -> String {
        let names = self.task_names().unwrap_or_default();
        let name = names.into_iter().find(|(known, _)| *known == task);
        name.map_or_else(|| task.to_string(), |(_, name)| format!("{name} ({task})"))
    }

    /// Why it did not take part when it was last asked; `None` where it did.
    pub fn declined(&self) -> Result<Option<Declined>, DeviceStoreError> {
        Ok(self.state.get::<Option<Declined>>(DECLINED)?.flatten())
    }

    /// Keeps for the user why it does not take part, or that it does.
    pub fn set_declined(&self, declined: Option<&Declined>) -> Result<(), DeviceStoreError> {
        if self.declined()?.as_ref() == declined {
            return Ok(());
        }
        Ok(self.state.put(DECLINED, &declined)?)
    }

    /// An artefact that was fetched before.
    pub fn cached(&self, digest: Digest) -> Option<Vec<u8>> {
        self.cache.get(digest)
    }

    /// Keeps an artefact, so that it is fetched once, where there is room for it. Where that fails, it says so, and the
    /// artefact is fetched again when it is needed again.
    pub fn cache_artifact(&self, digest: Digest, bytes: &[u8]) {
        if let Err(error) = self.cache.keep(digest, bytes) {
            tracing::warn!("a fetched artefact is not kept: {error}");
        }
    }

    /// What came of an artefact before its connection broke.
    pub(crate) fn partial_artifact(&self, digest: Digest) -> Vec<u8> {
        self.cache.partial(digest)
    }

    /// Keeps what came of an artefact, to go on with; with nothing, what was kept is deleted.
    pub(crate) fn keep_partial_artifact(&self, digest: Digest, bytes: &[u8]) {
        if let Err(error) = self.cache.keep_partial(digest, bytes) {
            tracing::debug!("what came of an artefact is not kept: {error}");
        }
    }

    /// The bases that came from the coordinator.
    pub fn bases(&self) -> FetchedBases {
        FetchedBases::below(&self.folder)
    }

    /// The bases that something here needs: of the versions that the device holds, and of the tasks for which one was
    /// fetched.
    pub(crate) fn needed_bases(&self) -> Result<Vec<Digest>, DeviceStoreError> {
        let of_versions = self.installed().into_iter().filter_map(|held| self.installed.base_of(held.task));
        Ok(of_versions.chain(self.task_bases()?.into_iter().map(|(_, base)| base)).collect())
    }

    fn task_bases(&self) -> Result<Vec<(TaskId, Digest)>, DeviceStoreError> {
        Ok(self.state.get(TASK_BASES)?.unwrap_or_default())
    }

    /// Remembers that a base is fetched for a task.
    pub(crate) fn needs_base(&self, task: TaskId, base: Digest) -> Result<(), DeviceStoreError> {
        let mut known = self.task_bases()?;
        known.retain(|known| *known != (task, base));
        known.insert(0, (task, base));
        known.truncate(MOST_NAMES);
        Ok(self.state.put(TASK_BASES, &known)?)
    }

    /// Why a base is not asked for now, if it came as something else not long ago.
    pub(crate) fn base_in_vain(
        &self,
        base: Digest,
        now: Timestamp,
    ) -> Result<Option<String>, DeviceStoreError> {
        let known: Vec<(Digest, Timestamp, String)> = self.state.get(IN_VAIN)?.unwrap_or_default();
        // A clock that was put back keeps nothing away for longer than it was to be.
        let is_near = |until: &Timestamp| *until > now && until.millis_since(now) <= 2 * DAY_MILLIS;
        Ok(known.into_iter().find(|(of, until, _)| *of == base && is_near(until)).map(|(_, _, why)| why))
    }

    /// Remembers until when a base is not asked for, and why.
    pub(crate) fn base_is_in_vain(
        &self,
        base: Digest,
        until: Timestamp,
        why: &str,
    ) -> Result<(), DeviceStoreError> {
        let mut known: Vec<(Digest, Timestamp, String)> = self.state.get(IN_VAIN)?.unwrap_or_default();
        known.retain(|(of, _, _)| *of != base);
        let why = why.chars().take(200).collect();
        known.insert(0, (base, until, why));
        known.truncate(MOST_IN_VAIN);
        Ok(self.state.put(IN_VAIN, &known)?)
    }

    /// Where a training that was interrupted is kept.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::below(&self.folder)
    }

    /// A value of the device's state.
    pub fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DeviceStoreError> {
        Ok(self.state.get(key)?)
    }

    /// Sets a value of the device's state, durably.
    pub fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), DeviceStoreError> {
        Ok(self.state.put(key, value)?)
    }

    /// What this device has seen of the log of its enrollment authority.
    pub(crate) fn seen_log(&self) -> Result<Option<Seen>, DeviceStoreError> {
        Ok(self.get::<Option<SeenLog>>(SEEN_LOG)?.flatten().map(Seen::from))
    }

    /// Keeps what this device has seen of the log of its enrollment authority, or forgets it; durable when this returns.
    pub(crate) fn put_seen_log(&self, seen: Option<Seen>) -> Result<(), DeviceStoreError> {
        self.put(SEEN_LOG, &seen.map(SeenLog::from))
    }
}

#[cfg(test)]
mod tests {
    use privacy::accountant::RdpCurve;

    use super::*;

    fn charge(round: u64) -> Charge {
        Charge {
            task: TaskId([1; 16]),
            version: 0,
            round,
            plan: Digest([2; 32]),
            cost: RdpCurve::Unbounded,
            delta: 1e-5,
            bytes: 10,
            examples: 3,
        }
    }

    fn signed(round: u64, statement: u8) -> Signed {
        Signed { task: TaskId([1; 16]), round, statement: Digest([statement; 32]) }
    }

    #[test]
    fn charges_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        memory.charge(charge(1), 5).unwrap();
        memory.charge(charge(2), 6).unwrap();
        drop(memory);
        let memory = DeviceStore::open(folder.path()).unwrap();
        assert_eq!(memory.spending().participations(TaskId([1; 16])), 2);
        memory.verify().unwrap();
    }

    #[test]
    fn a_second_signature_in_one_round_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        memory.sign(signed(1, 1)).unwrap();
        memory.sign(signed(1, 1)).unwrap();
        memory.sign(signed(2, 2)).unwrap();
        drop(memory);
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        assert_eq!(memory.entries().len(), 2);
        let error = memory.sign(signed(1, 3)).unwrap_err().to_string();
        assert!(error.contains("round 1"), "{error}");
    }

    #[test]
    fn a_signature_in_an_older_ledger_still_shuts_its_round() {
        let entry = Entry::Signature(signed(3, 4));
        let older = serde_json::to_string(&entry).unwrap().replace("statement", "transcript");
        assert!(older.contains("transcript"), "{older}");
        assert_eq!(serde_json::from_str::<Entry>(&older).unwrap(), entry);
    }

    #[test]
    fn a_second_answer_in_one_round_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        let answered = |round, transcript: u8| Signed {
            task: TaskId([1; 16]),
            round,
            statement: Digest([transcript; 32]),
        };
        memory.answer(answered(1, 1)).unwrap();
        memory.answer(answered(1, 1)).unwrap();
        drop(memory);
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        memory.answer(answered(2, 2)).unwrap();
        assert_eq!(memory.entries().len(), 2);
        let error = memory.answer(answered(1, 3)).unwrap_err().to_string();
        assert!(error.contains("round 1"), "{error}");
        assert_eq!(memory.signed().count(), 0);
    }

    #[test]
    fn records_cut_off_the_end_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        memory.charge(charge(1), 5).unwrap();
        let path = folder.path().join("ledger");
        let one = std::fs::read(&path).unwrap();
        memory.charge(charge(2), 6).unwrap();
        drop(memory);
        std::fs::write(&path, one).unwrap();
        let error = DeviceStore::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has 1 record and had 2"), "{error}");
        assert!(error.contains("enroll anew in an empty folder") && error.contains("no backup"), "{error}");
    }

    /// A ledger of so many charges at an hour of its own, in a folder of its own.
    fn charged(hour: u64, charges: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        for round in 0..charges {
            memory.charge(charge(round), hour).unwrap();
        }
        folder
    }

    fn put_ledger(from: &tempfile::TempDir, to: &tempfile::TempDir) {
        std::fs::copy(from.path().join("ledger"), to.path().join("ledger")).unwrap();
    }

    #[test]
    fn a_crash_between_the_two_writes_is_found_and_mended_each_time() {
        let folder = charged(5, 0);
        // The first record, and then one after those that the state knows of.
        for charges in 1..4 {
            put_ledger(&charged(5, charges), &folder);
            let memory = DeviceStore::open(folder.path()).unwrap();
            assert_eq!(memory.spending().in_total(), u32::try_from(charges).unwrap());
            drop(memory);
            // The state knows of it now: one more is again of one.
            DeviceStore::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn a_folder_that_another_process_has_open_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let looks = DeviceStore::open(folder.path()).unwrap();
        let refused = DeviceStore::open(folder.path()).unwrap_err();
        assert!(refused.is_in_use(), "{refused}");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| DeviceStore::open(folder.path()));
            drop(looks);
            assert!(waits.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_ledger_that_the_state_does_not_know_is_refused() {
        for (state, ledger, wanted) in [
            // Two more than the state knows of, and a state that knows of none.
            (charged(5, 1), charged(5, 3), "has 3 records and the state knows of 1"),
            (charged(5, 0), charged(5, 2), "has 2 records and the state knows of 0"),
            // As long as it was, and one longer, but with another beginning.
            (charged(5, 2), charged(6, 2), "not the one that this device wrote"),
            (charged(5, 2), charged(6, 3), "not the one that this device wrote"),
        ] {
            put_ledger(&ledger, &state);
            let error = DeviceStore::open(state.path()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(error.contains("enroll anew in an empty folder"), "{error}");
        }
    }

    #[test]
    fn charges_found_at_the_coordinator_are_there_after_a_restart_and_marked() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = DeviceStore::open(folder.path()).unwrap();
        memory.charge(charge(1), 5).unwrap();
        let Charge { task, plan, cost, delta, .. } = charge(1);
        let found = Found { task, times: 2, plan, cost, delta };
        memory.charge_found(found.clone(), 6).unwrap();
        drop(memory);
        let memory = DeviceStore::open(folder.path()).unwrap();
        assert_eq!(memory.entries().last(), Some(&Entry::FoundAtCoordinator { unix_millis: 6, found }));
        assert_eq!((memory.spending().participations(task), memory.found_at_coordinator()), (3, 2));
        let text = serde_json::to_string(memory.entries()).unwrap();
        assert!(text.contains("found_at_coordinator"), "{text}");
    }
}
