//! A text that is read on, with our own kernels or at a place of candle's.

use candle_core::Result;

use crate::backend::candle;
use crate::model::decoder::Decoder;
use crate::model::delta::Changes;
use crate::model::kv_cache::{Cache, Which};
use crate::model::workspace::Workspace;

/// What reads, and what it has read.
#[derive(Debug)]
pub(crate) enum Reader<'a> {
    Own { decoder: Decoder<'a>, space: Box<Workspace>, cache: Cache },
    Candle { decoder: &'a candle::Decoder<'a>, adapter: candle::Adapter<'a>, reading: candle::Reading },
}

impl<'a> Reader<'a> {
    pub(crate) fn own(decoder: Decoder<'a>) -> Self {
        Self::Own { decoder, space: Box::default(), cache: Cache::default() }
    }

    pub(crate) fn candle(decoder: &'a candle::Decoder<'a>, changes: &Changes<'_>) -> Result<Self> {
        let adapter = decoder.adapter(changes)?;
        Ok(Self::Candle { decoder, adapter, reading: candle::Reading::default() })
    }

    /// The logits after each of `tokens`, which follow what was read: (tokens, vocab), or those after the last one.
    pub(crate) fn logits(&mut self, tokens: &[u32], which: Which) -> Result<Vec<f32>> {
        match self {
            Self::Own { decoder, space, cache } => decoder.logits(space, cache, tokens, which),
            Self::Candle { decoder, adapter, reading } => decoder.logits(adapter, reading, tokens, which),
        }
    }
}
