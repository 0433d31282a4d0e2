//! The wire: what coordinators and operators of the authority ask. Who calls is what the peer's certificate says, and the
//! authority's record of it.

use std::sync::Arc;

use proto::authority::{AuthorityReply, AuthorityRequest};
use proto::convert;
use proto::ids::Timestamp;
use proto::message::Rejection;
use proto::wire::{self, authority_server::AuthorityServer};
use serving::listener::MAX_DEVICE_BYTES;
use serving::peer::{AdminName, ConnectInfo, Peer};
use serving::pki::Validity;
use serving::seldom::Seldom;
use serving::status;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use crate::clock::now_unix_secs;
use crate::keeper::Keeper;
use crate::keeper::peers::Part;
use crate::witnesses::Witnesses;

/// What is answered from.
#[derive(Clone, Debug)]
pub struct Service {
    keeper: Arc<Keeper>,
    coordinator_secs: u64,
    witnesses: Arc<Witnesses>,
    said: Arc<Seldom>,
}

/// The service, with its limits. A coordinator's certificate lasts so many seconds.
pub fn service(
    keeper: Arc<Keeper>,
    coordinator_secs: u64,
    witnesses: Arc<Witnesses>,
) -> AuthorityServer<Service> {
    AuthorityServer::new(Service { keeper, coordinator_secs, witnesses, said: Arc::default() })
        .max_decoding_message_size(MAX_DEVICE_BYTES)
        .max_encoding_message_size(usize::MAX)
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asking {
    Coordinator(AdminName),
    Operator,
}

#[tonic::async_trait]
impl wire::authority_server::Authority for Service {
    async fn send(
        &self,
        request: Request<wire::AuthorityRequest>,
    ) -> Result<Response<wire::AuthorityReply>, Status> {
        let answer = self.answer(request).await;
        answer
            .map(|reply| Response::new(convert::authority_reply_to_wire(reply)))
            .map_err(|rejection| status::of(&rejection))
    }
}

impl Service {
    async fn answer(&self, request: Request<wire::AuthorityRequest>) -> Result<AuthorityReply, Rejection> {
        let now = now_unix_secs();
        let info = request.extensions().get::<ConnectInfo>().ok_or(Rejection::NotEnrolled)?;
        let asking = self.asking(info, now)?;
        let request = convert::authority_request_from_wire(request.into_inner())?;
        let service = self.clone();
        spawn_blocking(move || service.perform(&asking, request, now))
            .await
            .unwrap_or_else(|error| Err(Rejection::Unavailable(error.to_string())))
    }

    /// Who calls. A connection may outlive its certificate, and what was known of it.
    fn asking(&self, info: &ConnectInfo, now: u64) -> Result<Asking, Rejection> {
        if info.not_after_unix_secs.is_none_or(|end| now > end) {
            return Err(Rejection::NotEnrolled);
        }
        let part = info.serial.and_then(|serial| self.keeper.peers.part(&info.peer, serial));
        match (part, &info.peer) {
            (Some(Part::Coordinator), Peer::Coordinator(name)) => Ok(Asking::Coordinator(name.clone())),
            (Some(Part::Operator), Peer::Admin(_)) => Ok(Asking::Operator),
            (Some(_) | None, _) => Err(Rejection::NotEnrolled),
        }
    }

    /// Does what is asked, where whoever asks may. Blocks.
    fn perform(
        &self,
        asking: &Asking,
        request: AuthorityRequest,
        now: u64,
    ) -> Result<AuthorityReply, Rejection> {
        let keeper = &self.keeper;
        match (request, asking) {
            (AuthorityRequest::Enroll(asked), Asking::Coordinator(_)) => {
                Ok(AuthorityReply::Issued(keeper.enroll(&asked, now)?))
            }
            (AuthorityRequest::Renew(asked), Asking::Coordinator(_)) => {
                Ok(AuthorityReply::Issued(keeper.renew(&asked, now)?))
            }
            (AuthorityRequest::Introduce(introduction), Asking::Coordinator(name)) => {
                Ok(AuthorityReply::Introduced(keeper.introduce(name, &introduction)?))
            }
            (AuthorityRequest::ReadLog { from }, Asking::Coordinator(_) | Asking::Operator) => {
                Ok(AuthorityReply::Log(keeper.log_part(from)?))
            }
            (AuthorityRequest::ShowLog, Asking::Coordinator(_) | Asking::Operator) => {
                Ok(AuthorityReply::LogStatus(self.witnesses.status(&keeper.log(), now)))
            }
            (AuthorityRequest::LogVersion(entry), Asking::Coordinator(_)) => {
                keeper.log_version(&entry, now)?;
                Ok(AuthorityReply::Done)
            }
            (AuthorityRequest::ReportRevoked(device), Asking::Coordinator(_))
            | (AuthorityRequest::RevokeDevice(device), Asking::Operator) => {
                keeper.revoke(device, now)?;
                Ok(AuthorityReply::Done)
            }
            (AuthorityRequest::IssueToken { label, lifetime_secs, coordinator }, Asking::Operator) => {
                let text = keeper.issue_token((&label, lifetime_secs), &coordinator, now)?;
                Ok(AuthorityReply::Token(text))
            }
            (AuthorityRequest::ListTokens, Asking::Operator) => {
                Ok(AuthorityReply::TokenList(keeper.tokens()?))
            }
            (AuthorityRequest::RevokeToken(token), Asking::Operator) => {
                keeper.revoke_token(token, now)?;
                Ok(AuthorityReply::Done)
            }
            (AuthorityRequest::ListIssued { after }, Asking::Operator) => {
                let (devices, more) = keeper.devices(after)?;
                Ok(AuthorityReply::Devices { devices, more })
            }
            (AuthorityRequest::AddCoordinator { name, certificate_request_pem }, Asking::Operator) => {
                let validity = Validity::lasting(self.coordinator_secs, now);
                let signed = keeper.peers.add_coordinator(&name, &certificate_request_pem, validity)?;
                Ok(AuthorityReply::Certificate(signed))
            }
            (
                AuthorityRequest::Enroll(_)
                | AuthorityRequest::Renew(_)
                | AuthorityRequest::Introduce(_)
                | AuthorityRequest::LogVersion(_)
                | AuthorityRequest::ReportRevoked(_),
                Asking::Operator,
            ) => Err(not_for("coordinators")),
            (
                AuthorityRequest::IssueToken { .. }
                | AuthorityRequest::ListTokens
                | AuthorityRequest::RevokeToken(_)
                | AuthorityRequest::ListIssued { .. }
                | AuthorityRequest::RevokeDevice(_)
                | AuthorityRequest::AddCoordinator { .. },
                Asking::Coordinator(name),
            ) => {
                if self.said.may_say(Timestamp(now.saturating_mul(1000))) {
                    tracing::warn!(%name, "a coordinator asked for what only operators may");
                }
                Err(not_for("operators of the authority"))
            }
        }
    }
}

fn not_for(whom: &str) -> Rejection {
    let why = format!("that is for {whom}, and the certificate that was shown is none of theirs");
    Rejection::Unacceptable { request: "call".into(), why }
}
