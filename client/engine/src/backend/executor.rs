//! Runs an engine's passes on its backend: splits batches into micro-batches and accumulates their gradients.

use super::candle;
use crate::backend::compute::{ROWS_APART, ROWS_TOGETHER, is_small};
use crate::backend::device::Backend;
use crate::backend::error::ComputeError;
use crate::backend::setup::Setup;
use crate::kernels::error::ShapeError;
use crate::kernels::matmul::Precision;
use crate::kernels::narrow;
use crate::kernels::pool::Team;
use crate::layers::rope::Rope;
use crate::lora::layout::AdapterLayout;
use crate::model::batch::Sequence;
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
    rope: Rope,
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
            rope: config.rope(length),
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
            rope: &self.rope,
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

    /// Rows (tokens) of one micro-batch with our own kernels.
    fn rows(&self) -> usize {
        if self.apart { ROWS_APART } else { ROWS_TOGETHER }
    }

    /// The batch's mean loss per target token, and its gradient with respect to the trained vector; `None` if
    /// `go_on` says no between two micro-batches, which it is not asked where threads take whole micro-batches.
    pub(crate) fn gradient(
        &mut self,
        deltas: &LoraDeltas<'_>,
        trained_len: usize,
        batch: &[Sequence<'_>],
        mut go_on: impl FnMut(u32, u32) -> bool,
    ) -> Result<Option<(f32, Vec<f32>)>> {
        let targets: usize = batch.iter().map(Sequence::targets).sum();
        let share = 1.0 / targets.max(1) as f32;
        if let Some(decoder) = self.on_candle()? {
            let micro = micro_batches(batch, decoder.rows());
            let computed = decoder.gradient(deltas, trained_len, &micro, share, go_on)?;
            return Ok(computed.map(|(total, gradient)| (narrow(total / targets.max(1) as f64), gradient)));
        }
        let micro = micro_batches(batch, self.rows());
        let mut spaces = std::mem::take(&mut self.spaces);
        let all = if self.apart { micro.len() } else { 1 };
        spaces.resize_with(all.max(spaces.len()), Default::default);
        for (_, gradient) in &mut spaces[..all] {
            gradient.clear();
            gradient.resize(trained_len, 0.0);
        }
        let mut total = 0.0;
        let team = Team::current();
        if self.apart {
            let mut losses = vec![0.0; micro.len()];
            let decoder = self.decoder(deltas, Team::ALONE);
            let parts = micro.iter().zip(&mut spaces).zip(&mut losses).collect();
            team.try_each(
                parts,
                |((batch, (space, gradient)), loss): ((&&[Sequence<'_>], &mut Space), &mut f64)| {
                    *loss = decoder.gradient(space, batch, share, GradientTarget::Adapter(gradient))?;
                    Ok::<_, ShapeError>(())
                },
            )?;
            total += losses.iter().sum::<f64>();
        } else {
            let of = u32::try_from(micro.len()).unwrap_or(u32::MAX);
            let decoder = self.decoder(deltas, team);
            for (done, batch) in (0..).zip(&micro) {
                if done > 0 && !go_on(done, of) {
                    self.spaces = spaces;
                    return Ok(None);
                }
                let (space, gradient) = &mut spaces[0];
                total += decoder.gradient(space, batch, share, GradientTarget::Adapter(gradient))?;
            }
        }
        let (_, mut gradient) =
            spaces.first_mut().map(|(space, gradient)| (space, std::mem::take(gradient))).unzip();
        let gradient = gradient.get_or_insert_default();
        for (_, other) in &spaces[1..all] {
            gradient.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
        }
        let gradient = std::mem::take(gradient);
        self.spaces = spaces;
        Ok(Some((narrow(total / targets.max(1) as f64), gradient)))
    }

    /// The summed loss of all target tokens.
    pub(crate) fn loss(&mut self, deltas: &LoraDeltas<'_>, batch: &[Sequence<'_>]) -> Result<f64> {
        if let Some(decoder) = self.on_candle()? {
            return Ok(decoder.loss(deltas, &micro_batches(batch, decoder.rows()))?);
        }
        let micro = micro_batches(batch, self.rows());
        let mut spaces = std::mem::take(&mut self.spaces);
        let all = if self.apart { Team::current().threads().min(micro.len()) } else { 1 };
        spaces.resize_with(all.max(spaces.len()).max(1), Default::default);
        let mut losses = vec![0.0; micro.len()];
        if self.apart {
            let decoder = self.decoder(deltas, Team::ALONE);
            let share = micro.len().div_ceil(all.max(1)).max(1);
            let parts = micro.chunks(share).zip(losses.chunks_mut(share)).zip(&mut spaces).collect();
            Team::current().try_each(
                parts,
                |((batches, losses), (space, _)): ((&[&[Sequence<'_>]], &mut [f64]), &mut Space)| {
                    for (batch, loss) in batches.iter().zip(losses) {
                        *loss = decoder.loss(space, batch)?;
                    }
                    Ok::<_, ShapeError>(())
                },
            )?;
        } else {
            let decoder = self.decoder(deltas, Team::current());
            for (batch, loss) in micro.iter().zip(&mut losses) {
                *loss = decoder.loss(&mut spaces[0].0, batch)?;
            }
        }
        self.spaces = spaces;
        Ok(losses.iter().sum())
    }
}
