//! The device's side: five states, each of which consumes the last.
//!
//! [`Advertised`] → [`Shared`] → [`Masking`] → [`Submitted`] → [`Agreed`]. A
//! refusal ends the session on the device: its secrets are wiped with the
//! state that refused. To try again takes a new session with fresh keys.
//!
//! A device that signed with whom it masked cannot sign that it masked with
//! others:
//!
//! ```compile_fail,E0382
//! use aggregation::{IdentityKey, Masking};
//!
//! fn both_sharers(masking: Masking, key: &IdentityKey) {
//!     let _ = masking.submit(key);
//!     let _ = masking.submit(key); // `masking` was consumed
//! }
//! ```
//!
//! One that signed one survivor set cannot sign a second:
//!
//! ```compile_fail,E0382
//! use aggregation::{IdentityKey, IndexSet, Submitted};
//!
//! fn both_views(submitted: Submitted, one: IndexSet, other: IndexSet, key: &IdentityKey) {
//!     let _ = submitted.agree(one, key);
//!     let _ = submitted.agree(other, key); // `submitted` was consumed
//! }
//! ```
//!
//! And it cannot reveal its shares a second time, so never both of one device:
//!
//! ```compile_fail,E0382
//! use aggregation::{Agreed, Evidence};
//!
//! fn both_masks(agreed: Agreed, one: &Evidence, other: &Evidence) {
//!     let _ = agreed.unmask(one);
//!     let _ = agreed.unmask(other); // `agreed` was consumed
//! }
//! ```

mod advertised;
mod agreed;
mod masking;
mod refusal;
mod shared;
mod submitted;

pub use self::{
    advertised::Advertised,
    agreed::{Agreed, UnmaskShares},
    masking::Masking,
    refusal::Refusal,
    shared::Shared,
    submitted::Submitted,
};

use crate::{
    batch::Check,
    context::Context,
    graph::quorum,
    identity::{IdentityKey, IdentityPublic},
    index::{DeviceIndex, IndexSet},
    roster::Roster,
    sealing::SharePair,
};

/// A device's place in a session.
#[derive(Debug)]
struct Seat {
    ctx: Context,
    roster: Roster,
    index: DeviceIndex,
    /// Whose credentials count, and when they were looked at.
    authority: IdentityPublic,
    now_unix_secs: u64,
}

impl Seat {
    /// Fewest devices that may be left at any step: enough for the report goal
    /// and, in the complete graph, for a quorum, which is no fewer than rebuild
    /// a seed. A quorum signs in the end all the same; to ask for it here too
    /// means that no step alone holds the promise.
    fn fewest(&self) -> usize {
        let complete = !self.roster.is_drawn();
        let quorum = if complete { quorum(self.roster.len(), self.ctx.corrupt) } else { 1 };
        self.ctx.report_goal.max(quorum)
    }

    /// Most shares that may fail to open: as many neighbours as may be corrupt.
    /// One always may, or in a cohort of which none counts as corrupt a single
    /// dealer of nonsense would end everybody's session.
    fn most_unopened(&self) -> usize {
        let ring = self.roster.is_drawn();
        let corrupt = if ring { self.ctx.corrupt.min(self.roster.threshold() - 1) } else { self.ctx.corrupt };
        corrupt.max(1)
    }

    /// Fails unless the key is that of this device's credential.
    fn check_identity(&self, identity: &IdentityKey) -> Result<(), Refusal> {
        let own = self.roster.entry(self.index).map(|entry| entry.credential.identity);
        if own == Some(identity.public()) { Ok(()) } else { Err(Refusal::OtherIdentity) }
    }

    /// Fails if fewer of the device's neighbours are in `set` than rebuild a
    /// seed. In the complete graph [`Seat::fewest`] sees to that.
    fn check_neighbors(&self, set: &IndexSet) -> Result<(), Refusal> {
        let neighbors = self.roster.graph().neighbors(self.index).into_iter();
        let (got, need) = (neighbors.filter(|place| set.contains(*place)).count(), self.roster.threshold());
        if self.roster.is_drawn() && got < need { Err(Refusal::FewNeighbors { got, need }) } else { Ok(()) }
    }

    /// Fails unless the device in a place is enrolled. That of a neighbour was
    /// seen when it advertised.
    fn check_enrolled(&self, index: DeviceIndex, check: &mut Check<'_>) -> Result<(), Refusal> {
        if index == self.index || self.roster.graph().are_neighbors(index, self.index) {
            return Ok(());
        }
        let entry = self.roster.entry(index).ok_or(Refusal::NotInRoster)?;
        let enrolled = entry.credential.verify_by(&self.authority, self.now_unix_secs, check);
        enrolled.map_err(|source| Refusal::Advertisement { index, source: source.into() })
    }

    /// Fails unless `set` is over this roster.
    fn check_places(&self, set: &IndexSet) -> Result<(), Refusal> {
        let (got, expected) = (set.places(), self.roster.len());
        if got == expected { Ok(()) } else { Err(Refusal::Places { got, expected }) }
    }
}

/// The shares that a device holds of one device's seeds.
#[derive(Debug)]
struct Held {
    owner: DeviceIndex,
    pair: SharePair,
}
