//! Incremental decoding: logits of tokens that follow what was read before.

use crate::backend::candle;
use crate::backend::error::ComputeError;
use crate::backend::executor::Passes;
use crate::kernels::pool::Team;
use crate::model::decoder::Decoder;
use crate::model::delta::Changes;
use crate::model::kv_cache::{Cache, Which};
use crate::model::workspace::Workspace;

/// A decoder and its key/value cache, with our own kernels or on a device of candle's.
#[derive(Debug)]
pub(crate) enum DecodeSession<'a> {
    Own { decoder: Decoder<'a>, space: Box<Workspace>, cache: Cache },
    Candle { decoder: &'a candle::Decoder<'a>, adapter: candle::Adapter<'a>, reading: candle::Reading },
}

impl<'a> DecodeSession<'a> {
    /// A session that has read nothing; fails where the device cannot be opened or the base does not fit it.
    pub(crate) fn new(passes: &'a mut Passes<'_>, changes: &'a Changes<'a>) -> Result<Self, ComputeError> {
        passes.elsewhere()?;
        let passes = &*passes;
        match passes.found_elsewhere() {
            Some(decoder) => {
                let adapter = decoder.adapter(changes)?;
                Ok(Self::Candle { decoder, adapter, reading: candle::Reading::default() })
            }
            None => Ok(Self::Own {
                decoder: passes.decoder(changes, Team::current()),
                space: Box::default(),
                cache: Cache::default(),
            }),
        }
    }

    /// The logits after each of `tokens`, which follow what was read: (tokens, vocab), or those after the last one.
    pub(crate) fn logits(&mut self, tokens: &[u32], which: Which) -> Result<Vec<f32>, ComputeError> {
        match self {
            Self::Own { decoder, space, cache } => Ok(decoder.logits(space, cache, tokens, which)?),
            Self::Candle { decoder, adapter, reading } => {
                Ok(decoder.logits(adapter, reading, tokens, which)?)
            }
        }
    }
}
