//! What stands where candle is not built in: nothing can be computed on its devices.

use std::convert::Infallible;
use std::marker::PhantomData;

use crate::backend::device::{CandleDevice, DeviceError};
use crate::backend::error::ComputeError;
use crate::base::Base;
use crate::kernels::matmul::Precision;
use crate::model::batch::{BatchShape, Sequence};
use crate::model::compute::Recompute;
use crate::model::config::DecoderConfig;
use crate::model::delta::{FoldedDeltas, LoraDeltas};
use crate::model::kv_cache::LogitsFor;

/// A base on a device, of which there is none.
#[derive(Debug)]
pub(crate) struct Loaded(Infallible);

/// A decoder on a device, of which there is none.
#[derive(Debug)]
pub(crate) struct Decoder<'a>(Infallible, PhantomData<&'a ()>);

/// An adapter on a device, of which there is none.
#[derive(Debug)]
pub(crate) struct Adapter<'a>(Infallible, PhantomData<&'a ()>);

/// A gradient on a device, of which there is none.
#[derive(Debug)]
pub(crate) struct Gradients(Infallible);

/// The key/value cache of a device.
#[derive(Debug, Default)]
pub(crate) struct Reading {}

/// Fails: the program was built without candle.
pub(crate) fn check(device: CandleDevice) -> Result<(), DeviceError> {
    Err(DeviceError::NotBuilt { device, feature: device.feature() })
}

impl Loaded {
    pub(crate) fn new(
        _base: &Base,
        device: CandleDevice,
        _precision: Option<Precision>,
    ) -> Result<Self, DeviceError> {
        Err(DeviceError::NotBuilt { device, feature: device.feature() })
    }
}

impl Gradients {
    pub(crate) fn into_vec(self, _len: usize) -> Result<Vec<f32>, ComputeError> {
        match self.0 {}
    }
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(
        _config: &'a DecoderConfig,
        loaded: &'a Loaded,
        _folded_deltas: &FoldedDeltas,
        _recompute: Recompute,
        _length: usize,
    ) -> Result<Self, ComputeError> {
        match loaded.0 {}
    }

    pub(crate) fn rows(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn adapter(&self, _deltas: &LoraDeltas<'_>) -> Result<Adapter<'_>, ComputeError> {
        match self.0 {}
    }

    pub(crate) fn gradients(&self, _before: &[f32]) -> Result<Gradients, ComputeError> {
        match self.0 {}
    }

    pub(crate) fn gradient(
        &self,
        _adapter: &Adapter<'_>,
        _batch: &[Sequence<'_>],
        _share: f32,
        _gradients: &mut Gradients,
    ) -> Result<f64, ComputeError> {
        match self.0 {}
    }

    pub(crate) fn loss(&self, _adapter: &Adapter<'_>, _batch: &[Sequence<'_>]) -> Result<f64, ComputeError> {
        match self.0 {}
    }

    pub(crate) fn logits(
        &self,
        _adapter: &Adapter<'_>,
        _reading: &mut Reading,
        _tokens: &[u32],
        _which: LogitsFor,
    ) -> Result<Vec<f32>, ComputeError> {
        match self.0 {}
    }
}

/// Nothing: no pass can be made there.
pub(crate) fn needed_bytes(
    _config: &DecoderConfig,
    _recompute: Recompute,
    _shape: BatchShape,
    _device: CandleDevice,
) -> u64 {
    0
}

/// Nothing: no weight can be put there.
pub(crate) fn copied_bytes(_config: &DecoderConfig, _device: CandleDevice) -> u64 {
    0
}

/// What would be said of the precision there.
pub(crate) fn numbers(_base: &Base, device: CandleDevice, _precision: Option<Precision>) -> String {
    device.to_string()
}
