//! Who else is asked when a device enrolls, as a coordinator asks them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "services and devices run beside one another")]

#[path = "hooks/attestation.rs"]
mod attestation;
#[path = "hooks/common.rs"]
mod common;
#[path = "hooks/issuer.rs"]
mod issuer;
#[path = "hooks/recorded.rs"]
mod recorded;
