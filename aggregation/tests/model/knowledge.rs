//! What the coordinator knows in the end, and which sums that opens.

use crate::{
    choices::{Aim, Path, State, World},
    setting::{Advertisement, Set, Setting, devices, has, size},
    sums::Input,
};

/// Advertisements, one bit each.
type Advertisements = u32;

/// What follows from the coordinator's choices.
#[derive(Clone, Debug)]
pub(crate) struct Knowledge {
    /// For each roster the honest devices that shared under it.
    pub(crate) shared: Vec<Set>,
    /// Whose seed of the own mask is known.
    pub(crate) selves: Advertisements,
    /// Whose key seed is known.
    pub(crate) keys: Advertisements,
    /// For each aim, who answers.
    pub(crate) answering: Vec<Set>,
    /// Whether no device refuses what its path says.
    pub(crate) everybody_goes_on: bool,
}

impl Knowledge {
    pub(crate) fn of(world: &World, state: &State) -> Self {
        let setting = world.setting(state);
        let entries = || setting.advertisements.iter().zip(&state.paths);
        let mut shared = vec![0; setting.rosters.len()];
        for (entry, path) in entries() {
            shared[roster_of(state, *path)] |= 1 << entry.device;
        }
        let everybody_goes_on = entries().all(|(entry, path)| match path {
            Path::Follow(index) | Path::Crash(index) => {
                let aim = state.aims[*index];
                let opened = shared[aim.roster] | setting.corrupt;
                world.plan.receives(&setting.rosters[aim.roster], entry.device, aim.sharers, opened)
            }
            Path::Stray(_) => true,
        });

        let answering: Vec<Set> = (0..state.aims.len()).map(|aim| answering(world, state, aim)).collect();
        let mut known = Self { shared, selves: 0, keys: 0, answering, everybody_goes_on };
        for (owner, (entry, path)) in entries().enumerate() {
            let at = roster_of(state, *path);
            let holders = setting.rosters[at].holders(entry.device);
            let (mut selves, mut keys) = (holders & setting.corrupt, holders & setting.corrupt);
            for (aim, answering) in state.aims.iter().zip(&known.answering) {
                if aim.roster != at {
                    continue;
                }
                let shown = signed_sharers(state, setting, *aim);
                if has(aim.survivors, entry.device) {
                    if has(world.plan.unmasks(aim.survivors, shown), entry.device) {
                        selves |= holders & answering;
                    }
                } else if has(aim.sharers, entry.device) {
                    keys |= holders & answering;
                }
            }
            let threshold = setting.rosters[at].threshold();
            known.selves |= Advertisements::from(size(selves) >= threshold) << owner;
            known.keys |= Advertisements::from(size(keys) >= threshold) << owner;
        }
        known
    }

    /// The masked inputs that the coordinator has.
    pub(crate) fn inputs(&self, world: &World, state: &State) -> Vec<Input> {
        let setting = world.setting(state);
        let known = |keys: Advertisements, index: usize| keys >> index & 1 == 1;
        let mut inputs = Vec::new();
        for (index, entry) in setting.advertisements.iter().enumerate() {
            let Some(told) = masked_with(world, state, index) else { continue };
            let at = roster_of(state, state.paths[index]);
            let peers = devices(told).filter_map(|device| setting.advertisement(at, device));
            let root = if world.plan.rule.masks_bound_to_roster { at } else { 0 };
            let masks = peers
                .filter(|peer| !known(self.keys, *peer) && !known(self.keys, index))
                .map(|peer| (index.min(peer), index.max(peer), root));
            let (device, own_is_known) = (entry.device, known(self.selves, index));
            inputs.push(Input { device, own_is_known, masks: masks.collect() });
        }
        inputs
    }

    /// Which of those that stray may have sent a masked input that could be
    /// in an opened sum. A masked input leaves in pieces, and the signature
    /// that goes with it, with its record, after them: so even a device that
    /// restarts may have sent one.
    pub(crate) fn liable(&self, state: &State) -> Vec<usize> {
        let may =
            |index: &usize| matches!(state.paths[*index], Path::Stray(_)) && self.selves >> index & 1 == 1;
        (0..state.paths.len()).filter(may).collect()
    }
}

pub(crate) fn roster_of(state: &State, path: Path) -> usize {
    match path {
        Path::Follow(index) | Path::Crash(index) => state.aims[index].roster,
        Path::Stray(roster) => roster,
    }
}

/// Who can be shown to have masked with the sharers of an aim.
fn signed_sharers(state: &State, setting: &Setting, aim: Aim) -> Set {
    let mut signed = setting.corrupt & setting.rosters[aim.roster].members;
    for (entry, path) in setting.advertisements.iter().zip(&state.paths) {
        if let Path::Follow(index) | Path::Crash(index) = path
            && state.aims[*index].has_sharers_of(aim)
        {
            signed |= 1 << entry.device;
        }
    }
    signed
}

/// The honest that answer when they are shown all there is to show.
fn answering(world: &World, state: &State, index: usize) -> Set {
    let setting = world.setting(state);
    let aim = state.aims[index];
    let shown = signed_sharers(state, setting, aim);
    let signs = |(entry, path): &(&Advertisement, &Path)| world.signs(state, **path, entry.device, index);
    let signers = setting
        .advertisements
        .iter()
        .zip(&state.paths)
        .filter(signs)
        .fold(0, |set: Set, (entry, _)| set | 1 << entry.device);
    let signed = signers | setting.corrupt;
    let roster = &setting.rosters[aim.roster];
    devices(signers)
        .filter(|device| world.plan.answers(roster, *device, aim.survivors, signed, shown))
        .fold(0, |set, device| set | 1 << device)
}

/// The neighbors with which an advertisement masked its input, if it sent one.
pub(crate) fn masked_with(world: &World, state: &State, index: usize) -> Option<Set> {
    let setting = world.setting(state);
    let path = *state.paths.get(index)?;
    let near = setting.rosters[roster_of(state, path)].neighbors(setting.advertisements[index].device);
    match path {
        Path::Follow(aim) | Path::Crash(aim) => Some(state.aims[aim].sharers & near),
        Path::Stray(_) => {
            let place = state.liable.iter().position(|liable| *liable == index)?;
            state.lies.get(place).copied().flatten()
        }
    }
}
