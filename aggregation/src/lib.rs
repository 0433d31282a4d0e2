//! Secure aggregation: many masked integer vectors become one sum.
//!
//! A cohort of devices each hold a vector of integers modulo 2^b. At the end
//! of a session the server holds the sum of the survivors' vectors and, as long
//! as fewer devices than the threshold work against them, nothing else about
//! any one vector, even when the server lies. The protocol is the double
//! masking of [BIK+17] with signatures over who shared and who survived, over the complete
//! graph up to [`MAX_COMPLETE`] devices and above that, up to [`MAX_COHORT`],
//! over the sparse one of [BBG+20].
//!
//! This package deliberately does not know clocks, disks, networks, tensors or
//! wire formats. Time and randomness are arguments; what is sent is a value
//! with plain fields. It never repeats a step by itself, and it keeps nothing.
//!
//! A session, and where to read on:
//!
//! | step | device | server |
//! | --- | --- | --- |
//! | keys | [`Advertised::new`] | [`Roster::new`], [`Draw::new`] |
//! | graph, above [`MAX_COMPLETE`] | [`Advertised::reveal`] | [`Draw::opens`], [`Draw::finish`] |
//! | shares | [`Advertised::share`] | routes each [`SealedShare`] |
//! | masked input | [`Shared::receive`], [`Masking::mask_chunk`] | [`RunningSum::add_chunk`] |
//! | its end | [`Masking::submit`] | [`Sharing::verify`] |
//! | consistency | [`Submitted::agree`] | [`Transcript::verify`] |
//! | unmask | [`Agreed::unmask`] | [`Recovery::accept`], [`Attempt::make`], [`Unmasking::unmask`] |
//!
//! Why no server learns more than one sum: [`argument`].
//!
//! What a device believes about a round is its [`Context`]; whether to take
//! part in a round with such a context is for the caller's policy to say.
//! Above all the number of the corrupt and the report goal must be checked there:
//! this package keeps to them, but has no opinion about their values.
//!
//! Who may be in a roster at all is what an enrollment authority says, and [`log`]
//! is where everybody can see all that it said.
//!
//! Rebuilding the seeds and removing the masks from a sum are shared among the
//! threads of the rayon pool that they are called in; everything that a device
//! does is done by the thread that calls it.
//!
//! [BIK+17]: https://eprint.iacr.org/2017/281
//! [BBG+20]: https://eprint.iacr.org/2020/704

mod advertisement;
mod agreement;
mod batch;
mod context;
mod credential;
mod device;
mod evidence;
mod graph;
mod hash;
mod identity;
mod index;
pub mod log;
mod merkle;
mod modular;
pub mod packing;
pub mod prg;

mod roster;
mod sealing;
mod seed;
mod server;
pub mod shamir;
mod sharing;
mod statement;
mod transcript;

#[doc = include_str!("../ARGUMENT.md")]
pub mod argument {}

pub use crate::{
    advertisement::{Advertisement, AdvertisementError},
    context::{Context, ContextError, ModelDigest, PlanDigest, SessionId, TaskId},
    credential::{Credential, CredentialError, Logged},
    device::{Advertised, Agreed, Masking, Refusal, Shared, Submitted, UnmaskShares},
    evidence::{Evidence, EvidenceError},
    graph::{Draw, Graph, MAX_COHORT, MAX_COMPLETE, MAX_DRAWS, Parameters, corrupt_devices, quorum},
    hash::digest,
    identity::{IdentityError, IdentityKey, IdentityPublic, PublicKeyError, Signature},
    index::{DeviceIndex, IndexSet, IndexSetError},
    merkle::TreeHash,
    roster::{Roster, RosterError},
    sealing::{SEALED_SHARE_BYTES, SealedShare},
    seed::Seed,
    server::{
        Attempt, BadShares, FailedAttempt, Found, Further, Lacking, Recovery, RecoveryError, RunningSum,
        SumError, UnmaskError, Unmasking,
    },
    shamir::{SHARE_BYTES, Share, ShareError},
    sharing::Sharing,
    transcript::Transcript,
};
