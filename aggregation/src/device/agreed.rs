//! Unmask: one share of each device, once a quorum agrees.

use super::{Refusal, Seat};
use crate::{
    batch::verify_all, identity::Signature, index::DeviceIndex, shamir::Share, transcript::Transcript,
};

/// A device that signed who survived, and waits for the others' signatures.
#[derive(Debug)]
pub struct Agreed {
    seat: Seat,
    transcript: Transcript,
    revealed: Vec<Revealed>,
}

/// The one share of a device that the transcript lets another reveal.
#[derive(Debug)]
pub(super) enum Revealed {
    /// The device survived: its own mask is taken off.
    SelfMask(DeviceIndex, Share),
    /// The device is missing: its pairwise masks are taken off.
    Key(DeviceIndex, Share),
}

/// What one device reveals: of every survivor its share of the own mask's
/// seed, of every missing sharer its share of the key seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmaskShares {
    /// The place of the device that reveals.
    pub from: u16,
    /// For each survivor, its place and the share.
    pub self_mask: Vec<(u16, Share)>,
    /// For each missing sharer, its place and the share.
    pub key: Vec<(u16, Share)>,
}

impl Agreed {
    pub(super) const fn new(seat: Seat, transcript: Transcript, revealed: Vec<Revealed>) -> Self {
        Self { seat, transcript, revealed }
    }

    /// The device's place in the roster.
    pub const fn index(&self) -> DeviceIndex {
        self.seat.index
    }

    /// What the device signed.
    pub const fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Reveals the shares. Refuses unless a quorum of survivors signed the
    /// same transcript as this device, every signature holds, and every signer
    /// is enrolled.
    pub fn unmask(self, signatures: &[(u16, Signature)]) -> Result<UnmaskShares, Refusal> {
        self.transcript.check_signers(signatures)?;
        verify_all(signatures.iter(), |(signer, signature), check| {
            let signer = DeviceIndex::from(*signer);
            self.transcript.verify_by(&self.seat.roster, signer, signature, check)?;
            self.seat.check_enrolled(signer, check)
        })?;
        let mut shares = UnmaskShares { from: self.seat.index.get(), self_mask: Vec::new(), key: Vec::new() };
        for revealed in self.revealed {
            match revealed {
                Revealed::SelfMask(owner, share) => shares.self_mask.push((owner.get(), share)),
                Revealed::Key(owner, share) => shares.key.push((owner.get(), share)),
            }
        }
        shares.self_mask.sort_by_key(|(owner, _)| *owner);
        shares.key.sort_by_key(|(owner, _)| *owner);
        Ok(shares)
    }
}
