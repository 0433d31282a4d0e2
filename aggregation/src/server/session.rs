//! What the server knows of a session when it begins to unmask.

use crate::{
    agreement::{SeedKind, commitment},
    context::Context,
    index::{DeviceIndex, IndexSet},
    modular::Ring,
    roster::Roster,
    seed::Seed,
};

/// What does not change while shares come.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) ctx: Context,
    pub(super) context_digest: [u8; 32],
    pub(super) ring: Ring,
    pub(super) roster: Roster,
    pub(super) survivors: IndexSet,
    pub(super) missing: IndexSet,
}

impl Session {
    /// Whether a seed is the one that its owner committed to: for its own mask
    /// if it survived, else for its key.
    pub(super) fn is_committed(&self, owner: DeviceIndex, seed: &Seed) -> bool {
        self.roster.entry(owner).is_some_and(|entry| {
            let (kind, committed) = if self.survivors.contains(owner) {
                (SeedKind::SelfMask, entry.self_commitment)
            } else {
                (SeedKind::Key, entry.key_commitment)
            };
            commitment(kind, &self.context_digest, &entry.credential.device, seed) == committed
        })
    }
}
