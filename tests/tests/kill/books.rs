//! What both sides have durable, read while their processes are dead, and what must hold of it whenever one died.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;

use client::store::Entry;
use coordinator::artifacts::Artifacts;
use coordinator::pki::EnrollmentKey;
use coordinator::records;
use proto::admin::{TaskState, VersionStatus};
use proto::ids::{DeviceId, Digest};
use ring::rand::SystemRandom;
use session::Signed;
use shell::store::Store;

use super::seen::Seen;
use super::stage::STARTING;

/// What the coordinator has durable of its one task.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    pub(crate) participations: BTreeMap<DeviceId, u32>,
    /// The survivors that were fixed, by round.
    pub(crate) survivors: BTreeMap<u64, BTreeSet<DeviceId>>,
    /// The parameters that it began with.
    pub(crate) initial: Digest,
    pub(crate) versions: Vec<VersionStatus>,
    pub(crate) state: TaskState,
    pub(crate) rounds_charged: u64,
    pub(crate) last_round: u64,
}

impl Books {
    /// Reads the folder of a coordinator that does not run. Every record and every version's adapter must be whole.
    pub(crate) fn read(home: &Path) -> Self {
        let _nobody_starts = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let store = Store::open(&home.join("store")).unwrap();
        let damaged = store.check().unwrap().damaged;
        assert!(damaged.is_empty(), "{damaged:?}");
        let artifacts = Artifacts::open(&home.join("artefacts")).unwrap();
        let key = EnrollmentKey::open_or_create(&home.join("enrolment.seed"), &SystemRandom::new()).unwrap();
        let headers = records::headers(&store).unwrap();
        let [(id, header)] = headers.as_slice() else { panic!("{} tasks", headers.len()) };
        let task = records::load_task(&store, &artifacts, key.public(), (*id, header)).unwrap();
        let record = task.record().clone();
        let newest = record.versions.last().map_or(header.initial, |version| version.adapter);
        assert_eq!(header.adapter, newest, "what the next round begins with is not the newest version");
        for version in &record.versions {
            // Bit for bit: an artefact is known by the hash of its bytes.
            artifacts.get(&version.adapter.0).unwrap();
            version.folded.map(|digest| artifacts.get(&digest.0).unwrap());
        }
        let folded = record.versions.last().and_then(|version| version.folded);
        assert_eq!(header.folded, folded, "what the epochs left is not that of the newest version");
        let survivors = (1..=record.last_round)
            .map(|round| (round, records::survivors(&store, *id, round).unwrap().into_iter().collect()))
            .filter(|(_, devices): &(u64, BTreeSet<DeviceId>)| !devices.is_empty())
            .collect();
        Self {
            participations: record.participations,
            survivors,
            initial: header.initial,
            versions: record.versions,
            state: record.state,
            rounds_charged: record.rounds_charged,
            last_round: record.last_round,
        }
    }

    /// Whether the sum of a round became a version.
    pub(crate) fn has_published(&self, round: u64) -> bool {
        self.versions.iter().any(|version| version.round == round)
    }

    pub(crate) fn participations(&self, device: DeviceId) -> u32 {
        self.participations.get(&device).copied().unwrap_or(0)
    }

    /// Panics unless what is durable now is what was durable `before`, and more, and all that was `seen`.
    pub(crate) fn check(&self, before: &Self, seen: &Seen) {
        assert!(seen.contradictions.is_empty(), "{:#?}", seen.contradictions);
        for (device, count) in &before.participations {
            let now = self.participations(*device);
            assert!(now >= *count, "{device} took part {now} times, and {count} times before");
        }
        assert!(self.rounds_charged >= before.rounds_charged, "{before:#?} {self:#?}");
        assert!(self.last_round >= before.last_round, "{before:#?} {self:#?}");
        for (round, devices) in before.survivors.iter().chain(&seen.survivors) {
            assert_eq!(self.survivors.get(round), Some(devices), "the survivors of round {round} changed");
        }
        assert!(
            self.versions.starts_with(&before.versions),
            "versions changed: {:#?} {:#?}",
            before.versions,
            self.versions
        );
        for (version, adapter) in seen.versions.iter().filter(|(version, _)| **version > 0) {
            let found = self.versions.iter().find(|known| known.version == *version);
            let found = found.map(|known| known.adapter);
            assert_eq!(found, Some(*adapter), "version {version}, which a device was told of");
        }
        for round in &seen.published {
            assert!(self.has_published(*round), "round {round} was said to be published and is not");
        }
        for version in &self.versions {
            let survivors = self.survivors.get(&version.round).map(BTreeSet::len);
            assert_eq!(survivors, Some(version.survivors as usize), "{version:?}");
        }
        // A round's survivors are fixed and charged at once, whether or not its sum was opened.
        for (device, count) in &self.participations {
            let survived = self.survivors.values().filter(|devices| devices.contains(device)).count();
            assert!(*count as usize >= survived, "{device} is in {survived} sums, charged for {count}");
        }
        let charged: BTreeSet<&DeviceId> = self.participations.keys().collect();
        assert!(self.survivors.values().flatten().all(|device| charged.contains(device)), "{self:#?}");
    }
}

/// What a device's ledger holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Vec<Entry>);

impl Ledger {
    /// From what the agent prints as JSON.
    pub(crate) fn parse(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap())
    }

    /// The rounds that are charged, as often as they are.
    pub(crate) fn charges(&self) -> Vec<u64> {
        let round = |entry: &Entry| match entry {
            Entry::Charge { charge, .. } => Some(charge.round),
            Entry::FoundAtCoordinator { found, .. } => panic!("a killed device lost charges: {found:?}"),
            Entry::Signature(_) | Entry::Answer(_) => None,
        };
        self.0.iter().filter_map(round).collect()
    }

    /// What was signed.
    pub(crate) fn signatures(&self) -> Vec<&Signed> {
        let signed = |entry| match entry {
            &(Entry::Charge { .. } | Entry::FoundAtCoordinator { .. } | Entry::Answer(_)) => None,
            Entry::Signature(signed) => Some(signed),
        };
        self.0.iter().filter_map(signed).collect()
    }

    pub(crate) fn has_charged(&self, round: u64) -> bool {
        self.charges().contains(&round)
    }

    pub(crate) fn has_answered(&self, round: u64) -> bool {
        self.0.iter().any(|entry| matches!(entry, Entry::Answer(answered) if answered.round == round))
    }

    pub(crate) fn has_signed(&self, round: u64) -> bool {
        self.signatures().iter().any(|signed| signed.round == round)
    }

    /// Panics unless this is `before` and more, and covers all that was `seen` of the device and all that the
    /// coordinator has charged it for.
    pub(crate) fn check(&self, before: &Self, device: DeviceId, seen: &Seen, books: &Books) {
        assert!(self.0.starts_with(&before.0), "records are gone: {:#?} {:#?}", before.0, self.0);
        let charges = self.charges();
        let rounds: BTreeSet<u64> = charges.iter().copied().collect();
        assert_eq!(rounds.len(), charges.len(), "a round is charged twice: {charges:?}");
        let signed: BTreeSet<u64> = self.signatures().iter().map(|signed| signed.round).collect();
        assert_eq!(signed.len(), self.signatures().len(), "two signatures in a round: {:#?}", self.0);
        assert!(signed.is_subset(&rounds), "signed and not charged: {:#?}", self.0);
        for (_, round) in seen.chunks.iter().filter(|(of, _)| *of == device) {
            assert!(rounds.contains(round), "{device} sent masked input in round {round} and has no charge");
        }
        for (_, round) in seen.sharing.keys().filter(|(of, _)| *of == device) {
            assert!(signed.contains(round), "{device} signed in round {round} and has no record of it");
        }
        for (round, _) in books.survivors.iter().filter(|(_, devices)| devices.contains(&device)) {
            assert!(rounds.contains(round), "{device} is in the sum of round {round} and has no charge");
        }
        let theirs = books.participations(device);
        assert!(charges.len() >= theirs as usize, "{device}: {charges:?}, the coordinator says {theirs}");
    }
}
