//! What an enrollment authority did, where everybody sees the same: an
//! append-only log of credentials, revocations and versions.
//!
//! A coordinator that could enroll devices which nobody has could surround one
//! that somebody has with them, and no cryptography of a round would tell. So
//! each credential is a [`Leaf`] of a Merkle tree ([RFC 6962]); the authority
//! signs [`Head`]s of it; a round is about one head, which is part of its
//! [`Context`](crate::Context); and a device takes part only if the head goes
//! on from the last one that it saw ([`Watch::accept`]) and every entry of the
//! roster is a leaf below it ([`Watch::check_listed`]). Whatever the authority
//! signed is then to be seen by whoever reads the log, and one device cannot be
//! shown another log than the others: they would sign different contexts.
//!
//! Heads are texts in the form of [tlog-checkpoint], so that witnesses of other
//! logs can sign them too ([tlog-cosignature]), who are asked as [tlog-witness]
//! says; what a witness looks at is a [`Submission`].
//!
//! [RFC 6962]: https://www.rfc-editor.org/rfc/rfc6962
//! [tlog-checkpoint]: https://c2sp.org/tlog-checkpoint
//! [tlog-cosignature]: https://c2sp.org/tlog-cosignature
//! [tlog-witness]: https://c2sp.org/tlog-witness

mod audit;
mod book;
mod head;
mod leaf;
mod note;
mod proof;
mod shared;
mod tree;
mod watch;
mod witnessing;

pub use self::{
    audit::{Audited, Auditor, Fault, MOST_FAULTS},
    book::{Book, BookError},
    head::{Head, HeadError, SignedHead, log_key},
    leaf::Leaf,
    note::{LogKey, LogKeyError, Witness, WitnessError},
    proof::{ProofError, check_consistency, check_inclusion, check_inclusions},
    shared::EnrollmentLog,
    tree::Tree,
    watch::{HeadRefusal, ListedError, Seen, Watch},
    witnessing::{MOST_PROOF_LINES, Submission, Unsigned},
};
