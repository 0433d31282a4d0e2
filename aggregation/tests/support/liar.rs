//! A server that lies, and what it can open in the end.
//!
//! Honest devices are the package's own machines and do what they are told, as far as they do not refuse. Of what they
//! reveal only whose share it is counts: a seed is known to the server when it has as many shares as the threshold, and
//! the corrupt hold theirs from the start. So a run takes no time for numbers, and the question which sums are open is
//! answered for every set of inputs at once, see [`Liar::opened`].
#![allow(dead_code, reason = "shared by test programs, each of which uses a part")]

use std::collections::{BTreeMap, BTreeSet};

use nightshift_aggregation::{
    Advertised, Advertisement, Agreed, Context, Credential, DeviceIndex, Draw, Evidence, IdentityKey,
    IndexSet, MAX_COMPLETE, Refusal, Roster, SEALED_SHARE_BYTES, SealedShare, Sharing, Signature, Submitted,
    Transcript,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::world::{NOW, authority, device_id, identity};

/// One advertisement: of which device, and the how manieth, since one that is restarted comes with fresh keys.
pub(crate) type Member = (usize, u8);

/// How far a device goes before it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// It shares no seeds.
    BeforeSharing,
    /// Its input leaves, its signature over the sharers does not.
    BeforeItsSignature,
    /// It does not sign who survived.
    BeforeAgreeing,
    /// It does not answer.
    BeforeAnswering,
    Never,
}

/// What an honest device is told in the roster that it takes part in.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) roster: usize,
    pub(crate) sharers: IndexSet,
    pub(crate) survivors: IndexSet,
    pub(crate) stop: Stop,
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) struct Attack {
    pub(crate) ctx: Context,
    pub(crate) corrupt: BTreeSet<usize>,
    /// Who is listed in each roster. One above the complete graph is draw number `attempt`.
    pub(crate) rosters: Vec<(Vec<Member>, u8)>,
    pub(crate) views: BTreeMap<Member, View>,
}

/// Which rule the devices answer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The package's.
    Evidence,
    /// A quorum on the transcript is enough: what the attacks are for.
    QuorumOnly,
}

/// A masked input that has left a device.
#[derive(Debug)]
struct Input {
    member: Member,
    roster: usize,
    /// With whom it is masked.
    peers: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    SelfMask,
    Key,
}

/// A run of an attack.
#[derive(Debug, Default)]
pub(crate) struct Liar {
    inputs: Vec<Input>,
    /// Holders of whose shares the server knows, by the advertisement whose seed it is.
    shares: BTreeMap<(Member, Kind), BTreeSet<u16>>,
    /// Shares that rebuild a seed, in the roster where they were dealt.
    thresholds: BTreeMap<Member, usize>,
    /// Who refused what.
    pub(crate) refusals: BTreeMap<Member, Refusal>,
    /// Who answered.
    pub(crate) answered: BTreeSet<Member>,
}

/// An advertisement of a device, and the state behind it; the same each time it is asked for.
fn advertise(ctx: &Context, (device, life): Member) -> (Advertised, Advertisement, ChaCha20Rng) {
    let identity = identity(device);
    let credential = Credential::issue(&authority(), device_id(device), identity.public(), NOW + 1);
    let mut rng = ChaCha20Rng::seed_from_u64((u64::from(life) << 32) + device as u64);
    let (state, advertisement) = Advertised::new(ctx.clone(), &identity, credential, &mut rng);
    (state, advertisement, rng)
}

impl Attack {
    fn is_corrupt(&self, member: Member) -> bool {
        self.corrupt.contains(&member.0)
    }

    /// Runs it.
    pub(crate) fn run(&self, rule: Rule) -> Liar {
        Run::new(self).finish(rule)
    }
}

/// An attack on its way.
struct Run<'a> {
    attack: &'a Attack,
    rosters: Vec<Roster>,
    draws: Vec<Option<Draw>>,
    /// Who is in which place, by roster.
    places: Vec<Vec<Member>>,
    /// By roster and receiver.
    sealed: BTreeMap<(usize, u16), Vec<SealedShare>>,
    sharing: BTreeMap<([u8; 32], u16), Signature>,
    consistency: BTreeMap<([u8; 32], u16), Signature>,
    known: Liar,
}

impl<'a> Run<'a> {
    fn new(attack: &'a Attack) -> Self {
        let ctx = &attack.ctx;
        let mut states: BTreeMap<Member, Advertised> = BTreeMap::new();
        let (mut rosters, mut draws, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (members, attempt) in &attack.rosters {
            let mut members = members.clone();
            members.sort_by_key(|(device, _)| device_id(*device));
            let entries: Vec<_> = members.iter().map(|member| advertise(ctx, *member).1).collect();
            if entries.len() <= MAX_COMPLETE {
                rosters.push(Roster::new(entries).unwrap());
                draws.push(None);
            } else {
                let draw = Draw::new(ctx, entries, *attempt).unwrap();
                let nonces: Vec<[u8; 32]> = members
                    .iter()
                    .map(|member| {
                        let state = states.entry(*member).or_insert_with(|| advertise(ctx, *member).0);
                        // The server never shows a device draws out of their order.
                        state.reveal(&draw).unwrap()
                    })
                    .collect();
                rosters.push(draw.clone().finish(&nonces).unwrap());
                draws.push(Some(draw));
            }
            places.push(members);
        }
        Self {
            attack,
            rosters,
            draws,
            places,
            sealed: BTreeMap::new(),
            sharing: BTreeMap::new(),
            consistency: BTreeMap::new(),
            known: Liar::default(),
        }
    }

    fn finish(mut self, rule: Rule) -> Liar {
        let attack = self.attack;
        let mut agreed = Vec::new();
        let mut shared = Vec::new();
        for (member, view) in &attack.views {
            if !attack.is_corrupt(*member) && view.stop > Stop::BeforeSharing {
                let state = self.share(*member, view.roster);
                shared.extend(state.map(|state| (*member, view, state)));
            }
        }
        for roster in 0..self.rosters.len() {
            self.corrupt_share(roster);
        }
        // A device that signed with whom it masked takes part in the round no more.
        let mut signed = BTreeSet::new();
        let mut submitted: Vec<(Member, &View, Submitted)> = Vec::new();
        for (member, view, state) in shared {
            if signed.contains(&member.0) {
                continue;
            }
            if let Some(state) = self.submit(member, view, state) {
                signed.insert(member.0);
                submitted.push((member, view, state));
            }
        }
        for (member, view, state) in submitted {
            if view.stop <= Stop::BeforeAgreeing {
                continue;
            }
            let index = state.index();
            match state.agree(view.survivors.clone(), &identity(member.0)) {
                Ok((state, signature)) => {
                    self.consistency.insert((state.transcript().digest(), index.get()), signature);
                    agreed.push((member, view, state));
                }
                Err(refusal) => drop(self.known.refusals.insert(member, refusal)),
            }
        }
        for (member, view, state) in agreed {
            if view.stop == Stop::Never {
                self.answer(member, view, state, rule);
            }
        }
        self.known
    }

    /// Lets an honest device share its seeds.
    fn share(&mut self, member: Member, roster: usize) -> Option<nightshift_aggregation::Shared> {
        let (mut state, _, mut rng) = advertise(&self.attack.ctx, member);
        for (number, draw) in self.draws.iter().enumerate() {
            if let Some(draw) = draw
                && number <= roster
                && self.places[number].contains(&member)
            {
                state.reveal(draw).unwrap();
            }
        }
        let list = self.rosters[roster].clone();
        match state.share(list, &authority().public(), NOW, 1, &mut rng) {
            Ok((state, sealed)) => {
                self.dealt(member, roster, state.index());
                self.post(roster, sealed);
                Some(state)
            }
            Err(refusal) => {
                self.known.refusals.insert(member, refusal);
                None
            }
        }
    }

    /// What the corrupt hold of an honest device.
    fn dealt(&mut self, member: Member, roster: usize, index: DeviceIndex) {
        let list = &self.rosters[roster];
        self.known.thresholds.insert(member, list.threshold());
        let holders = list.graph().holders(index).into_iter();
        let theirs: BTreeSet<u16> = holders
            .filter(|holder| self.attack.is_corrupt(self.places[roster][usize::from(*holder)]))
            .map(DeviceIndex::get)
            .collect();
        for kind in [Kind::SelfMask, Kind::Key] {
            self.known.shares.insert((member, kind), theirs.clone());
        }
    }

    /// The corrupt seal whatever makes the others go on.
    fn corrupt_share(&mut self, roster: usize) {
        for member in self.places[roster].clone() {
            if !self.attack.is_corrupt(member) {
                continue;
            }
            let (mut state, _, mut rng) = advertise(&self.attack.ctx, member);
            if let Some(draw) = &self.draws[roster] {
                state.reveal(draw).unwrap();
            }
            let list = self.rosters[roster].clone();
            if let Ok((_, sealed)) = state.share(list, &authority().public(), NOW, 1, &mut rng) {
                self.post(roster, sealed);
            }
        }
    }

    fn post(&mut self, roster: usize, sealed: Vec<SealedShare>) {
        for share in sealed {
            self.sealed.entry((roster, share.to)).or_default().push(share);
        }
    }

    /// Lets a device mask its input and sign with whom.
    fn submit(
        &mut self,
        member: Member,
        view: &View,
        state: nightshift_aggregation::Shared,
    ) -> Option<Submitted> {
        let (list, places) = (&self.rosters[view.roster], &self.places[view.roster]);
        let own = state.index();
        let peers: Vec<DeviceIndex> =
            list.graph().neighbors(own).into_iter().filter(|place| view.sharers.contains(*place)).collect();
        let came = self.sealed.get(&(view.roster, own.get())).map_or(&[][..], Vec::as_slice);
        let inbox = peers.iter().map(|peer| {
            let real = came.iter().find(|share| *peer == share.from).cloned();
            // Of a device that never shared here, nonsense.
            let nonsense = || vec![0; SEALED_SHARE_BYTES];
            real.unwrap_or_else(|| SealedShare { from: peer.get(), to: own.get(), bytes: nonsense() })
        });
        let masking = match state.receive(view.sharers.clone(), inbox.collect()) {
            Ok(masking) => masking,
            Err(refusal) => {
                self.known.refusals.insert(member, refusal);
                return None;
            }
        };
        let peers = peers.into_iter().map(|peer| places[usize::from(peer)]).collect();
        self.known.inputs.push(Input { member, roster: view.roster, peers });
        if view.stop <= Stop::BeforeItsSignature {
            return None;
        }
        let (submitted, signature) = masking.submit(&identity(member.0)).unwrap();
        self.sharing.insert((submitted.sharing().digest(), own.get()), signature);
        Some(submitted)
    }

    /// The best evidence that the server has for a device.
    fn evidence(&self, view: &View, transcript: &Transcript, sharing: &Sharing) -> Evidence {
        let places = &self.places[view.roster];
        let corrupt = |place: DeviceIndex| self.attack.is_corrupt(places[usize::from(place)]);
        let key = |place: DeviceIndex| -> IdentityKey { identity(places[usize::from(place)].0) };
        let mut agreed = IndexSet::new(places.len());
        let signatures = view.survivors.iter().map(|place| {
            let signed = self.consistency.get(&(transcript.digest(), place.get())).copied();
            let signed = signed
                .or_else(|| corrupt(place).then(|| key(place).sign("consistency", &[&transcript.digest()])));
            if let Some(signature) = signed {
                agreed.insert(place).unwrap();
                return signature;
            }
            let masked = self.sharing.get(&(sharing.digest(), place.get())).copied();
            masked.unwrap_or(Signature([0; 64]))
        });
        let signatures = signatures.collect();
        Evidence { agreed, signatures }
    }

    fn answer(&mut self, member: Member, view: &View, state: Agreed, rule: Rule) {
        let list = &self.rosters[view.roster];
        let transcript = Transcript::new(&self.attack.ctx, list, &view.sharers, &view.survivors);
        let sharing = Sharing::new(&self.attack.ctx, list, view.sharers.clone());
        let evidence = self.evidence(view, &transcript, &sharing);
        let own = state.index();
        let quorum = evidence.agreed.len() >= transcript.quorum();
        let revealed: Vec<(u16, Kind)> = match (rule, state.unmask(&evidence)) {
            (_, Ok(shares)) => {
                let alive = shares.self_mask.iter().map(|(owner, _)| (*owner, Kind::SelfMask));
                alive.chain(shares.key.iter().map(|(owner, _)| (*owner, Kind::Key))).collect()
            }
            (Rule::Evidence, Err(refusal)) => {
                self.known.refusals.insert(member, refusal);
                return;
            }
            // What it holds, by what it signed.
            (Rule::QuorumOnly, Err(_)) if quorum => {
                let held =
                    list.graph().holders(own).into_iter().filter(|owner| view.sharers.contains(*owner));
                let kind = |owner| if view.survivors.contains(owner) { Kind::SelfMask } else { Kind::Key };
                held.map(|owner: DeviceIndex| (owner.get(), kind(owner))).collect()
            }
            (Rule::QuorumOnly, Err(_)) => return,
        };
        self.known.answered.insert(member);
        for (owner, kind) in revealed {
            let owner = self.places[view.roster][usize::from(owner)];
            let here = self.attack.views.get(&owner).is_some_and(|of| of.roster == view.roster);
            // A ghost dealt its shares elsewhere: here nobody holds any.
            if here && let Some(shares) = self.known.shares.get_mut(&(owner, kind)) {
                shares.insert(own.get());
            }
        }
    }
}

/// Who stands for the group of inputs that this one is in.
fn root(group: &mut [usize], mut at: usize) -> usize {
    while group[at] != at {
        group[at] = group[group[at]];
        at = group[at];
    }
    at
}

impl Liar {
    /// The sums that the server can open, each as the devices whose inputs are in it: sets of inputs whose own masks are
    /// known, and whose pairwise masks are known or are in two inputs of the set. No other combination of inputs is free
    /// of masks, since an unknown one must be taken as often with either sign.
    pub(crate) fn opened(&self, attack: &Attack) -> Vec<BTreeSet<usize>> {
        let knows = |member: Member, kind| {
            let need = self.thresholds.get(&member);
            let got = self.shares.get(&(member, kind)).map_or(0, BTreeSet::len);
            need.is_some_and(|need| got >= *need)
        };
        let of: BTreeMap<(Member, usize), usize> =
            self.inputs.iter().enumerate().map(|(at, input)| ((input.member, input.roster), at)).collect();
        let mut group: Vec<usize> = (0..self.inputs.len()).collect();
        let mut closed: BTreeSet<usize> = BTreeSet::new();
        for (at, input) in self.inputs.iter().enumerate() {
            if !knows(input.member, Kind::SelfMask) {
                closed.insert(at);
            }
            let own_key = knows(input.member, Kind::Key);
            for peer in &input.peers {
                if own_key || attack.is_corrupt(*peer) || knows(*peer, Kind::Key) {
                    continue;
                }
                match of.get(&(*peer, input.roster)) {
                    Some(other) if self.inputs[*other].peers.contains(&input.member) => {
                        let (a, b) = (root(&mut group, at), root(&mut group, *other));
                        group[a] = b;
                    }
                    Some(_) | None => drop(closed.insert(at)),
                }
            }
        }
        let mut sums: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut shut: BTreeSet<usize> = BTreeSet::new();
        for (at, input) in self.inputs.iter().enumerate() {
            let leader = root(&mut group, at);
            sums.entry(leader).or_default().insert(input.member.0);
            if closed.contains(&at) {
                shut.insert(leader);
            }
        }
        sums.into_iter().filter(|(leader, _)| !shut.contains(leader)).map(|(_, devices)| devices).collect()
    }

    /// What is wrong with what the server opened, if anything is.
    pub(crate) fn broken(&self, attack: &Attack) -> Option<String> {
        let sums = self.opened(attack);
        let need = attack.ctx.report_goal - attack.ctx.corrupt;
        let mut seen = BTreeSet::new();
        for sum in &sums {
            if sum.len() < need {
                return Some(format!("a sum of {} honest inputs, expected at least {need}", sum.len()));
            }
            for device in sum {
                if !seen.insert(*device) {
                    return Some(format!("device {device} is in two sums"));
                }
            }
        }
        None
    }
}
