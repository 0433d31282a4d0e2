//! What a federation is compared with: what can be had from less, and what from more.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use engine::{Blocks, Engine};
use proto::adapter::State;
use proto::ids::Digest;
use proto::plan::{Mode, Plan};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::inputs::{Inputs, RunError, prepare};
use crate::measure::{Measured, Unseen, mean};
use crate::plain::{federate, unless};
use crate::scenario::Scenario;

/// Step sizes that training in one place is tried with.
const RATES: [f64; 3] = [1e-3, 4e-3, 1.6e-2];

/// Sequences of one step in one place.
const BATCH: u32 = 8;

/// Steps between two looks.
const STRIDE: u32 = 50;

/// Looks, of which the best is shown.
const LOOKS: u32 = 4;

/// What a loss belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Every token is as likely as any other.
    Uniform,
    /// How often each token is in all users' text, whatever stands before it.
    TokenCounts,
    /// The base as it is.
    Base,
    /// The same adapter, trained in one place on public text: what can be had without anybody.
    PublicAlone,
    /// The run itself.
    Federation,
    /// The same federation whose sums are exact, and nothing is hidden.
    WithoutNoise,
    /// The same adapter, trained in one place on everybody's text.
    Central,
}

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Yardstick {
    /// What it is.
    pub name: Against,
    /// The mean over users of the loss on what each held out, in nats a token.
    pub loss: f64,
    /// The mean loss over people who take no part; `None` where there are none.
    pub newcomers_loss: Option<f64>,
    /// With which settings, where some were tried.
    pub settings: Option<String>,
}

impl Against {
    /// For a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::TokenCounts => "token counts",
            Self::Base => "base",
            Self::PublicAlone => "public text alone",
            Self::Federation => "this run",
            Self::WithoutNoise => "without noise",
            Self::Central => "central training",
        }
    }

    /// What it takes of people.
    pub fn takes(self) -> &'static str {
        match self {
            Self::Uniform | Self::Base | Self::PublicAlone => "nothing of anybody",
            Self::TokenCounts => "all text in one place, counted",
            Self::Federation => "sums as this run gives them",
            Self::WithoutNoise => "exact sums",
            Self::Central => "all text in one place",
        }
    }
}

/// Those that cost nothing: uniform, token counts and the base, whose losses are `base`.
pub(crate) fn cheap(inputs: &Inputs<'_>, unseen: &Unseen, len: u32, base: &Measured) -> Vec<Yardstick> {
    let vocabulary = inputs.base.config().vocab_size;
    let uniform = (vocabulary as f64).ln();
    let text: Vec<Blocks> = inputs.users.iter().map(|user| user.corpus.train(len)).collect();
    let counts = Counts::of(&text, vocabulary);
    let newcomers = |loss| (!unseen.newcomers.is_empty()).then_some(loss);
    let counted = Measured {
        held_out: mean(&counts.losses(&unseen.held_out)),
        newcomers: counts.losses(&unseen.newcomers),
    };
    vec![
        Yardstick {
            name: Against::Uniform,
            loss: uniform,
            newcomers_loss: newcomers(uniform),
            settings: None,
        },
        of(Against::TokenCounts, &counted, None),
        of(Against::Base, base, None),
    ]
}

/// Those that are trained: public text alone, where there is some, without noise, and central. Fails after the step in which
/// `stop` is set.
pub(crate) fn trained(
    stop: &AtomicBool,
    scenario: &Scenario,
    inputs: &Inputs<'_>,
    engine: &Engine,
    unseen: &Unseen,
) -> Result<Vec<Yardstick>, RunError> {
    let open = Scenario { mode: Mode::Off, refresh: None, classes: Vec::new(), ..scenario.clone() };
    let (plan, given) = prepare(&open, inputs.base, engine, inputs.public)?;
    let setting = Setting { plan: &plan, given: given.as_deref(), engine, unseen, stop };
    let len = plan.training.sequence_len;
    let text: Vec<Blocks> = inputs.users.iter().map(|user| user.corpus.train(len)).collect();
    let everything = text.iter().cloned().reduce(Blocks::and).unwrap_or_default();
    let seed = scenario.digest("training");
    let one_place: Vec<(Against, &Blocks)> = inputs
        .public
        .map(|public| (Against::PublicAlone, public))
        .into_iter()
        .chain([(Against::Central, &everything)])
        .collect();
    let tries: Vec<(Against, &Blocks, f64)> =
        one_place.iter().flat_map(|(name, text)| RATES.map(|rate| (*name, *text, rate))).collect();
    let without_noise = || {
        let mut last = None;
        federate(
            (engine, stop),
            &plan,
            given.as_deref(),
            &text,
            seed,
            |_| {},
            |_, state| {
                last = Some(state.clone());
                Ok(ControlFlow::Continue(()))
            },
        )?;
        last.map_or_else(|| setting.start(), Ok).and_then(|state| Ok(unseen.measure(engine, &state)?))
    };
    let (without_noise, tried) = rayon::join(without_noise, || {
        tries
            .par_iter()
            .map(|(name, text, rate)| {
                Ok((*name, setting.train(text, *rate, &scenario.digest("yardsticks"))?))
            })
            .collect::<Result<Vec<(Against, Look)>, RunError>>()
    });
    let tried = tried?;
    let best = |wanted: Against| -> Result<Option<Yardstick>, RunError> {
        let looks = tried.iter().filter(|(name, _)| *name == wanted).map(|(_, look)| look);
        let Some(best) = looks.min_by(|a, b| a.judged.total_cmp(&b.judged)) else { return Ok(None) };
        let settings = format!("{} steps of {BATCH} sequences at {}", best.steps, best.rate);
        Ok(Some(of(wanted, &unseen.measure(engine, &best.state)?, Some(settings))))
    };
    Ok([
        best(Against::PublicAlone)?,
        Some(of(Against::WithoutNoise, &without_noise?, None)),
        best(Against::Central)?,
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// A line.
pub(crate) fn of(name: Against, measured: &Measured, settings: Option<String>) -> Yardstick {
    Yardstick { name, loss: measured.held_out, newcomers_loss: measured.newcomers(), settings }
}

/// What all training in one place has alike.
struct Setting<'a> {
    plan: &'a Plan,
    given: Option<&'a [f32]>,
    engine: &'a Engine,
    unseen: &'a Unseen,
    stop: &'a AtomicBool,
}

/// The best of one step size.
struct Look {
    state: State,
    judged: f64,
    steps: u32,
    rate: f64,
}

impl Setting<'_> {
    fn start(&self) -> Result<State, RunError> {
        let trained = self.plan.adapter.initial(&self.plan.initial_seed, self.given);
        Ok(self.plan.state_at(0, self.given, None, &trained)?)
    }

    /// Trains the plan's adapter on `text` in one place, and looks at it now and then. The optimizer begins afresh
    /// after each look, as a device's does after each version; an adapter trained in halves takes turns at looks.
    fn train(&self, text: &Blocks, rate: f64, seed: &Digest) -> Result<Look, RunError> {
        let training = proto::training::TrainingPlan {
            local_steps: STRIDE,
            batch_size: BATCH,
            learning_rate: rate,
            ..self.plan.training.clone()
        };
        let mut trained = self.plan.adapter.initial(&self.plan.initial_seed, self.given);
        let mut best: Option<Look> = None;
        for turn in 0..LOOKS {
            let state = self.plan.state_at(turn, self.given, None, &trained)?;
            let mut seed = seed.0.to_vec();
            seed.extend_from_slice(&turn.to_be_bytes());
            let (seed, mut go_on) = (Digest::of(&seed).0, |_| unless(self.stop));
            let after = self.engine.train(
                &state.spec,
                &state.frozen,
                &state.trained,
                text,
                &training,
                seed,
                &mut go_on,
            )?;
            let places = self.plan.adapter.update_places(turn).into_iter().flatten();
            places.zip(after.parameters).for_each(|(place, x)| trained[place] = x);
            let state = self.plan.state_at(turn + 1, self.given, None, &trained)?;
            let judged = self.judge(&state)?;
            if best.as_ref().is_none_or(|best| judged < best.judged) {
                best = Some(Look { state, judged, steps: (turn + 1) * STRIDE, rate });
            }
        }
        best.map_or_else(|| Ok(Look { state: self.start()?, judged: f64::NAN, steps: 0, rate }), Ok)
    }

    /// The loss of people who take no part, or on what users held out where there are none.
    fn judge(&self, state: &State) -> Result<f64, RunError> {
        let judges =
            if self.unseen.newcomers.is_empty() { &self.unseen.held_out } else { &self.unseen.newcomers };
        Ok(mean(&crate::measure::losses(self.engine, state, judges)?))
    }
}

/// How often each token was a target, one more than it was.
struct Counts {
    of: Vec<f64>,
    all: f64,
}

impl Counts {
    fn of(text: &[Blocks], vocabulary: usize) -> Self {
        let mut of = vec![1.0; vocabulary];
        for token in text.iter().flat_map(targets) {
            if let Some(count) = of.get_mut(token as usize) {
                *count += 1.0;
            }
        }
        let all = of.iter().sum();
        Self { of, all }
    }

    fn losses(&self, texts: &[Blocks]) -> Vec<f64> {
        let loss = |token: u32| self.all.ln() - self.of.get(token as usize).map_or(0.0, |count| count.ln());
        texts.iter().map(|text| mean(&targets(text).map(loss).collect::<Vec<_>>())).collect()
    }
}

/// The tokens that count in the loss.
fn targets(text: &Blocks) -> impl Iterator<Item = u32> {
    text.as_slice().iter().flat_map(|block| {
        block.tokens().iter().zip(block.learned()).filter(|(_, learned)| **learned).map(|(token, _)| *token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_are_those_of_the_text_and_one_more() {
        // The first token of a block is no target: 5 twice, 6 once, of 8 tokens.
        let text = [Blocks::new(&[vec![5, 5, 6]], 0, 8)];
        let counts = Counts::of(&text, 8);
        let losses = counts.losses(&[Blocks::new(&[vec![5]], 0, 8), Blocks::new(&[vec![6, 7]], 0, 8)]);
        let nats = |count: f64| -(count / 11.0).ln();
        assert!((losses[0] - nats(3.0)).abs() < 1e-12, "{losses:?}");
        assert!((losses[1] - f64::midpoint(nats(2.0), nats(1.0))).abs() < 1e-12, "{losses:?}");
    }
}
