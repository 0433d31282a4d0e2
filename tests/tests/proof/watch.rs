//! What must never happen, looked for at every request that leaves a device, at every answer that reaches one, and at
//! everything that becomes durable. Whatever is found panics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use nightshift_tests::books::{DeviceBook, TaskBook};
use nightshift_tests::one_hot::{STEP, members};
use privacy::accountant::RdpCurve;
use proto::ids::{Digest, SessionId};
use proto::message::{Published, Rejection, Reply, Request};
use proto::plan::{Plan, vector_from_bytes};
use sim::world::{Observer, World};
use task::TaskEffect;

use super::weather::Counts;

/// What happened in one or many worlds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) worlds: u64,
    /// Worlds that came to their last version.
    pub(crate) whole: u64,
    /// Keys that a device sent to a round, each with fresh ones.
    pub(crate) device_rounds: u64,
    pub(crate) versions: u64,
    /// Versions of more than one round.
    pub(crate) of_several: u64,
    pub(crate) sums: u64,
    /// Sums although devices that sent keys to their round are not in them.
    pub(crate) sums_with_missing: u64,
    pub(crate) counted: u64,
    /// Masked inputs that a device sent whole.
    pub(crate) inputs: u64,
    /// Rounds without a version, by how they ended.
    pub(crate) aborted: BTreeMap<String, u64>,
    pub(crate) restarts: u64,
    /// The squares of the noise of all sums, over the planned variance; and how many numbers that are.
    pub(crate) noise: f64,
    pub(crate) planned_noise: f64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) copies: u64,
    pub(crate) late: u64,
    pub(crate) device_deaths: u64,
    pub(crate) coordinator_deaths: u64,
    pub(crate) device_disks: u64,
    pub(crate) coordinator_disks: u64,
    pub(crate) clocks_set: u64,
    pub(crate) lies: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.whole += other.whole;
        self.device_rounds += other.device_rounds;
        self.versions += other.versions;
        self.of_several += other.of_several;
        self.sums += other.sums;
        self.sums_with_missing += other.sums_with_missing;
        self.counted += other.counted;
        self.inputs += other.inputs;
        for (outcome, times) in &other.aborted {
            *self.aborted.entry(outcome.clone()).or_default() += times;
        }
        self.restarts += other.restarts;
        self.noise += other.noise;
        self.planned_noise += other.planned_noise;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.copies += other.copies;
        self.late += other.late;
        self.device_deaths += other.device_deaths;
        self.coordinator_deaths += other.coordinator_deaths;
        self.device_disks += other.device_disks;
        self.coordinator_disks += other.coordinator_disks;
        self.clocks_set += other.clocks_set;
        self.lies += other.lies;
    }

    /// By the noise of all sums together, for a device of some that adds none: what no sum alone shows.
    pub(crate) fn has_its_noise(&self) {
        let ratio = self.noise / self.planned_noise;
        let error = (2.0 / self.planned_noise).sqrt();
        assert!(
            ratio > 1.0 - 6.0 * error,
            "{ratio:.5} of the planned noise of all sums, give or take {error:.5}"
        );
    }

    /// Whether all that worlds are there for came often enough: what is never reached is not tested.
    pub(crate) fn has_reached_all(&self) {
        for (name, times) in self.faults() {
            let worlds = self.worlds;
            assert!(
                20 * times > worlds,
                "{name}: {times} in {worlds} worlds, which is too seldom to be looked at"
            );
        }
        let (versions, of_several, worlds) = (self.versions, self.of_several, self.worlds);
        assert!(2 * versions > worlds, "only {versions} versions in {worlds} worlds");
        assert!(20 * of_several > versions, "only {of_several} of {versions} versions are of several rounds");
        let (missing, sums) = (self.sums_with_missing, self.sums);
        assert!(8 * missing > sums, "only {missing} of {sums} sums lack a device that sent keys");
    }

    /// How often each kind of thing went wrong.
    pub(crate) fn faults(&self) -> [(&'static str, u64); 10] {
        [
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("copies", self.copies),
            ("late", self.late),
            ("deaths of devices", self.device_deaths),
            ("deaths of the coordinator", self.coordinator_deaths),
            ("full disks of devices", self.device_disks),
            ("full disks of the coordinator", self.coordinator_disks),
            ("clocks set", self.clocks_set),
            ("lies", self.lies),
        ]
    }
}

/// As an entry of `proof/runs.toml`.
impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "worlds = {}", self.worlds)?;
        writeln!(f, "worlds_to_their_last_version = {}", self.whole)?;
        writeln!(f, "device_rounds = {}", self.device_rounds)?;
        writeln!(f, "versions = {}", self.versions)?;
        writeln!(f, "versions_of_several_rounds = {}", self.of_several)?;
        writeln!(f, "sums = {}", self.sums)?;
        writeln!(f, "sums_with_missing = {}", self.sums_with_missing)?;
        writeln!(f, "inputs = {}", self.inputs)?;
        writeln!(f, "counted = {}", self.counted)?;
        writeln!(f, "restarts_of_devices = {}", self.restarts)?;
        writeln!(f, "noise_by_the_planned = {:.5}", self.noise / self.planned_noise)?;
        for (name, times) in self.faults() {
            writeln!(f, "{} = {times}", name.replace(' ', "_"))?;
        }
        for (outcome, times) in &self.aborted {
            writeln!(f, "aborted.{outcome:?} = {times}")?;
        }
        Ok(())
    }
}

/// What was seen of a world.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    devices: usize,
    report_goal: usize,
    /// What the noise of one device adds to a number of the sum, and the least that a sum must have, in steps.
    pub(crate) device_variance: f64,
    least_variance: f64,
    /// What a participation costs by the plan.
    pub(crate) cost: RdpCurve,
    task: TaskBook,
    books: Vec<DeviceBook>,
    /// What a device has in its ledger at least.
    charged: Vec<usize>,
    /// In how many sums it is.
    counted: Vec<usize>,
    /// The rounds' numbers, as their devices were told.
    rounds: BTreeMap<(usize, SessionId), u64>,
    /// The round that each device spoke of last.
    speaks_of: Vec<Option<u64>>,
    /// The commitments of the roster that each device was shown.
    rosters: Vec<Vec<[u8; 32]>>,
    /// What left any devices of the seeds of a device, by its commitment of a round.
    left: BTreeMap<[u8; 32], Kind>,
    sent_keys: BTreeSet<(SessionId, [u8; 32])>,
    joined: BTreeMap<u64, BTreeSet<usize>>,
    inputs: BTreeSet<(usize, SessionId)>,
    adapter: Option<Vec<f32>>,
    versions: BTreeMap<u32, Digest>,
    ahead: Vec<i64>,
    counts: Arc<Counts>,
}

/// One of the two shares that a device holds of another's seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    SelfMask,
    Key,
}

impl Seen {
    fn new(plan: &Plan, devices: usize, counts: Arc<Counts>) -> Self {
        let mechanism = plan.mechanism().unwrap();
        let steps = (plan.privacy.scale * f64::from(STEP)).powi(2);
        Self {
            tally: Tally::default(),
            devices,
            report_goal: plan.round.report_goal as usize,
            device_variance: mechanism.device_variance() / steps,
            least_variance: mechanism.guaranteed_variance() / steps,
            cost: mechanism.curve(),
            task: TaskBook::default(),
            books: (0..devices).map(|_| DeviceBook::default()).collect(),
            charged: vec![0; devices],
            counted: vec![0; devices],
            rounds: BTreeMap::new(),
            speaks_of: vec![None; devices],
            rosters: vec![Vec::new(); devices],
            left: BTreeMap::new(),
            sent_keys: BTreeSet::new(),
            joined: BTreeMap::new(),
            inputs: BTreeSet::new(),
            adapter: None,
            versions: BTreeMap::new(),
            ahead: vec![0; devices],
            counts,
        }
    }

    fn asks(&mut self, world: &World, device: usize, request: &Request) {
        self.ledger_keeps(world, device);
        let node = &world.nodes[device];
        if let Some(session) = request.session() {
            let round = self.rounds.get(&(device, session)).copied();
            let round =
                round.unwrap_or_else(|| panic!("device {device} speaks of a round that it was not offered"));
            self.speaks_of[device] = Some(round);
            let charge = node.charges.iter().find(|(_, charge)| charge.round == round);
            let signed = node.signatures.iter().rfind(|signed| signed.round == round);
            let answered = node.answers.iter().any(|answered| answered.round == round);
            let book = &mut self.books[device];
            match request {
                Request::Advertise { advertisement, .. } => {
                    if self.sent_keys.insert((session, advertisement.key_commitment)) {
                        self.tally.device_rounds += 1;
                        self.joined.entry(round).or_default().insert(device);
                    }
                }
                Request::MaskedChunk { .. } | Request::MaskedDone { .. } => {
                    let Some((_, charge)) = charge else {
                        panic!(
                            "device {device} sends its input of round {round} before its charge is in its ledger"
                        )
                    };
                    assert_eq!(
                        charge.cost, self.cost,
                        "device {device} was charged less than the plan costs"
                    );
                    book.charged();
                    if matches!(request, Request::MaskedDone { .. }) {
                        self.tally.inputs += u64::from(self.inputs.insert((device, session)));
                        let signed = signed.unwrap_or_else(|| {
                            panic!("device {device} says with whom it masked in round {round} before that is in its ledger")
                        });
                        book.signed(signed);
                    }
                }
                Request::Agree { .. } => {
                    assert!(
                        signed.is_some(),
                        "device {device} signs in round {round} before that is in its ledger"
                    );
                }
                Request::Unmask { shares, .. } => {
                    assert!(
                        answered,
                        "device {device} answers in round {round} before that is in its ledger"
                    );
                    let alive = shares.self_mask.iter().map(|(owner, _)| (*owner, Kind::SelfMask));
                    for (owner, kind) in alive.chain(shares.key.iter().map(|(owner, _)| (*owner, Kind::Key)))
                    {
                        let seed = self.rosters[device][usize::from(owner)];
                        let earlier = *self.left.entry(seed).or_insert(kind);
                        assert_eq!(
                            earlier, kind,
                            "both kinds of share of place {owner} have left in round {round}"
                        );
                    }
                }
                Request::CheckIn(_)
                | Request::Fetch { .. }
                | Request::Join { .. }
                | Request::Decline { .. }
                | Request::Draw { .. }
                | Request::ShareKeys { .. } => {}
            }
        }
        self.books[device].asks(request);
    }

    /// What is in a device's ledger stays there.
    fn ledger_keeps(&mut self, world: &World, device: usize) {
        let charges = world.nodes[device].charges.len();
        assert!(charges >= self.charged[device], "device {device} lost a charge of its ledger");
        self.charged[device] = charges;
    }

    fn answers(&mut self, device: usize, answer: &Result<Reply, Rejection>) {
        let Ok(reply) = answer else { return };
        self.task.answered(reply);
        match reply {
            Reply::Offer { session, round, .. } => {
                self.rounds.insert((device, *session), *round);
            }
            Reply::Roster { entries, .. } => {
                // A device sorts it, in whatever order it is shown.
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|entry| entry.credential.device);
                self.rosters[device] = entries.iter().map(|entry| entry.key_commitment).collect();
            }
            Reply::Assignment(assignment) => self.is_durable(&assignment.published),
            Reply::Wait { latest, .. } => latest.iter().for_each(|published| self.is_durable(published)),
            Reply::Survivors(_) | Reply::Evidence(_) => {
                let round = self.speaks_of[device];
                let may_reveal = round.is_some_and(|round| self.task.may_reveal(round));
                assert!(may_reveal, "device {device} was told of survivors who are not durably charged");
            }
            Reply::Chunk(_) | Reply::Drawn(_) | Reply::Inbox { .. } | Reply::Received | Reply::Over(_) => {}
        }
    }

    /// Nobody is told of a version that could still be lost.
    fn is_durable(&self, published: &Published) {
        let known = self.versions.get(&published.version);
        let is_known = published.version == 0 || known == Some(&published.adapter);
        assert!(is_known, "a device was told of version {} which is not durable", published.version);
    }

    fn decides(&mut self, world: &World, effects: &[TaskEffect]) {
        self.task.made_durable(effects);
        for effect in effects {
            match effect {
                TaskEffect::FixSurvivors { round, survivors } => assert!(
                    survivors.len() >= self.report_goal && survivors.len() >= 2,
                    "a sum of {} devices may be opened for round {round}",
                    survivors.len()
                ),
                TaskEffect::Commit { version, adapter, .. } => {
                    self.versions.insert(version.version, version.adapter);
                    self.sum(world, version.version, &vector_from_bytes(adapter).unwrap());
                }
                TaskEffect::Aborted { outcome, .. } => {
                    *self.tally.aborted.entry(outcome.to_string()).or_default() += 1;
                }
                TaskEffect::Gathered { .. }
                | TaskEffect::Charge { .. }
                | TaskEffect::Excluded { .. }
                | TaskEffect::Paused { .. }
                | TaskEffect::End(_) => {}
            }
        }
    }

    /// A version is the one before and the mean of its survivors' updates, and noise enough, of one round or of several.
    fn sum(&mut self, world: &World, version: u32, after: &[f32]) {
        let rounds = self.task.newest().to_vec();
        let of_all = rounds.iter().flat_map(|round| self.task.survivors(*round));
        let survivors: Vec<usize> = of_all.map(|device| world.place(device).unwrap()).collect();
        let before = self.adapter.replace(after.to_owned()).unwrap_or_else(|| vec![0.0; after.len()]);
        let times = members(&before, after, survivors.len(), self.devices);
        let times = times.unwrap_or_else(|| panic!("version {version} is no sum of its devices' updates"));
        for (device, times) in times.iter().enumerate() {
            let wanted = u32::from(survivors.contains(&device));
            assert_eq!(
                *times, wanted,
                "device {device} is {times} times in version {version}, and not exactly once"
            );
        }
        for device in &survivors {
            self.counted[*device] += 1;
            let (counted, node) = (self.counted[*device], &world.nodes[*device]);
            let found: u32 = node.found.iter().map(|(_, found)| found.times).sum();
            let charged = node.charges.len() + found as usize;
            assert!(
                charged >= counted,
                "device {device} was charged {charged} times and is in {counted} sums"
            );
            let known = world.participations(*device) as usize;
            assert!(
                known >= counted,
                "the coordinator counts {known} times for device {device}, in {counted} sums"
            );
        }
        self.noise((version, &before, after), (&times, survivors.len()), rounds.len());
        self.tally.versions += 1;
        self.tally.of_several += u64::from(rounds.len() > 1);
        self.tally.sums += rounds.len() as u64;
        self.tally.counted += survivors.len() as u64;
        for round in rounds {
            let joined = self.joined.get(&round).map_or(0, BTreeSet::len);
            self.tally.sums_with_missing += u64::from(joined > self.task.survivors(round).len());
        }
    }

    fn noise(
        &mut self,
        (version, before, after): (u32, &[f32], &[f32]),
        (times, survivors): (&[u32], usize),
        rounds: usize,
    ) {
        let planned = self.device_variance * survivors as f64;
        let least = self.least_variance * rounds as f64;
        assert!(planned >= least * (1.0 - 1e-9), "{survivors} devices add too little noise to {rounds} sums");
        let mut squares = 0.0;
        let own = |i: usize| {
            let device = (0..self.devices).find(|device| nightshift_tests::one_hot::place(*device) == i);
            device.map_or(0.0, |device| f64::from(times[device]))
        };
        for (i, (before, after)) in before.iter().zip(after).enumerate() {
            let steps = f64::from(after - before) * survivors as f64 / f64::from(STEP);
            squares += (steps - own(i)).powi(2) / planned;
        }
        let mean = squares / after.len() as f64;
        // For a χ² of as many degrees of freedom as there are numbers, which are 66 at least, below one in 10⁹.
        assert!(mean > 0.25, "version {version} has {mean:.2} of the planned noise");
        self.tally.noise += squares;
        self.tally.planned_noise += after.len() as f64;
    }

    /// The world has come to its end.
    pub(crate) fn ends(&mut self, world: &World, whole: bool) {
        for device in 0..self.devices {
            self.ledger_keeps(world, device);
        }
        assert_eq!(world.signed_twice(), 0, "a device signed or answered twice in a round");
        let versions = &world.task().record().versions;
        let versions: Vec<_> = versions.iter().map(|version| (version.version, version.adapter)).collect();
        let known: Vec<_> = self.versions.iter().map(|(version, adapter)| (*version, *adapter)).collect();
        assert_eq!(versions, known, "a version is lost, or there twice");
        let counts = &self.counts;
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        self.tally = Tally {
            worlds: 1,
            whole: u64::from(whole),
            lost: of(&counts.lost),
            repeated: of(&counts.repeated),
            copies: of(&counts.copies),
            late: of(&counts.late),
            device_deaths: of(&counts.device_deaths),
            coordinator_deaths: of(&counts.coordinator_deaths),
            device_disks: of(&counts.device_disks),
            coordinator_disks: of(&counts.coordinator_disks),
            lies: of(&counts.lies),
            ..self.tally.clone()
        };
    }
}

/// Watches a world.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Nothing has happened yet.
    pub(crate) fn new(plan: &Plan, devices: usize, counts: Arc<Counts>) -> Self {
        Self { seen: Arc::new(Mutex::new(Seen::new(plan, devices, counts))) }
    }

    pub(crate) fn seen(&self) -> Arc<Mutex<Seen>> {
        Arc::clone(&self.seen)
    }
}

impl Observer for Watch {
    fn asks(&mut self, world: &World, device: usize, request: &Request) {
        self.seen.lock().unwrap().asks(world, device, request);
    }

    fn answers(&mut self, world: &World, device: usize, answer: &Result<Reply, Rejection>) {
        let mut seen = self.seen.lock().unwrap();
        let ahead = world.nodes[device].ahead_millis();
        if ahead != seen.ahead[device] {
            seen.ahead[device] = ahead;
            seen.tally.clocks_set += 1;
        }
        seen.answers(device, answer);
    }

    fn decides(&mut self, world: &World, effects: &[TaskEffect]) {
        self.seen.lock().unwrap().decides(world, effects);
    }

    fn starts(&mut self, world: &World, device: usize) {
        let mut seen = self.seen.lock().unwrap();
        seen.ledger_keeps(world, device);
        seen.books[device].restarted();
        seen.tally.restarts += 1;
    }
}
