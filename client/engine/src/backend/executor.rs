//! Runs an engine's passes on its backend: splits batches into micro-batches and accumulates their gradients.

use super::candle;
use crate::backend::compute::{ROWS_APART, ROWS_TOGETHER, is_small};
use crate::backend::device::Backend;
use crate::backend::error::ComputeError;
use crate::backend::partial_step::PartialStep;
use crate::backend::setup::Setup;
use crate::kernels::error::ShapeError;
use crate::kernels::matmul::Precision;
use crate::kernels::narrow;
use crate::kernels::pool::Team;
use crate::lora::layout::AdapterLayout;
use crate::model::batch::Sequence;
use crate::model::config::Ropes;
use crate::model::decoder::Decoder;
use crate::model::delta::LoraDeltas;
use crate::model::gradient_target::GradientTarget;
use crate::model::micro_batch::micro_batches;
use crate::model::workspace::Workspace;

/// Of a pass on any backend.
type Result<T> = std::result::Result<T, ComputeError>;

/// Runs passes of one engine, with buffers that are reused.
#[derive(Debug)]
pub(crate) struct Executor<'a> {
    setup: Setup<'a>,
    length: usize,
    /// The decoder on a candle device, once it was needed.
    on_candle: Option<candle::Decoder<'a>>,
    ropes: Ropes,
    precision: Precision,
    /// Whether threads take whole micro-batches, each on its own, instead of parts of products.
    apart: bool,
    spaces: Vec<Space>,
}

/// The buffers of one pass, and the gradient that it accumulates.
type Space = (Workspace, Vec<f32>);

impl<'a> Executor<'a> {
    /// An executor for sequences of at most `length` tokens.
    pub(crate) fn new(setup: Setup<'a>, length: usize) -> Self {
        let config = setup.base.config();
        Self {
            setup,
            length,
            on_candle: None,
            ropes: config.ropes(length),
            precision: setup.compute.precision_for(setup.base),
            apart: is_small(config),
            spaces: Vec::new(),
        }
    }

    /// The decoder on a candle device, made on the first call; `None` with our own kernels. Fails if the device
    /// cannot be opened or the base does not fit it.
    pub(crate) fn on_candle(&mut self) -> Result<Option<&candle::Decoder<'a>>> {
        let Setup { base, folded_deltas, compute, resident } = self.setup;
        if self.on_candle.is_none()
            && let Some(loaded) = resident.get(base, compute)?
        {
            let decoder =
                candle::Decoder::new(base.config(), loaded, folded_deltas, compute.recompute, self.length)?;
            self.on_candle = Some(decoder);
        }
        Ok(self.on_candle.as_ref())
    }

    /// The decoder that [`Self::on_candle`] made, if any.
    pub(crate) fn candle_decoder(&self) -> Option<&candle::Decoder<'a>> {
        self.on_candle.as_ref()
    }

    pub(crate) fn decoder<'d>(&'d self, deltas: &'d LoraDeltas<'d>, team: Team) -> Decoder<'d> {
        Decoder {
            config: self.setup.base.config(),
            weights: self.setup.base.weights(),
            deltas,
            ropes: &self.ropes,
            precision: self.precision,
            team,
            recompute: self.setup.compute.recompute,
        }
    }

    /// An adapter's LoRA deltas on top of the engine's folded deltas, ready for passes.
    pub(crate) fn deltas<'v>(
        &self,
        places: &AdapterLayout<'_>,
        frozen: &'v [f32],
        trained: &'v [f32],
    ) -> Result<LoraDeltas<'v>>
    where
        'a: 'v,
    {
        self.ready(places.deltas(frozen, trained)?)
    }

    /// The engine's folded deltas without an adapter, ready for passes.
    pub(crate) fn no_deltas(&self) -> Result<LoraDeltas<'a>> {
        self.ready(LoraDeltas::default())
    }

    fn ready<'v>(&self, deltas: LoraDeltas<'v>) -> Result<LoraDeltas<'v>>
    where
        'a: 'v,
    {
        let mut deltas = deltas.on(self.setup.folded_deltas);
        if self.apart && self.setup.compute.backend == Backend::Cpu {
            deltas.fold(self.setup.base.weights())?;
        }
        Ok(deltas)
    }

    /// Rows (tokens) of what our own kernels compute between two reports: a micro-batch, or the whole batch where
    /// threads take whole micro-batches.
    fn rows(&self) -> usize {
        if self.apart { usize::MAX } else { ROWS_TOGETHER }
    }

    /// The batch's mean loss per target token, and its gradient with respect to the trained vector; `None` if
    /// `go_on` says no between two micro-batches, which it is not asked where threads take whole micro-batches.
    ///
    /// `partial` is what is done of the step already; after a `None` the next call goes on from it.
    pub(crate) fn gradient(
        &mut self,
        deltas: &LoraDeltas<'_>,
        trained_len: usize,
        batch: &[Sequence<'_>],
        partial: &mut PartialStep,
        go_on: impl FnMut(u32, u32) -> bool,
    ) -> Result<Option<(f32, Vec<f32>)>> {
        let targets: usize = batch.iter().map(Sequence::targets).sum();
        let share = 1.0 / targets.max(1) as f32;
        let mut gradient = std::mem::take(&mut partial.gradient);
        let whole = if let Some(decoder) = self.on_candle()? {
            let (adapter, mut sum) = (decoder.adapter(deltas)?, decoder.gradients(&gradient)?);
            let whole = partial.accumulate(batch, decoder.rows(), go_on, |micro_batch| {
                decoder.gradient(&adapter, micro_batch, share, &mut sum)
            })?;
            gradient = sum.into_vec(trained_len)?;
            whole
        } else {
            gradient.resize(trained_len, 0.0);
            partial.accumulate(batch, self.rows(), go_on, |micro_batch| {
                self.add_gradient(deltas, micro_batch, share, &mut gradient)
            })?
        };
        if !whole {
            partial.gradient = gradient;
            return Ok(None);
        }
        gradient.resize(trained_len, 0.0);
        Ok(Some((narrow(partial.loss / targets.max(1) as f64), gradient)))
    }

    /// Adds the batch's gradient, times `share`, to `sum` with our own kernels; returns the summed loss.
    fn add_gradient(
        &mut self,
        deltas: &LoraDeltas<'_>,
        batch: &[Sequence<'_>],
        share: f32,
        sum: &mut Vec<f32>,
    ) -> Result<f64> {
        let micro = self.micro_batches(batch);
        // The first micro-batch adds to the sum itself, each other to a gradient of its own, so that the order
        // of additions does not depend on the threads.
        let mut spaces = self.spaces(micro.len());
        for (_, gradient) in spaces.iter_mut().take(micro.len()).skip(1) {
            gradient.clear();
            gradient.resize(sum.len(), 0.0);
        }
        std::mem::swap(&mut spaces[0].1, sum);
        let losses = self.each(deltas, &micro, &mut spaces[..micro.len()], |decoder, (space, sum), batch| {
            decoder.gradient(space, batch, share, GradientTarget::Adapter(sum))
        });
        std::mem::swap(&mut spaces[0].1, sum);
        for (_, gradient) in spaces.iter().take(micro.len()).skip(1) {
            sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x);
        }
        self.spaces = spaces;
        Ok(losses?.iter().sum())
    }

    /// The summed loss of all target tokens.
    pub(crate) fn loss(&mut self, deltas: &LoraDeltas<'_>, batch: &[Sequence<'_>]) -> Result<f64> {
        if let Some(decoder) = self.on_candle()? {
            let adapter = decoder.adapter(deltas)?;
            let micro = micro_batches(batch, decoder.rows());
            let mut sum = 0.0;
            for micro_batch in micro {
                sum += decoder.loss(&adapter, micro_batch)?;
            }
            return Ok(sum);
        }
        let micro = self.micro_batches(batch);
        let beside = if self.apart { Team::current().threads().min(micro.len()) } else { 1 };
        let mut spaces = self.spaces(beside);
        let losses = self.each(deltas, &micro, &mut spaces[..beside], |decoder, (space, _), batch| {
            decoder.loss(space, batch)
        });
        self.spaces = spaces;
        Ok(losses?.iter().sum())
    }

    /// The micro-batches of our own kernels.
    fn micro_batches<'b, 's>(&self, batch: &'b [Sequence<'s>]) -> Vec<&'b [Sequence<'s>]> {
        micro_batches(batch, if self.apart { ROWS_APART } else { ROWS_TOGETHER })
    }

    /// The buffers of earlier passes, and new ones until there are `count`.
    fn spaces(&mut self, count: usize) -> Vec<Space> {
        let mut spaces = std::mem::take(&mut self.spaces);
        spaces.resize_with(count.max(spaces.len()), Default::default);
        spaces
    }

    /// Runs `pass` on each micro-batch with our own kernels, and returns what each gives. Each of `spaces` takes
    /// an equal part of them, one after the other, beside the other spaces.
    fn each(
        &self,
        deltas: &LoraDeltas<'_>,
        micro: &[&[Sequence<'_>]],
        spaces: &mut [Space],
        pass: impl Fn(&Decoder<'_>, &mut Space, &[Sequence<'_>]) -> std::result::Result<f64, ShapeError> + Sync,
    ) -> std::result::Result<Vec<f64>, ShapeError> {
        let team = Team::current();
        let decoder = self.decoder(deltas, if self.apart { Team::ALONE } else { team });
        let mut losses = vec![0.0; micro.len()];
        let share = micro.len().div_ceil(spaces.len().max(1)).max(1);
        let parts = micro.chunks(share).zip(losses.chunks_mut(share)).zip(spaces).collect();
        team.try_each(
            parts,
            |((batches, losses), space): ((&[&[Sequence<'_>]], &mut [f64]), &mut Space)| {
                for (batch, loss) in batches.iter().zip(losses) {
                    *loss = pass(&decoder, space, batch)?;
                }
                Ok::<_, ShapeError>(())
            },
        )?;
        Ok(losses)
    }
}
