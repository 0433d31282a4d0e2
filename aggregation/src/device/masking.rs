//! `MaskedInput`: the only form in which a device's vector leaves it.

use super::{Held, Refusal, Seat, Submitted};
use crate::{
    identity::{IdentityKey, Signature},
    index::{DeviceIndex, IndexSet},
    modular::{Ring, Sign},
    prg::{CHUNK_COORDINATES, Mask, apply_all},
    sharing::Sharing,
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
        apply_all(&self.masks, offset, chunk);
        self.ring.reduce(chunk);
        Ok(())
    }

    /// Masks a whole input in place. Refuses one of another length than the
    /// session.
    pub fn mask(&self, input: &mut [u32]) -> Result<(), Refusal> {
        let (got, expected) = (input.len(), self.seat.ctx.len);
        if got != expected {
            return Err(Refusal::Length { got, expected });
        }
        let mut offset = 0;
        for chunk in input.chunks_mut(CHUNK_COORDINATES) {
            self.mask_chunk(offset, chunk)?;
            offset += chunk.len();
        }
        Ok(())
    }

    /// Signs with whom the input was masked, and goes on; the masks are wiped.
    /// Refuses an identity key that is not this device's.
    ///
    /// The input counts only with this signature. The caller writes down that
    /// the device signed, before the signature leaves, and from then on never
    /// takes part in the same round again, whatever becomes of this state: else
    /// a device that was restarted would be in two sums of one round.
    pub fn submit(self, identity: &IdentityKey) -> Result<(Submitted, Signature), Refusal> {
        let Self { seat, sharers, held, .. } = self;
        seat.check_identity(identity)?;
        let sharing = Sharing::new(&seat.ctx, &seat.roster, sharers);
        let signature = sharing.0.sign(identity);
        Ok((Submitted::new(seat, sharing, held), signature))
    }
}
