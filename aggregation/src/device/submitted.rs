//! Consistency: the device's one signature over who survived.

use super::{Agreed, Held, Refusal, Seat, agreed::Revealed};
use crate::{
    identity::{IdentityKey, Signature},
    index::{DeviceIndex, IndexSet},
    sharing::Sharing,
    transcript::Transcript,
};

/// A device that submitted its masked input and waits for the survivors.
#[derive(Debug)]
pub struct Submitted {
    seat: Seat,
    sharing: Sharing,
    held: Vec<Held>,
}

impl Submitted {
    pub(super) const fn new(seat: Seat, sharing: Sharing, held: Vec<Held>) -> Self {
        Self { seat, sharing, held }
    }

    /// With whom the device signed that it masked.
    pub const fn sharing(&self) -> &Sharing {
        &self.sharing
    }

    /// The device's place in the roster.
    pub const fn index(&self) -> DeviceIndex {
        self.seat.index
    }

    /// Signs the survivors, once. From here on the device holds one share of
    /// each sharer: of its own mask if it survived, else of its key.
    ///
    /// Refuses survivors over another roster, without this device, with one
    /// that never shared, fewer than the report goal or, in the complete graph,
    /// the quorum, or so few in one stretch of the ring that the corrupt could
    /// cut the others in two; and an identity key that is not this device's.
    pub fn agree(self, survivors: IndexSet, identity: &IdentityKey) -> Result<(Agreed, Signature), Refusal> {
        let Self { seat, sharing, held } = self;
        seat.check_places(&survivors)?;
        if !survivors.contains(seat.index) {
            return Err(Refusal::ListedMissing);
        }
        if let Some(index) = survivors.clone().without(sharing.sharers()).iter().next() {
            return Err(Refusal::UnknownSurvivor { index });
        }
        let (got, need) = (survivors.len(), seat.fewest());
        if got < need {
            return Err(Refusal::FewSurvivors { got, need });
        }
        if let Some((first, got, need)) = seat.roster.graph().thin_window(&survivors) {
            return Err(Refusal::ThinWindow { first, got, need });
        }
        seat.check_identity(identity)?;
        let revealed = held
            .into_iter()
            .map(|Held { owner, pair }| {
                if survivors.contains(owner) {
                    Revealed::SelfMask(owner, pair.self_mask)
                } else {
                    Revealed::Key(owner, pair.key)
                }
            })
            .collect();
        let transcript = Transcript::over(&seat.ctx, &seat.roster, sharing.sharers(), survivors);
        let signature = transcript.statement.sign(identity);
        let agreed = Agreed::new(seat, sharing, transcript, revealed);
        Ok((agreed, signature))
    }
}
