//! The operator's side of the wire.

use coordinator::listener::MAX_ADMIN_BYTES;
use coordinator::pki::Identity;
use proto::admin::{AdminReply, AdminRequest};
use proto::convert;
use proto::ids::Digest;
use proto::message::Rejection;
use proto::wire::admin_client;
use tonic::Status;
use tonic::transport::Channel;

use crate::admin_channel::{self, ChannelError};

/// Why the coordinator did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The coordinator turned the request away.
    #[error("{0}")]
    Rejected(Rejection),
    /// The call failed on the way.
    #[error("the call failed: {}: {}", .0.code(), .0.message())]
    Transport(#[source] Box<Status>),
    /// The answer is not one to what was asked.
    #[error("the coordinator answered something else than what was asked")]
    Unexpected,
    /// An artefact came damaged.
    #[error("the artefact {0} came damaged")]
    Damaged(Digest),
}

/// A connection to a coordinator's admin listener.
#[derive(Clone, Debug)]
pub struct AdminClient {
    client: admin_client::AdminClient<Channel>,
}

impl AdminClient {
    /// Connects to `address` (`host:port`).
    pub async fn connect(address: &str, identity: &Identity) -> Result<Self, CallError> {
        Ok(Self::new(admin_channel::connect(address, identity).await?))
    }

    /// Asks over a connection that there is.
    pub(crate) fn new(channel: Channel) -> Self {
        let client = admin_client::AdminClient::new(channel)
            .max_decoding_message_size(MAX_ADMIN_BYTES)
            .max_encoding_message_size(MAX_ADMIN_BYTES);
        Self { client }
    }

    /// Asks once.
    pub async fn call(&mut self, request: AdminRequest) -> Result<AdminReply, CallError> {
        let reply = self.client.send(convert::admin_request_to_wire(request)).await;
        let reply = reply.map_err(failure)?.into_inner();
        convert::admin_reply_from_wire(reply).map_err(|error| CallError::Rejected(error.into()))
    }

    /// Fetches a whole artefact, and verifies it.
    pub async fn fetch(&mut self, digest: Digest) -> Result<Vec<u8>, CallError> {
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let offset = bytes.len() as u64;
            let AdminReply::Chunk(chunk) = self.call(AdminRequest::Fetch { digest, offset }).await? else {
                return Err(CallError::Unexpected);
            };
            let empty = chunk.bytes.is_empty();
            bytes.extend(chunk.bytes);
            if bytes.len() as u64 >= chunk.total_bytes {
                let whole = Digest::of(&bytes) == digest;
                return if whole { Ok(bytes) } else { Err(CallError::Damaged(digest)) };
            }
            if empty {
                return Err(CallError::Unexpected);
            }
        }
    }
}

fn failure(status: Status) -> CallError {
    match convert::rejection_from_bytes(status.details()) {
        Ok(rejection) if !status.details().is_empty() => CallError::Rejected(rejection),
        Ok(_) | Err(_) => CallError::Transport(Box::new(status)),
    }
}
