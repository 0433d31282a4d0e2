//! The generated types. Only [`crate::convert`], the device's transport and the coordinator's service name them.

#![expect(missing_docs, clippy::pedantic, reason = "generated; nightshift.proto holds the comments")]
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

include!(concat!(env!("OUT_DIR"), "/nightshift.v1.rs"));
