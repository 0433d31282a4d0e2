//! Unmask: one share of each device, once a quorum agrees.

use super::{Refusal, Seat};
use crate::{
    batch::verify_all, evidence::Evidence, index::DeviceIndex, shamir::Share, sharing::Sharing,
    transcript::Transcript,
};

/// A device that signed who survived, and waits for evidence of them all.
#[derive(Debug)]
pub struct Agreed {
    seat: Seat,
    sharing: Sharing,
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
    pub(super) const fn new(
        seat: Seat,
        sharing: Sharing,
        transcript: Transcript,
        revealed: Vec<Revealed>,
    ) -> Self {
        Self { seat, sharing, transcript, revealed }
    }

    /// The device's place in the roster.
    pub const fn index(&self) -> DeviceIndex {
        self.seat.index
    }

    /// What the device signed.
    pub const fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Reveals the shares, all of them or none, once.
    ///
    /// Refuses unless a quorum of survivors signed the same transcript as this
    /// device, every other survivor signed that it masked with the same sharers
    /// in the same roster, every signature holds, and every signer is enrolled.
    /// Evidence of the neighbours alone would not do: see step 2 of the
    /// [argument](crate::argument).
    ///
    /// The survivors are as many as [`Submitted::agree`] asked for, with no
    /// thin stretch of the ring; so are those of whom there is evidence, since
    /// there is of all.
    ///
    /// [`Submitted::agree`]: crate::Submitted::agree
    pub fn unmask(self, evidence: &Evidence) -> Result<UnmaskShares, Refusal> {
        self.transcript.check_signers(evidence)?;
        let signed = self.transcript.survivors().iter().zip(&evidence.signatures);
        verify_all(signed, |(signer, signature), check| {
            let roster = &self.seat.roster;
            if evidence.agreed.contains(signer) {
                self.transcript.statement.verify_by(roster, signer, signature, check)?;
            } else {
                self.sharing.0.verify_by(roster, signer, signature, check)?;
            }
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
