//! Draws the order of a ring so that no side chooses it.
//!
//! Every device commits to a nonce in its advertisement, before the roster is
//! fixed, and opens the commitment after. The order follows from the roster and
//! the nonces of all its devices, so for every device there is at least one
//! number in it, its own, that nobody knew when the roster was fixed.
//!
//! If some devices do not open their commitments, the server cannot just leave
//! their nonces out: it would choose among as many orders as there are sets to
//! leave out. It must start a further draw over a roster without them, with
//! fresh nonces. A device's nonces are a hash chain of [`MAX_DRAWS`] links,
//! opened from its end, and the commitment is to all of them; so a server
//! that lies sees at most [`MAX_DRAWS`] orders a session, all but one of which
//! it has to give up.

use crate::{
    advertisement::Advertisement,
    context::Context,
    graph::{Graph, MAX_COHORT, MAX_COMPLETE, Parameters},
    hash,
    index::DeviceIndex,
    roster::{Entries, Roster, RosterError},
    seed::Seed,
};

/// Draws in one session at most.
pub const MAX_DRAWS: u8 = 4;

/// A cohort whose graph is being drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    entries: Entries,
    attempt: u8,
    parameters: Parameters,
    context_digest: [u8; 32],
    root: [u8; 32],
}

impl Draw {
    /// Draw number `attempt`, from zero, over these advertisements, in any
    /// order.
    ///
    /// Fails if they are no roster, are few enough for the complete graph or
    /// more than [`MAX_COHORT`], have no graph with the context's fractions, or
    /// the session has had all its draws.
    pub fn new(ctx: &Context, entries: Vec<Advertisement>, attempt: u8) -> Result<Self, RosterError> {
        let got = entries.len();
        if !(MAX_COMPLETE + 1..=MAX_COHORT).contains(&got) {
            return Err(RosterError::Size { got, least: MAX_COMPLETE + 1, most: MAX_COHORT });
        }
        if attempt >= MAX_DRAWS {
            return Err(RosterError::DrawsSpent);
        }
        let parameters = Parameters::search(got, ctx.corrupt, ctx.missing_fraction_permille);
        let parameters = parameters.ok_or(RosterError::NoGraph { got })?;
        let entries = Entries::new(entries)?;
        let root = hash::digest("drawn roster", &[&entries.root(), &[attempt]]);
        Ok(Self { entries, attempt, parameters, context_digest: ctx.digest(), root })
    }

    /// Which draw of its session it is, from zero.
    pub const fn attempt(&self) -> u8 {
        self.attempt
    }

    /// What the roster's root will be.
    pub const fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The devices of the cohort, in the order of the roster.
    pub fn entries(&self) -> &[Advertisement] {
        self.entries.as_slice()
    }

    /// The place of a device.
    pub fn index_of(&self, device: &[u8; 16]) -> Option<DeviceIndex> {
        self.entries.index_of(device)
    }

    /// Whether `nonce` is what the device in a place committed to for this
    /// draw.
    pub fn opens(&self, index: impl Into<DeviceIndex>, nonce: &[u8; 32]) -> bool {
        let entry = self.entries().get(usize::from(index.into()));
        entry.is_some_and(|entry| {
            let device = &entry.credential.device;
            let links = self.attempt + 1;
            climb(&self.context_digest, device, *nonce, links) == entry.draw_commitment
        })
    }

    /// The roster, from the nonce of every device, in the order of the roster.
    /// Fails if there is another number of them, or if one is not what its
    /// device committed to.
    pub fn finish(self, nonces: &[[u8; 32]]) -> Result<Roster, RosterError> {
        let (got, expected) = (nonces.len(), self.entries().len());
        if got != expected {
            return Err(RosterError::Nonces { got, expected });
        }
        for (index, nonce) in (0..).map(DeviceIndex::from).zip(nonces) {
            if !self.opens(index, nonce) {
                return Err(RosterError::Nonce { index });
            }
        }
        let seed = hash::digest("ring", &[&self.context_digest, &self.root, nonces.as_flattened()]);
        let graph = Graph::ring(got, self.parameters, &seed).ok_or(RosterError::NoGraph { got })?;
        Ok(Roster::drawn(self.entries, graph, self.root))
    }
}

/// The nonces of a device for one session.
#[derive(Debug)]
pub(crate) struct NonceChain {
    start: Seed,
    context_digest: [u8; 32],
    device: [u8; 16],
}

impl NonceChain {
    pub(crate) const fn new(start: Seed, context_digest: [u8; 32], device: [u8; 16]) -> Self {
        Self { start, context_digest, device }
    }

    /// The commitment to all nonces.
    pub(crate) fn commitment(&self) -> [u8; 32] {
        self.up(MAX_DRAWS)
    }

    /// The nonce for a draw.
    pub(crate) fn nonce(&self, attempt: u8) -> [u8; 32] {
        self.up(MAX_DRAWS.saturating_sub(attempt + 1))
    }

    fn up(&self, links: u8) -> [u8; 32] {
        climb(&self.context_digest, &self.device, *self.start.as_bytes(), links)
    }
}

/// The value so many links up the chain.
fn climb(context_digest: &[u8; 32], device: &[u8; 16], value: [u8; 32], links: u8) -> [u8; 32] {
    (0..links).fold(value, |value, _| hash::digest("draw nonce", &[context_digest, device, &value]))
}
