//! Gradient accumulation over the micro-batches of a step, which can be stopped after any of them and resumed.

use crate::model::batch::Sequence;
use crate::model::micro_batch::micro_batches;

/// Sums over the micro-batches of a step that are done; the default is a step of which none is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PartialStep {
    /// Micro-batches that are done.
    pub(crate) micro_batches: u32,
    /// Sequences in them, the first ones of the batch.
    pub(crate) sequences: usize,
    /// Summed loss of their target tokens, in nats.
    pub(crate) loss: f64,
    /// Sum of their gradients; empty before the first.
    pub(crate) gradient: Vec<f32>,
}

impl PartialStep {
    /// Whether a micro-batch is done.
    pub(crate) fn is_begun(&self) -> bool {
        self.micro_batches > 0
    }

    /// Runs `pass`, which returns the summed loss, on the batch's further micro-batches of at most `rows` rows;
    /// returns whether all are done, which they are not where `go_on` says no between two of them.
    ///
    /// The gradient is the caller's: `pass` adds to it where it is computed.
    pub(crate) fn accumulate<E>(
        &mut self,
        batch: &[Sequence<'_>],
        rows: usize,
        mut go_on: impl FnMut(u32, u32) -> bool,
        mut pass: impl FnMut(&[Sequence<'_>]) -> Result<f64, E>,
    ) -> Result<bool, E> {
        let further = micro_batches(batch.get(self.sequences..).unwrap_or_default(), rows);
        let before = self.micro_batches;
        let of = before.saturating_add(u32::try_from(further.len()).unwrap_or(u32::MAX));
        for micro_batch in further {
            if self.micro_batches > before && !go_on(self.micro_batches, of) {
                return Ok(false);
            }
            self.loss += pass(micro_batch)?;
            self.micro_batches = self.micro_batches.saturating_add(1);
            self.sequences += micro_batch.len();
        }
        Ok(true)
    }
}
