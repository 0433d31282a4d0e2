//! The wire: what coordinators and operators of the authority ask. Who calls is what the peer's certificate says, and the
//! authority's record of it.

use std::sync::Arc;

use hooks::{AttestationVerifier, Policy, Shown};
use proto::authority::{AuthorityReply, AuthorityRequest, Introduced, Issued};
use proto::convert::{self, Enrollment};
use proto::ids::Timestamp;
use proto::message::Rejection;
use proto::shown::shown;
use proto::wire::{self, authority_server::AuthorityServer};
use serving::listener::MAX_DEVICE_BYTES;
use serving::peer::{AdminName, ConnectInfo, Peer};
use serving::pki::Validity;
use serving::seldom::Seldom;
use serving::status;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use crate::clock::now_unix_secs;
use crate::decide::Attested;
use crate::keeper::Keeper;
use crate::keeper::enrolling::Applicant;
use crate::keeper::peers::Part;
use crate::witnesses::Witnesses;

/// What is answered from.
#[derive(Clone, Debug)]
pub struct Service {
    keeper: Arc<Keeper>,
    coordinator_secs: u64,
    witnesses: Arc<Witnesses>,
    attestation: Arc<AttestationVerifier>,
    said: Arc<Seldom>,
    /// That a device was not admitted is said once a minute.
    turned_away: Arc<Seldom>,
}

/// The service, with its limits. A coordinator's certificate lasts so many seconds.
pub fn service(
    keeper: Arc<Keeper>,
    coordinator_secs: u64,
    (witnesses, attestation): (Arc<Witnesses>, AttestationVerifier),
) -> AuthorityServer<Service> {
    let (said, turned_away, attestation) = (Arc::default(), Arc::default(), Arc::new(attestation));
    AuthorityServer::new(Service { keeper, coordinator_secs, witnesses, attestation, said, turned_away })
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
        match (convert::authority_request_from_wire(request.into_inner())?, asking) {
            (AuthorityRequest::Enroll(asked), Asking::Coordinator(_)) => {
                Ok(AuthorityReply::Issued(self.enroll(asked, now).await?))
            }
            (request, asking) => {
                let service = self.clone();
                apart(move || service.perform(&asking, request, now)).await
            }
        }
    }

    /// Looks at the machine of whoever asks to enroll, where that is demanded, and then makes a device of it: whoever is not
    /// admitted uses nothing up, and is in no log.
    async fn enroll(&self, asked: Box<Enrollment>, now: u64) -> Result<Issued, Rejection> {
        let (keeper, asked) = (Arc::clone(&self.keeper), Arc::<Enrollment>::from(asked));
        let whom = Arc::clone(&asked);
        let applicant = apart(move || keeper.applicant(&whom, now)).await?;
        let attested = if applicant.is_known { None } else { self.attested(&asked, &applicant, now).await? };
        let keeper = Arc::clone(&self.keeper);
        apart(move || keeper.enroll(&asked, (applicant.id, attested), now)).await
    }

    /// By what a machine is admitted; none where nothing is asked.
    async fn attested(
        &self,
        asked: &Enrollment,
        applicant: &Applicant,
        now: u64,
    ) -> Result<Option<Attested>, Rejection> {
        let Some(Policy { kind, digest }) = self.attestation.policy().cloned() else { return Ok(None) };
        let shows = Shown::by(asked, (applicant.id.0, &applicant.label), now);
        match self.attestation.verify(shows).await {
            Ok(()) => Ok(Some(Attested { policy: digest, kind: kind.to_owned(), at_unix_secs: now })),
            Err(error) => {
                if self.turned_away.may_say(Timestamp(now.saturating_mul(1000))) {
                    let why = error.to_string();
                    tracing::warn!(why = %shown(&why), label = %shown(&applicant.label), "a device was not admitted");
                }
                Err(error.rejection("the enrollment authority"))
            }
        }
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
            (AuthorityRequest::Renew(asked), Asking::Coordinator(_)) => {
                Ok(AuthorityReply::Issued(keeper.renew(&asked, now)?))
            }
            (AuthorityRequest::Introduce(introduction), Asking::Coordinator(name)) => {
                let attestation_policy = self.attestation.policy().map(|policy| policy.digest);
                let introduced = keeper.introduce(name, &introduction)?;
                Ok(AuthorityReply::Introduced(Introduced { attestation_policy, ..introduced }))
            }
            (AuthorityRequest::ReadLog { from }, Asking::Coordinator(_) | Asking::Operator) => {
                Ok(AuthorityReply::Log(keeper.log_part(from)?))
            }
            (AuthorityRequest::ShowLog, Asking::Coordinator(_) | Asking::Operator) => {
                Ok(AuthorityReply::LogStatus(self.witnesses.status(&keeper.log(), now)))
            }
            (AuthorityRequest::LogVersion(entry), Asking::Coordinator(name)) => {
                keeper.log_version(name, &entry, now)?;
                Ok(AuthorityReply::Done)
            }
            (AuthorityRequest::ReportRevoked(device), Asking::Coordinator(name)) => {
                keeper.revoke(device, Some(name), now)?;
                Ok(AuthorityReply::Done)
            }
            (AuthorityRequest::RevokeDevice(device), Asking::Operator) => {
                keeper.revoke(device, None, now)?;
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
            // Coordinators' requests to enroll are worked on elsewhere.
            (AuthorityRequest::Enroll(_), _)
            | (
                AuthorityRequest::Renew(_)
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

async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Rejection> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Rejection::Unavailable(error.to_string())))
}

fn not_for(whom: &str) -> Rejection {
    let why = format!("that is for {whom}, and the certificate that was shown is none of theirs");
    Rejection::Unacceptable { request: "call".into(), why }
}
