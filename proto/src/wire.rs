//! The types that `nightshift.proto` says, generated and committed: a test holds them to it and writes them anew.
//! Only [`crate::convert`], the device's transport and the coordinator's service name them.

#![expect(
    missing_docs,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated; nightshift.proto holds the comments"
)]
#![cfg_attr(
    feature = "grpc",
    expect(
        unused_qualifications,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::clone_on_ref_ptr,
        reason = "generated; nightshift.proto holds the comments"
    )
)]

include!("wire/generated.rs");
