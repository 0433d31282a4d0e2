//! Why a device leaves a session.

use thiserror::Error;

use crate::{
    advertisement::AdvertisementError, context::ContextError, evidence::EvidenceError, index::DeviceIndex,
};

/// Why a device leaves a session: what it was given is not what an honest
/// server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The context has a value outside its range.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The roster is smaller than the device's policy or the report goal, or so
    /// small that half of it may be corrupt.
    #[error("a cohort of {got} devices, expected at least {need}")]
    SmallCohort {
        /// The devices in the roster.
        got: usize,
        /// The fewest that the device takes part with.
        need: usize,
    },
    /// The roster is larger than the plan's cohort, so more may be corrupt.
    #[error("a cohort of {got} devices, expected at most {most}")]
    LargeCohort {
        /// The devices in the roster.
        got: usize,
        /// The plan's cohort.
        most: usize,
    },
    /// The device is not in the roster.
    #[error("the roster leaves this device out")]
    NotInRoster,
    /// The device's entry in the roster is not what it advertised.
    #[error("the roster has other keys for this device than it advertised")]
    OwnEntryChanged,
    /// An entry of the roster does not hold.
    #[error("roster entry {index}: {source}")]
    Advertisement {
        /// The place of the entry.
        index: DeviceIndex,
        /// What is wrong with it.
        source: AdvertisementError,
    },
    /// A draw of the graph does not come after the last one.
    #[error("draw {attempt} of the graph over another roster, after draw {last}")]
    EarlierDraw {
        /// The last draw for which the device opened its commitment.
        last: u8,
        /// The draw that it was asked for.
        attempt: u8,
    },
    /// The roster is not the one for which the device last opened its commitment
    /// to a nonce.
    #[error("the roster is not the one for whose graph this device gave its nonce")]
    OtherDraw,
    /// A key in the roster is a point of low order, which leaves no secret.
    #[error("roster entry {index} has a key of low order")]
    LowOrderKey {
        /// The place of the entry.
        index: DeviceIndex,
    },
    /// A set of places is over another roster.
    #[error("a set over {got} places, the roster has {expected}")]
    Places {
        /// The places of the set.
        got: usize,
        /// The places of the roster.
        expected: usize,
    },
    /// The device shared its seeds, yet is not among the sharers.
    #[error("the sharers leave this device out")]
    NotASharer,
    /// Too few devices shared their seeds.
    #[error("{got} devices shared their seeds, expected at least {need}")]
    FewSharers {
        /// The sharers.
        got: usize,
        /// The larger of quorum and report goal, or on the ring the report goal.
        need: usize,
    },
    /// Too few of the device's neighbours shared their seeds.
    #[error("{got} neighbours shared their seeds, expected at least {need}")]
    FewNeighbors {
        /// The neighbours that did.
        got: usize,
        /// The threshold.
        need: usize,
    },
    /// A sealed share is for another device.
    #[error("a sealed share for device {to}, this is device {own}")]
    Misdelivered {
        /// Whom it is for.
        to: DeviceIndex,
        /// This device.
        own: DeviceIndex,
    },
    /// A sealed share is not from a neighbour that shared.
    #[error("a sealed share from device {from}, which sends this device none")]
    UnexpectedShare {
        /// Whom it is from.
        from: DeviceIndex,
    },
    /// Two sealed shares are from one device.
    #[error("two sealed shares from device {from}")]
    RepeatedShare {
        /// Whom they are from.
        from: DeviceIndex,
    },
    /// A sharer's sealed share did not come.
    #[error("no sealed share from device {from}")]
    MissingShare {
        /// Whom it should be from.
        from: DeviceIndex,
    },
    /// More sealed shares do not open than neighbours may be corrupt.
    #[error("{got} sealed shares do not open, expected at most {most}")]
    UnopenedShares {
        /// Those that do not.
        got: usize,
        /// As many as may be corrupt.
        most: usize,
    },
    /// The input has another length than the session.
    #[error("an input of {got} coordinates, expected {expected}")]
    Length {
        /// The coordinates of the input.
        got: usize,
        /// The coordinates of the session.
        expected: usize,
    },
    /// A chunk ends behind the last coordinate.
    #[error("a chunk of {chunk} coordinates at {offset}, of {len}")]
    ChunkOutOfRange {
        /// Where the chunk starts.
        offset: usize,
        /// Its coordinates.
        chunk: usize,
        /// The coordinates of the session.
        len: usize,
    },
    /// The device submitted its input, yet is listed missing.
    #[error("the survivors leave this device out")]
    ListedMissing,
    /// A survivor never shared its seeds.
    #[error("survivor {index} is not among the sharers")]
    UnknownSurvivor {
        /// The place of the survivor.
        index: DeviceIndex,
    },
    /// Too few devices survived.
    #[error("{got} survivors, expected at least {need}")]
    FewSurvivors {
        /// The survivors.
        got: usize,
        /// The larger of quorum and report goal, or on the ring the report goal.
        need: usize,
    },
    /// So many in a row on the ring are missing that the others could be cut in
    /// two.
    #[error("{got} survivors from device {first} on along the ring, expected at least {need}")]
    ThinWindow {
        /// The first place of the stretch.
        first: DeviceIndex,
        /// The survivors in it.
        got: usize,
        /// One more than may be corrupt.
        need: usize,
    },
    /// The identity key is not that of this device's credential.
    #[error("the identity key is not the one of the device's credential")]
    OtherIdentity,
    /// The signatures are not evidence of the survivors that the device signed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}
