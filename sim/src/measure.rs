//! How well text is predicted that nothing was trained on.

use engine::{Blocks, Engine, TrainError};
use proto::adapter::State;
use rayon::prelude::*;

use crate::inputs::User;

/// Text that nothing is trained on: what each user held out, and all of those who take no part.
#[derive(Debug)]
pub struct Unseen {
    /// What each user held out.
    pub held_out: Vec<Blocks>,
    /// All text of each person who takes no part.
    pub newcomers: Vec<Blocks>,
}

/// Losses on unseen text, in nats a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The mean over users of the loss on what each held out.
    pub held_out: f64,
    /// The loss of each person who takes no part.
    pub newcomers: Vec<f64>,
}

impl Unseen {
    /// In blocks of so many tokens.
    pub fn new(users: &[User], newcomers: &[User], sequence_len: u32) -> Self {
        let all = |user: &User| user.corpus.train(sequence_len).and(user.corpus.held_out(sequence_len));
        Self {
            held_out: users.iter().map(|user| user.corpus.held_out(sequence_len)).collect(),
            newcomers: newcomers.iter().map(all).collect(),
        }
    }

    /// What an adapter makes of it.
    pub fn measure(&self, engine: &Engine, state: &State) -> Result<Measured, TrainError> {
        let held_out = mean(&losses(engine, state, &self.held_out)?);
        Ok(Measured { held_out, newcomers: losses(engine, state, &self.newcomers)? })
    }
}

impl Measured {
    /// The mean over those who take no part; `None` where there are none.
    pub fn newcomers(&self) -> Option<f64> {
        (!self.newcomers.is_empty()).then(|| mean(&self.newcomers))
    }
}

/// The loss on each of these texts.
pub fn losses(engine: &Engine, state: &State, texts: &[Blocks]) -> Result<Vec<f64>, TrainError> {
    let engine = engine.with_folded(&state.folded)?;
    texts
        .par_iter()
        .map(|blocks| Ok(engine.loss(&state.spec, &state.frozen, &state.trained, blocks)?.nats_per_token))
        .collect()
}

pub(crate) fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}
