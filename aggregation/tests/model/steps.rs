//! The protocol step by step: every message at every time that it could come,
//! to every device. Nothing is left out on the ground that something else is
//! as good, so only small worlds can be looked through; they show that what
//! `choices.rs` leaves out is not missed.

use stateright::{Model, Property};

use crate::{
    rule::Plan,
    setting::{Roster, Set, devices, has, size, subsets},
    sums::{self, Input, Read, Reading},
};

/// A small world, over the complete graph.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub(crate) plan: Plan,
    pub(crate) honest: usize,
    pub(crate) corrupt: usize,
    /// How many of the honest may restart, once each.
    pub(crate) restarts: usize,
    /// The members of the rosters that are shown; if there are none, of all
    /// that devices would share under.
    pub(crate) shown: Vec<Set>,
}

/// A roster by what its root stands for: its members, and whose second
/// advertisement it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Root {
    pub(crate) members: Set,
    pub(crate) second: Set,
}

/// What became of one advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Life {
    root: Option<Root>,
    /// With whom it masked its input, of which pieces may have left.
    sharers: Option<Set>,
    /// The last piece left, with the signature over the sharers.
    sent: bool,
    /// Whose shares it holds.
    held: Set,
    /// The survivors it signed for, and whether it answered.
    signed: [Option<Signed>; 2],
    /// Of whom it revealed a share of the own mask, and of the key.
    selves: Set,
    keys: Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Signed {
    survivors: Set,
    answered: bool,
}

impl Life {
    fn has_signed(&self, survivors: Set) -> bool {
        self.signed.iter().flatten().any(|signed| signed.survivors == survivors)
    }

    /// The same with other names.
    fn renamed(&self, rename: impl Fn(Set) -> Set) -> Self {
        let root = |root: Root| Root { members: rename(root.members), second: rename(root.second) };
        let signed = |signed: Signed| Signed { survivors: rename(signed.survivors), ..signed };
        let mut renamed = Self {
            root: self.root.map(root),
            sharers: self.sharers.map(&rename),
            sent: self.sent,
            held: rename(self.held),
            signed: self.signed.map(|it| it.map(signed)),
            selves: rename(self.selves),
            keys: rename(self.keys),
        };
        renamed.signed.sort_unstable();
        renamed
    }

    /// The same whatever the names.
    fn shape(&self) -> impl Ord + use<> {
        let root = self.root.map(|root| (size(root.members), size(root.second)));
        let signed = self.signed.map(|it| it.map(|signed| (size(signed.survivors), signed.answered)));
        let revealed = (size(self.held), size(self.selves), size(self.keys));
        (root, self.sharers.map(size), self.sent, signed.iter().flatten().copied().max(), revealed)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Device {
    may_restart: bool,
    lives: Vec<Life>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    honest: Vec<Device>,
    read: Read,
}

/// What happens to one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It forgets everything but its ledger, and advertises again.
    Restart,
    /// It is shown a roster, and shares its seeds.
    Share(Root),
    /// It is told who shared, and begins to send its masked input.
    Mask(Set),
    /// It sends the last piece with its signature.
    Finish,
    /// It is told who survived, and signs.
    Sign(Set),
    /// It is shown all signatures there are, and answers.
    Answer(Set),
}

impl Steps {
    fn corrupt(&self) -> Set {
        ((1 << self.corrupt) - 1) << self.honest
    }

    /// Every roster that could be shown to a device now.
    fn roots(&self, state: &State, device: usize) -> Vec<Root> {
        let all = (1 << (self.honest + self.corrupt)) - 1;
        let restarted = |device: &usize| state.honest.get(*device).is_some_and(|it| it.lives.len() > 1);
        let seconds = devices(all).filter(restarted).fold(0, |set: Set, device| set | 1 << device);
        let own = 1 << device;
        let fits = |members: &Set| {
            has(*members, device)
                && self.plan.admits(&Roster::complete(*members, 0))
                && (self.shown.is_empty() || self.shown.contains(members))
        };
        let mut roots = Vec::new();
        for members in subsets(all).filter(fits) {
            for second in subsets(seconds & members).filter(|second| second & own == seconds & own) {
                roots.push(Root { members, second });
            }
        }
        roots
    }

    fn steps(&self, state: &State, device: usize) -> Vec<Step> {
        let it = &state.honest[device];
        let (life, rule) = (&it.lives[it.lives.len() - 1], &self.plan.rule);
        let mut steps = Vec::new();
        let recorded =
            (life.sent && rule.sharing_is_durable) || (life.signed[1].is_some() && rule.signing_is_durable);
        if it.may_restart && it.lives.len() == 1 && !recorded {
            steps.push(Step::Restart);
        }
        let Some(root) = life.root else {
            steps.extend(self.roots(state, device).into_iter().map(Step::Share));
            return steps;
        };
        let roster = Roster::complete(root.members, root.second);
        let Some(sharers) = life.sharers else {
            let opened = state.shared(root) | self.corrupt();
            let told = subsets(root.members)
                .filter(|told| has(*told, device) && self.plan.receives(&roster, device, *told, opened));
            steps.extend(told.map(Step::Mask));
            return steps;
        };
        if !life.sent {
            steps.push(Step::Finish);
            return steps;
        }
        // The second place is the first to be taken.
        if life.signed[usize::from(rule.signs_once)].is_none() {
            let told = subsets(sharers).filter(|told| {
                has(*told, device) && self.plan.agrees(&roster, *told) && !life.has_signed(*told)
            });
            steps.extend(told.map(Step::Sign));
        }
        for Signed { survivors, .. } in life.signed.iter().flatten().filter(|signed| !signed.answered) {
            let signed = state.who(root, |life| life.sharers == Some(sharers) && life.has_signed(*survivors));
            let shown = state.shown(root, sharers) | self.corrupt();
            if self.plan.answers(&roster, device, *survivors, signed | self.corrupt(), shown) {
                steps.push(Step::Answer(*survivors));
            }
        }
        steps
    }

    fn inputs(&self, state: &State) -> Vec<Input> {
        let name = |device: usize, second: bool| 2 * device + usize::from(second);
        let known = |root: Root, device: usize, of: fn(&Life) -> Set| {
            let roster = Roster::complete(root.members, root.second);
            let revealing = state.who(root, |life| has(of(life), device));
            size((revealing | self.corrupt()) & roster.members) >= roster.threshold()
        };
        // The key of an advertisement, if it shared at all, is known by the roster it shared under.
        let key_is_known = |device: usize, second: bool| {
            let life = state.honest[device].lives.get(usize::from(second));
            life.and_then(|life| life.root).is_some_and(|root| known(root, device, |life| life.keys))
        };
        let mut inputs = Vec::new();
        for (device, it) in state.honest.iter().enumerate() {
            for (life, second) in it.lives.iter().zip([false, true]) {
                let (Some(root), Some(sharers)) = (life.root, life.sharers) else { continue };
                let own = name(device, second);
                let unknown = |peer: &usize| {
                    *peer != device
                        && !has(self.corrupt(), *peer)
                        && !key_is_known(device, second)
                        && !key_is_known(*peer, has(root.second, *peer))
                };
                let bound = self.plan.rule.masks_bound_to_roster;
                let from = if bound { usize::from(root.members) << 16 | usize::from(root.second) } else { 0 };
                let masks = devices(sharers).filter(unknown).map(|peer| {
                    let peer = name(peer, has(root.second, peer));
                    (own.min(peer), own.max(peer), from)
                });
                let own_is_known = known(root, device, |life| life.selves);
                inputs.push(Input { device, own_is_known, masks: masks.collect() });
            }
        }
        inputs
    }
}

impl State {
    /// The devices whose advertisement in a roster came as far as that.
    fn who(&self, root: Root, far: impl Fn(&Life) -> bool) -> Set {
        let lives = self.honest.iter().enumerate().filter_map(|(device, it)| {
            let life = it.lives.get(usize::from(has(root.second, device)))?;
            (life.root == Some(root) && far(life)).then_some(device)
        });
        lives.fold(0, |set, device| set | 1 << device)
    }

    fn shared(&self, root: Root) -> Set {
        self.who(root, |_| true)
    }

    fn shown(&self, root: Root, sharers: Set) -> Set {
        self.who(root, |life| life.sent && life.sharers == Some(sharers))
    }

    /// The same with other names for the honest; of all those the least among
    /// the ones in which they are in order of their shapes.
    pub(crate) fn representative(&self) -> Self {
        let shape = |device: &usize| {
            let it = &self.honest[*device];
            let last = it.lives.last().map(Life::shape);
            (it.may_restart, it.lives.len(), it.lives.first().map(Life::shape), last)
        };
        let mut order: Vec<usize> = (0..self.honest.len()).collect();
        order.sort_by_cached_key(shape);
        let shapes: Vec<_> = order.iter().map(shape).collect();
        let alike = |one: usize, other: usize| shapes[one] == shapes[other];
        let mut least = None;
        permute(&mut order, 0, &alike, &mut |order| {
            let renamed = self.renamed(order);
            if least.as_ref().is_none_or(|least| renamed < *least) {
                least = Some(renamed);
            }
        });
        least.unwrap_or_else(|| self.clone())
    }

    /// With the honest in this order.
    fn renamed(&self, order: &[usize]) -> Self {
        let mut names = [0; 16];
        for (name, device) in order.iter().enumerate() {
            names[*device] = name;
        }
        let rename = |set: Set| {
            let corrupt = set >> order.len() << order.len();
            devices(set & !corrupt).fold(corrupt, |renamed, device| renamed | 1 << names[device])
        };
        let device = |device: &usize| {
            let Device { may_restart, lives } = &self.honest[*device];
            let lives = lives.iter().map(|life| life.renamed(rename)).collect();
            Device { may_restart: *may_restart, lives }
        };
        Self { honest: order.iter().map(device).collect(), read: self.read }
    }
}

/// Every order that exchanges only what is alike.
fn permute(
    order: &mut Vec<usize>,
    from: usize,
    alike: &impl Fn(usize, usize) -> bool,
    visit: &mut impl FnMut(&[usize]),
) {
    if from == order.len() {
        visit(order);
    }
    for place in (from..order.len()).filter(|place| alike(from, *place)) {
        order.swap(from, place);
        permute(order, from + 1, alike, visit);
        order.swap(from, place);
    }
}

impl Reading for State {
    fn read(&self) -> Read {
        self.read
    }
}

impl Model for Steps {
    type State = State;
    type Action = (usize, Step);

    fn init_states(&self) -> Vec<State> {
        let advertised =
            |device| Device { may_restart: device < self.restarts, lives: vec![Life::default()] };
        vec![State { honest: (0..self.honest).map(advertised).collect(), read: Read::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<(usize, Step)>) {
        for device in 0..self.honest {
            actions.extend(self.steps(state, device).into_iter().map(|step| (device, step)));
        }
    }

    fn next_state(&self, state: &State, (device, step): (usize, Step)) -> Option<State> {
        let mut next = state.clone();
        let it = &mut next.honest[device];
        let life = it.lives.last_mut()?;
        match step {
            Step::Restart => it.lives.push(Life::default()),
            Step::Share(root) => life.root = Some(root),
            Step::Mask(sharers) => {
                life.sharers = Some(sharers);
                life.held = state.shared(life.root?) & sharers;
            }
            Step::Finish => life.sent = true,
            Step::Sign(survivors) => {
                // Nothing is less than something.
                life.signed[0] = Some(Signed { survivors, answered: false });
                life.signed.sort_unstable();
            }
            Step::Answer(survivors) => {
                let sharers = life.sharers?;
                let shown = state.shown(life.root?, sharers) | self.corrupt();
                for signed in life.signed.iter_mut().flatten() {
                    signed.answered |= signed.survivors == survivors;
                }
                life.selves |= life.held & self.plan.unmasks(survivors, shown);
                life.keys |= life.held & sharers & !survivors;
            }
        }
        next.read = Read::of(&self.inputs(&next), &self.plan);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        sums::properties()
    }
}
