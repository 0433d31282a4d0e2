//! The generated types. Only [`crate::convert`], the device's transport and the coordinator's service name them.

#![expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::pedantic,
    reason = "generated; nightshift.proto holds the comments"
)]

tonic::include_proto!("nightshift.v1");
