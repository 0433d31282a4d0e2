//! A cohort and an honest server in memory, step by step.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    missing_debug_implementations,
    reason = "shared by test programs, each of which uses a part"
)]

use nightshift_aggregation::{
    Advertised, Advertisement, Agreed, Context, Credential, DeviceIndex, Draw, Evidence, IdentityKey,
    IndexSet, MAX_COMPLETE, Masking, ModelDigest, PlanDigest, Recovery, Refusal, Roster, RunningSum,
    SealedShare, Seed, SessionId, Share, Shared, Sharing, Signature, Submitted, TaskId, Transcript,
    UnmaskError, UnmaskShares, corrupt_devices, quorum, shamir,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

pub const NOW: u64 = 1000;

/// When a device vanishes; in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    BeforeSharing,
    BeforeSubmitting,
    BeforeSigning,
    BeforeUnmasking,
    Stays,
}

/// A cohort whose roster is fixed.
pub struct World {
    pub ctx: Context,
    pub authority: IdentityKey,
    pub identities: Vec<IdentityKey>,
    pub roster: Roster,
    /// From which the roster came, above the complete graph.
    pub draw: Option<Draw>,
}

/// What became of a session.
#[derive(Debug, Default)]
pub struct Run {
    pub masked: Vec<Vec<u32>>,
    pub sum: Option<Vec<u32>>,
    pub error: Option<UnmaskError>,
}

pub fn context() -> Context {
    Context {
        session: SessionId([1; 32]),
        task: TaskId([2; 16]),
        round: 3,
        model_digest: ModelDigest([4; 32]),
        plan_digest: PlanDigest([5; 32]),
        len: 4,
        ring_bits: 20,
        report_goal: 1,
        cohort: 1024,
        corrupt: 0,
        missing_fraction_permille: 300,
        log: None,
    }
}

/// The context of a plan for so many devices, of which 5 % may be corrupt.
pub fn context_of(devices: usize) -> Context {
    Context { cohort: devices, corrupt: corrupt_devices(devices, 50), ..context() }
}

pub fn low(place: usize) -> u32 {
    u32::try_from(place).unwrap()
}

pub fn set(places: usize, members: &[u16]) -> IndexSet {
    let mut set = IndexSet::new(places);
    for member in members {
        assert_eq!(set.insert(*member), Ok(true));
    }
    set
}

pub fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[0xaa; 32])
}

pub fn identity(device: usize) -> IdentityKey {
    let mut seed = [0xbb; 32];
    seed[..2].copy_from_slice(&u16::try_from(device).unwrap().to_be_bytes());
    IdentityKey::from_seed(&seed)
}

pub fn device_id(device: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&u16::try_from(device).unwrap().to_be_bytes());
    id
}

pub fn rng(device: usize) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(u64::try_from(device).unwrap())
}

/// Advertises for a device; the same each time it is asked.
pub fn advertise(ctx: &Context, device: usize) -> (Advertised, Advertisement, ChaCha20Rng) {
    let identity = identity(device);
    let credential = Credential::issue(&authority(), device_id(device), identity.public(), NOW + 1);
    let mut rng = rng(device);
    let (state, advertisement) = Advertised::new(ctx.clone(), &identity, credential, &mut rng);
    (state, advertisement, rng)
}

impl World {
    pub fn new(devices: usize, ctx: &Context) -> Self {
        let (mut states, entries): (Vec<_>, Vec<_>) = (0..devices)
            .map(|device| {
                let (state, entry, _) = advertise(ctx, device);
                (state, entry)
            })
            .unzip();
        let draw = (devices > MAX_COMPLETE).then(|| Draw::new(ctx, entries.clone(), 0).unwrap());
        let roster = match &draw {
            None => Roster::new(entries).unwrap(),
            Some(draw) => {
                // Devices are numbered in the order of their names.
                let nonces: Vec<_> = states.iter_mut().map(|state| state.reveal(draw).unwrap()).collect();
                draw.clone().finish(&nonces).unwrap()
            }
        };
        let identities = (0..devices).map(identity).collect();
        Self { ctx: ctx.clone(), authority: authority(), identities, roster, draw }
    }

    pub fn empty_sum(&self) -> RunningSum {
        RunningSum::new(self.ctx.len, self.ctx.ring_bits).unwrap()
    }

    pub fn len(&self) -> usize {
        self.roster.len()
    }

    pub fn all(&self) -> IndexSet {
        IndexSet::full(self.len())
    }

    /// Shares of the seed that is rebuilt if a device survives, or if it does
    /// not, dealt to its holders once more.
    pub fn deal(&self, device: DeviceIndex, survives: bool) -> Vec<(DeviceIndex, Share)> {
        // In the order in which a device draws them.
        let mut rng = rng(device.into());
        let (key, self_mask) = (Seed::random(&mut rng), Seed::random(&mut rng));
        let holders = self.roster.graph().holders(device);
        let seed = if survives { self_mask } else { key };
        let shares = shamir::split(&seed, self.roster.threshold(), &holders, &mut rng);
        holders.into_iter().zip(shares).collect()
    }

    /// One device's answer to a roster.
    pub fn share(&self, device: usize, roster: Roster) -> Result<(Shared, Vec<SealedShare>), Refusal> {
        let (mut state, _, mut rng) = advertise(&self.ctx, device);
        if let Some(draw) = &self.draw {
            state.reveal(draw)?;
        }
        state.share(roster, &self.authority.public(), NOW, 1, &mut rng)
    }

    /// The shared states of these devices, and all that they sealed.
    pub fn shared(&self, sharers: &IndexSet) -> (Vec<Shared>, Vec<SealedShare>) {
        let mut states = Vec::new();
        let mut sealed = Vec::new();
        for device in sharers.iter() {
            let (state, outbox) = self.share(device.into(), self.roster.clone()).unwrap();
            states.push(state);
            sealed.extend(outbox);
        }
        (states, sealed)
    }

    /// These devices after each received the shares of the others.
    pub fn masking(&self, sharers: &IndexSet) -> Vec<Masking> {
        let (states, sealed) = self.shared(sharers);
        let mut inboxes = vec![Vec::new(); self.len()];
        for share in sealed.into_iter().filter(|share| sharers.contains(share.to)) {
            inboxes[usize::from(share.to)].push(share);
        }
        states
            .into_iter()
            .map(|state| {
                let inbox = std::mem::take(&mut inboxes[usize::from(state.index())]);
                state.receive(sharers.clone(), inbox).unwrap()
            })
            .collect()
    }

    /// These devices after each submitted zeros.
    pub fn submitted(&self, sharers: &IndexSet) -> Vec<Submitted> {
        let zeros = vec![0; self.ctx.len];
        let states = self.masking(sharers).into_iter();
        states.map(|state| self.submit(state, &mut zeros.clone()).0).collect()
    }

    /// Masks an input in place, and signs with whom.
    pub fn submit(&self, state: Masking, input: &mut [u32]) -> (Submitted, Signature) {
        let identity = &self.identities[usize::from(state.index())];
        state.mask(input).unwrap();
        state.submit(identity).unwrap()
    }

    /// The survivors among all devices after each signed.
    pub fn agreed(&self, survivors: &IndexSet) -> (Vec<Agreed>, Evidence) {
        let mut states = Vec::new();
        let mut signatures = Vec::new();
        for state in self.submitted(&self.all()) {
            let index = state.index();
            if survivors.contains(index) {
                let identity = &self.identities[usize::from(index)];
                let (state, signature) = state.agree(survivors.clone(), identity).unwrap();
                states.push(state);
                signatures.push(signature);
            }
        }
        (states, Evidence { agreed: survivors.clone(), signatures })
    }

    /// What the survivors among all devices reveal.
    pub fn revealed(&self, survivors: &IndexSet) -> Vec<UnmaskShares> {
        let (states, evidence) = self.agreed(survivors);
        states.into_iter().map(|state| state.unmask(&evidence).unwrap()).collect()
    }

    pub fn recovery(&self, survivors: &IndexSet) -> Recovery {
        let (ctx, roster) = (self.ctx.clone(), self.roster.clone());
        Recovery::new(ctx, roster, self.all(), survivors.clone()).unwrap()
    }

    pub fn transcript(&self, survivors: &IndexSet) -> Transcript {
        Transcript::new(&self.ctx, &self.roster, &self.all(), survivors)
    }

    /// An honest session in which each device meets its fate.
    pub fn run(&self, fates: &[Fate], inputs: &[Vec<u32>]) -> Run {
        let mut run = Run::default();
        let staying = |step: Fate| {
            let mut set = IndexSet::new(self.len());
            for (device, _) in fates.iter().enumerate().filter(|(_, fate)| **fate > step) {
                set.insert(u16::try_from(device).unwrap()).unwrap();
            }
            set
        };
        let quorum = quorum(self.len(), self.ctx.corrupt);
        let enough = self.ctx.report_goal.max(if self.draw.is_none() { quorum } else { 1 });
        let sharers = staying(Fate::BeforeSharing);
        if sharers.len() < enough {
            return run;
        }
        let survivors = staying(Fate::BeforeSubmitting);
        let mut sum = self.empty_sum();
        let mut submitted = Vec::new();
        let sharing = Sharing::new(&self.ctx, &self.roster, sharers.clone());
        // One of each survivor: first over the sharers, then over the transcript of those that come to sign it.
        let mut signatures = Vec::new();
        for state in self.masking(&sharers) {
            let index = state.index();
            let mut masked = inputs[usize::from(index)].clone();
            let (state, signature) = self.submit(state, &mut masked);
            if survivors.contains(index) {
                sharing.verify(&self.roster, index, &signature).unwrap();
                signatures.push(signature);
                sum.add_chunk(0, &masked).unwrap();
                run.masked.push(masked);
                submitted.push(state);
            }
        }
        if survivors.len() < enough {
            return run;
        }
        let transcript = Transcript::new(&self.ctx, &self.roster, &sharers, &survivors);
        let signers = staying(Fate::BeforeSigning);
        let mut agreed = Vec::new();
        for (state, known) in submitted.into_iter().zip(&mut signatures) {
            let index = state.index();
            let identity = &self.identities[usize::from(index)];
            let (state, signature) = state.agree(survivors.clone(), identity).unwrap();
            if signers.contains(index) {
                transcript.verify(&self.roster, index, &signature).unwrap();
                *known = signature;
                agreed.push(state);
            }
        }
        if agreed.len() < transcript.quorum() {
            return run;
        }
        let mut who = IndexSet::new(self.len());
        for state in &agreed {
            who.insert(state.index()).unwrap();
        }
        let evidence = Evidence { agreed: who, signatures };
        let revealing = staying(Fate::BeforeUnmasking);
        let (ctx, roster) = (self.ctx.clone(), self.roster.clone());
        let mut recovery = Recovery::new(ctx, roster, sharers, survivors).unwrap();
        for state in agreed {
            if revealing.contains(state.index()) {
                recovery.accept(state.unmask(&evidence).unwrap()).unwrap();
            }
        }
        match recovery.finish(sum) {
            Ok(coordinates) => run.sum = Some(coordinates),
            Err(error) => run.error = Some(error),
        }
        run
    }
}

/// What the neighbours of a device seal for it.
pub fn sealed_for(world: &World, to: DeviceIndex) -> Vec<SealedShare> {
    sealed_in(world, &world.roster, world.draw.as_ref(), to)
}

/// The same in another roster, of which this was the draw.
pub fn sealed_in(world: &World, roster: &Roster, draw: Option<&Draw>, to: DeviceIndex) -> Vec<SealedShare> {
    let neighbors = roster.graph().neighbors(to).into_iter();
    let sealed = neighbors.flat_map(|from| {
        let (mut state, _, mut rng) = advertise(&world.ctx, from.into());
        if let Some(draw) = draw {
            state.reveal(draw).unwrap();
        }
        state.share(roster.clone(), &world.authority.public(), NOW, 1, &mut rng).unwrap().1
    });
    sealed.filter(|share| to == share.to).collect()
}

/// What of all sealed shares is for one device.
pub fn inbox(sealed: &[SealedShare], to: u16) -> Vec<SealedShare> {
    sealed.iter().filter(|share| share.to == to).cloned().collect()
}
