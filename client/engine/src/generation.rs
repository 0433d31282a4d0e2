//! Incremental decoding: logits of tokens that continue a sequence, from a key/value cache.

use crate::backend::candle;
use crate::backend::error::ComputeError;
use crate::backend::executor::Executor;
use crate::kernels::pool::Team;
use crate::model::decoder::Decoder;
use crate::model::delta::LoraDeltas;
use crate::model::kv_cache::{KvCache, LogitsFor};
use crate::model::workspace::Workspace;

/// A decoder and its key/value cache, with our own kernels or on a candle device.
#[derive(Debug)]
pub(crate) enum DecodeSession<'a> {
    Cpu { decoder: Decoder<'a>, space: Box<Workspace>, cache: KvCache },
    Candle { decoder: &'a candle::Decoder<'a>, adapter: candle::Adapter<'a>, reading: candle::Reading },
}

impl<'a> DecodeSession<'a> {
    /// A session with an empty cache; fails if the device cannot be opened or the base does not fit it.
    pub(crate) fn new(
        executor: &'a mut Executor<'_>,
        deltas: &'a LoraDeltas<'a>,
    ) -> Result<Self, ComputeError> {
        executor.on_candle()?;
        let executor = &*executor;
        match executor.candle_decoder() {
            Some(decoder) => {
                let adapter = decoder.adapter(deltas)?;
                Ok(Self::Candle { decoder, adapter, reading: candle::Reading::default() })
            }
            None => Ok(Self::Cpu {
                decoder: executor.decoder(deltas, Team::current()),
                space: Box::default(),
                cache: KvCache::default(),
            }),
        }
    }

    /// Returns the logits after each of `tokens`, (tokens, vocab), or after the last one only, (1, vocab). The
    /// tokens continue the sequence in the cache and are added to it.
    pub(crate) fn logits(&mut self, tokens: &[u32], which: LogitsFor) -> Result<Vec<f32>, ComputeError> {
        match self {
            Self::Cpu { decoder, space, cache } => Ok(decoder.logits(space, cache, tokens, which)?),
            Self::Candle { decoder, adapter, reading } => {
                Ok(decoder.logits(adapter, reading, tokens, which)?)
            }
        }
    }
}
