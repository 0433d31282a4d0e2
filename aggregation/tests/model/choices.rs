//! The coordinator's choices, one after the other.

use stateright::{Model, Property};

use crate::{
    knowledge::Knowledge,
    rule::Plan,
    setting::{Set, Setting, devices, has, size, subsets},
    sums::{self, Read, Reading},
};

/// A world in which every choice of the coordinator is tried.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) plan: Plan,
    pub(crate) settings: Vec<Setting>,
    /// On which roster each transcript is that the coordinator aims at.
    pub(crate) aims: Vec<usize>,
    /// Aims that are given, where not all are to be tried.
    pub(crate) given: Vec<Aim>,
}

/// A transcript for which the coordinator wants answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Aim {
    pub(crate) roster: usize,
    pub(crate) sharers: Set,
    pub(crate) survivors: Set,
}

impl Aim {
    /// Whether devices that follow either sign the same about whom they masked with.
    pub(crate) fn has_sharers_of(self, other: Self) -> bool {
        (self.roster, self.sharers) == (other.roster, other.sharers)
    }
}

/// How far one advertisement of an honest device comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Path {
    /// Told what an aim says, it goes with it to the end.
    Follow(usize),
    /// Told the sharers of an aim it sends its masked input, and restarts.
    Crash(usize),
    /// It shares under a roster. What it is told then is in no aim.
    Stray(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) setting: usize,
    pub(crate) aims: Vec<Aim>,
    /// One for each advertisement.
    pub(crate) paths: Vec<Path>,
    /// The advertisements that stray, may send a masked input, and whose own
    /// mask the coordinator knows.
    pub(crate) liable: Vec<usize>,
    /// The neighbors each of them was told had shared, if it went on.
    pub(crate) lies: Vec<Option<Set>>,
    pub(crate) read: Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Aim(Aim),
    Path(Path),
    Lie(Option<Set>),
}

impl World {
    pub(crate) fn setting(&self, state: &State) -> &Setting {
        &self.settings[state.setting]
    }

    /// Every transcript that devices could be brought to sign.
    fn aims(&self, state: &State, actions: &mut Vec<Action>) {
        let (setting, roster) = (self.setting(state), self.aims[state.aims.len()]);
        if let Some(aim) = self.given.iter().find(|aim| aim.roster == roster) {
            actions.push(Action::Aim(*aim));
            return;
        }
        let told = &setting.rosters[roster];
        let quorum = if self.plan.rule.quorum { self.plan.quorum(told) } else { 1 };
        let classes = state
            .aims
            .iter()
            .fold(setting.classes.clone(), |classes, aim| classes.split(aim.sharers).split(aim.survivors));
        for sharers in subsets(told.members) {
            if !self.plan.bears_sharers(told, sharers) || !classes.is_first(sharers) {
                continue;
            }
            let classes = classes.clone().split(sharers);
            for survivors in subsets(sharers) {
                if size(survivors) >= quorum
                    && classes.is_first(survivors)
                    && self.plan.agrees(told, survivors)
                {
                    actions.push(Action::Aim(Aim { roster, sharers, survivors }));
                }
            }
        }
    }

    /// Every way that the next advertisement can go.
    fn paths(&self, state: &State, actions: &mut Vec<Action>) {
        let setting = self.setting(state);
        let next = state.paths.len();
        let advertisement = setting.advertisements[next];
        let device = advertisement.device;
        let superseded = !advertisement.second && has(setting.restarted(), device);
        let mut rosters: Vec<usize> =
            (0..setting.rosters.len()).filter(|roster| advertisement.rosters >> roster & 1 == 1).collect();
        // It revealed a nonce if it is in a drawn roster, and then may not share under a complete one.
        let drawn = |roster: &usize| setting.rosters[*roster].ring.is_some();
        if self.plan.rule.nonce_binds_complete && rosters.iter().any(drawn) {
            rosters.retain(drawn);
        }
        let first = self.like_the_one_before(state, next);
        for roster in rosters {
            let mut ways = vec![Path::Stray(roster)];
            for (index, aim) in state.aims.iter().enumerate() {
                if aim.roster != roster || !has(aim.sharers, device) {
                    continue;
                }
                if !superseded || (!self.plan.rule.signing_is_durable && !self.plan.rule.sharing_is_durable) {
                    ways.push(Path::Follow(index));
                } else if !self.plan.rule.sharing_is_durable {
                    ways.push(Path::Crash(index));
                }
            }
            for way in ways {
                if first.is_none_or(|first| way >= first) && !self.is_hopeless(state, way) {
                    actions.push(Action::Path(way));
                }
            }
        }
    }

    /// The path of the device before if nothing tells the two apart.
    fn like_the_one_before(&self, state: &State, next: usize) -> Option<Path> {
        let setting = self.setting(state);
        let before = next.checked_sub(1)?;
        let (one, other) = (setting.advertisements[before], setting.advertisements[next]);
        let once =
            |device: usize| setting.advertisements.iter().filter(|entry| entry.device == device).count() == 1;
        let classes = state
            .aims
            .iter()
            .fold(setting.classes.clone(), |classes, aim| classes.split(aim.sharers).split(aim.survivors));
        let alike =
            classes.0[one.device] == classes.0[other.device] && once(one.device) && once(other.device);
        alike.then(|| state.paths[before])
    }

    /// Whether some aim can no longer get an answer if the next advertisement
    /// goes this way. Such a choice gives the coordinator no more than the
    /// choice without that aim.
    fn is_hopeless(&self, state: &State, way: Path) -> bool {
        let setting = self.setting(state);
        let mut paths = state.paths.clone();
        paths.push(way);
        let could = |aim: usize, device: usize| {
            let decided = setting.advertisements.iter().zip(&paths);
            let undecided = &setting.advertisements[paths.len()..];
            decided
                .into_iter()
                .any(|(entry, path)| entry.device == device && self.signs(state, *path, device, aim))
                || undecided
                    .iter()
                    .any(|entry| entry.device == device && entry.rosters >> state.aims[aim].roster & 1 == 1)
        };
        (0..state.aims.len()).any(|index| {
            let aim = state.aims[index];
            let hopeful = devices(aim.survivors)
                .filter(|device| has(setting.corrupt, *device) || could(index, *device))
                .count();
            self.plan.rule.quorum && hopeful < self.plan.quorum(&setting.rosters[aim.roster])
        })
    }

    /// Whether a device on this path signs the transcript of an aim.
    pub(crate) fn signs(&self, state: &State, path: Path, device: usize, aim: usize) -> bool {
        match path {
            Path::Follow(index) if has(state.aims[aim].survivors, device) => {
                index == aim
                    || (!self.plan.rule.signs_once && state.aims[index].has_sharers_of(state.aims[aim]))
            }
            Path::Follow(_) | Path::Crash(_) | Path::Stray(_) => false,
        }
    }

    /// Every set of neighbors that the next one that strays could be told.
    fn lies(&self, state: &State, actions: &mut Vec<Action>) {
        let setting = self.setting(state);
        let index = state.liable[state.lies.len()];
        let device = setting.advertisements[index].device;
        let Path::Stray(at) = state.paths[index] else { return };
        let roster = &setting.rosters[at];
        let knowledge = Knowledge::of(self, state);
        let opened = knowledge.shared[at] | setting.corrupt;
        let near = roster.neighbors(device);
        // Masks that are known do no harm to the coordinator, and more sharers are more likely enough.
        let known = |other: &usize| {
            setting.advertisement(at, *other).is_none_or(|other| knowledge.keys >> other & 1 == 1)
        };
        let free = devices(near & opened).filter(known).fold(0, |set: Set, other| set | 1 << other);
        let far = roster.members & !near;
        for told in subsets(near & !free) {
            if self.plan.receives(roster, device, told | free | far, opened) {
                actions.push(Action::Lie(Some(told | free)));
            }
        }
        if actions.is_empty() {
            actions.push(Action::Lie(None));
        }
    }
}

impl Reading for State {
    fn read(&self) -> Read {
        self.read
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = |setting| State {
            setting,
            aims: Vec::new(),
            paths: Vec::new(),
            liable: Vec::new(),
            lies: Vec::new(),
            read: Read::default(),
        };
        let admitted =
            |setting: &usize| self.settings[*setting].rosters.iter().all(|roster| self.plan.admits(roster));
        (0..self.settings.len()).filter(admitted).map(start).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.aims.len() < self.aims.len() {
            self.aims(state, actions);
        } else if state.paths.len() < self.setting(state).advertisements.len() {
            self.paths(state, actions);
        } else if state.lies.len() < state.liable.len() {
            self.lies(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Aim(aim) => next.aims.push(aim),
            Action::Path(path) => next.paths.push(path),
            Action::Lie(told) => next.lies.push(told),
        }
        if next.paths.len() < self.setting(&next).advertisements.len() {
            return Some(next);
        }
        let knowledge = Knowledge::of(self, &next);
        if matches!(action, Action::Path(_)) {
            if !knowledge.everybody_goes_on {
                return None;
            }
            next.liable = knowledge.liable(&next);
        }
        if next.lies.len() == next.liable.len() {
            next.read = Read::of(&knowledge.inputs(self, &next), &self.plan);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        sums::properties()
    }
}
