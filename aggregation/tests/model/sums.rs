//! Which sums the coordinator can unmask.

use stateright::{Model, Property};

use crate::{
    rule::Plan,
    setting::{Set, size},
};

/// No sum of fewer than the report goal's honest inputs is opened.
pub(crate) const FEW: &str = "every opened sum has as many honest inputs as the report goal wants";

/// No input is in two opened sums, or twice in one.
pub(crate) const TWICE: &str = "no input is opened twice";

/// Else a world says nothing.
pub(crate) const OPENED: &str = "a sum is opened";

/// What the coordinator could read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Read {
    opened: bool,
    few: bool,
    twice: bool,
}

impl Read {
    pub(crate) fn of(inputs: &[Input], plan: &Plan) -> Self {
        let sums = opened(inputs);
        let few = |sum: &Sum| size(sum.devices()) + plan.corrupt < plan.goal;
        let all: usize = sums.iter().map(|sum| sum.inputs.len()).sum();
        let different = size(sums.iter().fold(0, |set, sum| set | sum.devices()));
        Self { opened: !sums.is_empty(), few: sums.iter().any(few), twice: all != different }
    }
}

/// A state in which something could be read.
pub(crate) trait Reading {
    fn read(&self) -> Read;
}

/// What must hold in every state, and what in some.
pub(crate) fn properties<M: Model<State: Reading>>() -> Vec<Property<M>> {
    vec![
        Property::always(FEW, |_, state: &M::State| !state.read().few),
        Property::always(TWICE, |_, state: &M::State| !state.read().twice),
        Property::sometimes(OPENED, |_, state: &M::State| state.read().opened),
    ]
}

/// The mask between two advertisements, the lower first, and what else it
/// depends on.
pub(crate) type Mask = (usize, usize, usize);

/// One masked input that left a device.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) device: usize,
    /// Whether the seed of its own mask is known.
    pub(crate) own_is_known: bool,
    /// The masks in it that are not known.
    pub(crate) masks: Vec<Mask>,
}

/// Masked inputs that can be summed and unmasked together, and no fewer of
/// them.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    /// The device of each.
    inputs: Vec<usize>,
}

impl Sum {
    pub(crate) fn devices(&self) -> Set {
        self.inputs.iter().fold(0, |set, device| set | 1 << device)
    }
}

/// Every opened sum that is not a sum of others.
///
/// A mask is in two masked inputs at most, with opposite signs. So in a sum
/// without unknown masks, whatever multiples of the inputs it takes, it takes
/// equal ones of two inputs that have an unknown mask in common: the sums that
/// can be opened are those made of whole connected parts, each of which has no
/// unknown mask that only one of its inputs has.
pub(crate) fn opened(inputs: &[Input]) -> Vec<Sum> {
    let mut parts: Vec<usize> = (0..inputs.len()).collect();
    let mut closed: Vec<bool> = inputs.iter().map(|input| input.own_is_known).collect();
    for (index, input) in inputs.iter().enumerate() {
        for mask in &input.masks {
            let holds = |(place, other): &(usize, &Input)| *place != index && other.masks.contains(mask);
            match inputs.iter().enumerate().find(holds) {
                None => closed[index] = false,
                Some((other, _)) => {
                    let (one, two) = (parts[index], parts[other]);
                    for part in parts.iter_mut().filter(|part| **part == one) {
                        *part = two;
                    }
                }
            }
        }
    }
    let mut sums = Vec::new();
    for part in 0..inputs.len() {
        let members = || (0..inputs.len()).filter(|index| parts[*index] == part);
        if members().next().is_some() && members().all(|index| closed[index]) {
            sums.push(Sum { inputs: members().map(|index| inputs[index].device).collect() });
        }
    }
    sums
}
