//! `MaskedInput`: the only form in which a device's vector leaves it.

use super::{Held, Refusal, Seat, Submitted};
use crate::{
    index::{DeviceIndex, IndexSet},
    modular::{Ring, Sign},
    prg::{CHUNK_COORDINATES, Mask},
};

/// A device that holds the shares of the others and may mask its input.
#[derive(Debug)]
pub struct Masking {
    seat: Seat,
    ring: Ring,
    sharers: IndexSet,
    masks: Vec<(Sign, Mask)>,
    held: Vec<Held>,
}

impl Masking {
    pub(super) const fn new(
        seat: Seat,
        ring: Ring,
        sharers: IndexSet,
        masks: Vec<(Sign, Mask)>,
        held: Vec<Held>,
    ) -> Self {
        Self { seat, ring, sharers, masks, held }
    }

    /// The device's place in the roster.
    pub const fn index(&self) -> DeviceIndex {
        self.seat.index
    }

    /// Masks the coordinates from `offset` on, in place, and keeps the low b
    /// bits of each. Refuses a chunk that ends behind the last coordinate.
    ///
    /// Threads may share the work; [`prg::CHUNK_COORDINATES`] at a time is
    /// fastest. The caller must mask one input only: the difference of two
    /// inputs masked by the same session shows.
    ///
    /// [`prg::CHUNK_COORDINATES`]: crate::prg::CHUNK_COORDINATES
    pub fn mask_chunk(&self, offset: usize, chunk: &mut [u32]) -> Result<(), Refusal> {
        let len = self.seat.ctx.len;
        if offset.checked_add(chunk.len()).is_none_or(|end| end > len) {
            return Err(Refusal::ChunkOutOfRange { offset, chunk: chunk.len(), len });
        }
        for (sign, mask) in &self.masks {
            mask.apply(*sign, offset, chunk);
        }
        self.ring.reduce(chunk);
        Ok(())
    }

    /// Masks a whole input. Refuses one of another length than the session.
    pub fn mask(self, mut input: Vec<u32>) -> Result<(Submitted, Vec<u32>), Refusal> {
        let (got, expected) = (input.len(), self.seat.ctx.len);
        if got != expected {
            return Err(Refusal::Length { got, expected });
        }
        let mut offset = 0;
        for chunk in input.chunks_mut(CHUNK_COORDINATES) {
            self.mask_chunk(offset, chunk)?;
            offset += chunk.len();
        }
        Ok((self.submit(), input))
    }

    /// Goes on after an input was masked in chunks; the masks are wiped.
    pub fn submit(self) -> Submitted {
        Submitted::new(self.seat, self.sharers, self.held)
    }
}
