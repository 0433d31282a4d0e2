//! The certificate authority, and the enrolment authority's key, which is Ed25519.
//!
//! Whoever holds the enrolment key can invent devices; it should not lie on
//! the coordinator in an installation where the coordinator is not trusted.

pub use serving::pki::{
    Authority, CLOCK_SLACK_SECS, Identity, IdentityLock, IdentityRequest, PkiError, Validity, check_request,
    is_due, pem,
};

mod enrollment_key;

pub use enrollment_key::EnrollmentKey;
