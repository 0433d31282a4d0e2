//! A state in words.

use std::fmt::Write;

use crate::{
    choices::{Path, State, World},
    knowledge::{self, Knowledge},
    rule::Evidence,
    setting::{Set, devices, has, size},
    steps::Step,
    sums,
};

fn names(set: Set) -> String {
    let letters: String = devices(set).map(name).collect();
    format!("{{{letters}}}")
}

fn name(device: usize) -> char {
    char::from(b'a' + u8::try_from(device).unwrap())
}

/// What happens, in an order in which it can.
pub(crate) fn story(world: &World, state: &State) -> String {
    let mut text = String::new();
    let setting = world.setting(state);
    let known = Knowledge::of(world, state);
    writeln!(
        text,
        "rule {}: goal {}, a plan for {} devices of which {} may be corrupt; corrupt are {}",
        world.plan.rule.name,
        world.plan.goal,
        world.plan.cohort,
        world.plan.corrupt,
        names(setting.corrupt)
    )
    .unwrap();
    for (index, roster) in setting.rosters.iter().enumerate() {
        let order: Option<String> =
            roster.ring.as_ref().map(|ring| ring.order.iter().map(|device| name(*device)).collect());
        let graph = order.map_or_else(|| "complete".to_owned(), |order| format!("the ring {order}"));
        writeln!(
            text,
            "  roster {index} is {}, {graph}, threshold {}, quorum {}; advertised after a restart: {}",
            names(roster.members),
            roster.threshold(),
            world.plan.quorum(roster),
            names(roster.restarted)
        )
        .unwrap();
    }
    for (index, aim) in state.aims.iter().enumerate() {
        writeln!(
            text,
            "  transcript {index}: in roster {} {} shared and {} survived",
            aim.roster,
            names(aim.sharers),
            names(aim.survivors)
        )
        .unwrap();
    }
    for (index, (entry, path)) in setting.advertisements.iter().zip(&state.paths).enumerate() {
        let who = if entry.second { "after its restart " } else { "" };
        write!(
            text,
            "  {who}{} shares under roster {}",
            name(entry.device),
            knowledge::roster_of(state, *path)
        )
        .unwrap();
        match path {
            Path::Follow(aim) => {
                let aim = state.aims[*aim];
                write!(text, ", is told that {} shared, sends its input", names(aim.sharers)).unwrap();
                let ends = has(aim.survivors, entry.device);
                if ends {
                    write!(text, ", is told that {} survived, signs", names(aim.survivors)).unwrap();
                }
            }
            Path::Crash(aim) => {
                let sharers = names(state.aims[*aim].sharers);
                write!(text, ", is told that {sharers} shared, sends its input, restarts").unwrap();
            }
            Path::Stray(_) => match knowledge::masked_with(world, state, index) {
                Some(told) => {
                    write!(text, ", is told that of its neighbors {} shared, sends its input", names(told))
                        .unwrap();
                }
                None => write!(text, ", and sends nothing that matters").unwrap(),
            },
        }
        writeln!(text).unwrap();
    }
    for (index, answering) in known.answering.iter().enumerate() {
        writeln!(text, "  {} answer on transcript {index}", names(*answering)).unwrap();
    }
    if world.plan.rule.evidence == Evidence::Owner {
        writeln!(text, "  (with shares of own masks only of those that signed these sharers)").unwrap();
    }
    let whose = |known: u32| {
        let mut list = String::new();
        for (index, entry) in setting.advertisements.iter().enumerate() {
            if known >> index & 1 == 1 {
                list.push(name(entry.device));
                list.push_str(if entry.second { "'" } else { "" });
            }
        }
        format!("{{{list}}}")
    };
    writeln!(text, "  known: own masks of {}, keys of {}", whose(known.selves), whose(known.keys)).unwrap();
    for sum in sums::opened(&known.inputs(world, state)) {
        writeln!(text, "  OPENED: the sum of {} ({} honest)", names(sum.devices()), size(sum.devices()))
            .unwrap();
    }
    text
}

/// Steps of devices, in their order.
pub(crate) fn steps(steps: &[(usize, Step)]) -> String {
    let mut text = String::new();
    for (device, step) in steps {
        let what = match step {
            Step::Restart => "restarts and advertises again".to_owned(),
            Step::Share(root) => {
                let (members, second) = (names(root.members), names(root.second));
                format!("shares under the roster {members}, {second} with their second advertisements")
            }
            Step::Mask(sharers) => format!("is told that {} shared, sends its input", names(*sharers)),
            Step::Finish => "sends the signature over the sharers".to_owned(),
            Step::Sign(survivors) => format!("is told that {} survived, signs", names(*survivors)),
            Step::Answer(survivors) => format!("is shown signatures, answers on {}", names(*survivors)),
        };
        writeln!(text, "  {} {what}", name(*device)).unwrap();
    }
    text
}
