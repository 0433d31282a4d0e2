//! The generated types. Only [`crate::convert`], the device's transport and the coordinator's service name them.

#![expect(missing_docs, unused_qualifications, reason = "generated; nightshift.proto holds the comments")]
#![expect(clippy::pedantic, reason = "generated")]

tonic::include_proto!("nightshift.v1");
