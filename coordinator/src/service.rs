//! The wire: gRPC services over the driver and the registry.
//!
//! Who calls is what the peer's certificate says. Generated types are named here only.

use std::sync::Arc;

use formats::Release;
use proto::admin::{AdminReply, AdminRequest, Health, TurnedAwayCount};
use proto::convert;
use proto::ids::{DeviceId, Serial, TaskId};
use proto::message::{self, Rejection};
use proto::role::Role;
use proto::wire::{self, admin_server::AdminServer, device_server::DeviceServer};
use tokio::task::spawn_blocking;
use tonic::{Extensions, Request, Response, Status};

use crate::audit::{What, Who, came_of};
use crate::bases::ServedBases;
use crate::census::Census;
use crate::driver::{self, Driver, LONGEST_HELD};
use crate::enroller::Apart;
use crate::enrollment::Registry;
use crate::listener::turned_away::TurnedAway;
use crate::listener::{MAX_ADMIN_BYTES, MAX_DEVICE_BYTES};
use crate::metrics::of_answer;
use crate::observe::Readiness;
use crate::peer::{AdminName, ConnectInfo, Peer};
use crate::roles;
use crate::server_certificates::ServerCertificates;
use crate::status;

mod shown;

/// What devices call.
#[derive(Clone, Debug)]
pub struct DeviceService {
    registry: Arc<Registry>,
    driver: Driver,
    bases: ServedBases,
}

/// What operators call.
#[derive(Clone, Debug)]
pub struct AdminService {
    registry: Arc<Registry>,
    driver: Driver,
    bases: ServedBases,
    certificates: Arc<ServerCertificates>,
    turned_away: BothTurnedAway,
    readiness: Readiness,
}

/// What both listeners turned away.
#[derive(Clone, Debug, Default)]
pub struct BothTurnedAway {
    /// The listener of devices.
    pub devices: Arc<TurnedAway>,
    /// The listener of operators.
    pub operators: Arc<TurnedAway>,
}

/// The service for devices, with its limits.
pub fn device_service(
    registry: Arc<Registry>,
    driver: Driver,
    bases: ServedBases,
) -> DeviceServer<DeviceService> {
    DeviceServer::new(DeviceService { registry, driver, bases })
        .max_decoding_message_size(MAX_DEVICE_BYTES)
        .max_encoding_message_size(MAX_DEVICE_BYTES)
}

/// The service for operators, with its limits.
pub(crate) fn admin_server(service: AdminService) -> AdminServer<AdminService> {
    AdminServer::new(service)
        .max_decoding_message_size(MAX_ADMIN_BYTES)
        .max_encoding_message_size(MAX_ADMIN_BYTES)
}

/// What operators are answered from.
pub(crate) fn admin_service(
    registry: Arc<Registry>,
    driver: Driver,
    bases: ServedBases,
    certificates: Arc<ServerCertificates>,
    (turned_away, readiness): (BothTurnedAway, Readiness),
) -> AdminService {
    AdminService { registry, driver, bases, certificates, turned_away, readiness }
}

#[tonic::async_trait]
impl wire::device_server::Device for DeviceService {
    async fn enroll(
        &self,
        request: Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::EnrollReply>, Status> {
        let answer = match convert::enroll_request_from_wire(request.into_inner()) {
            Ok(enrollment) => Arc::clone(&self.registry).enrol(enrollment, driver::now()).await,
            Err(error) => Err(error.into()),
        };
        respond(answer.map(|enrolled| convert::enroll_reply_to_wire(&enrolled)))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::EnrollReply>, Status> {
        let answer = match peer(request.extensions()) {
            Ok(peer) => match convert::renew_request_from_wire(request.into_inner()) {
                Ok(renewal) => Arc::clone(&self.registry).renew(renewal, peer, driver::now()).await,
                Err(error) => Err(error.into()),
            },
            Err(rejection) => Err(rejection),
        };
        respond(answer.map(|renewed| convert::enroll_reply_to_wire(&renewed)))
    }

    async fn send(&self, request: Request<wire::Request>) -> Result<Response<wire::Reply>, Status> {
        let asked = self.asked(request);
        // It may be held for long, and takes no more room than it needs then.
        respond(match asked {
            Ok((device, request)) => Box::pin(self.answer(device, request)).await,
            Err(rejection) => Err(rejection),
        })
    }

    async fn read_log(
        &self,
        request: Request<wire::ReadLogRequest>,
    ) -> Result<Response<wire::LogPart>, Status> {
        let answer = match self.device(&request) {
            Ok(_) => Arc::clone(&self.registry).log_part(request.get_ref().from).await,
            Err(rejection) => Err(rejection),
        };
        respond(answer.map(convert::log_part_to_wire))
    }

    async fn describe_base(
        &self,
        request: Request<wire::DescribeBaseRequest>,
    ) -> Result<Response<wire::BaseFiles>, Status> {
        respond(self.base_files(&request))
    }
}

impl DeviceService {
    /// Which device asks what.
    fn asked(&self, request: Request<wire::Request>) -> Result<(DeviceId, message::Request), Rejection> {
        Ok((self.device(&request)?, convert::request_from_wire(request.into_inner())?))
    }

    async fn answer(&self, device: DeviceId, request: message::Request) -> Result<wire::Reply, Rejection> {
        if let message::Request::Fetch { digest, offset } = request
            && let Some(chunk) = self.bases.chunk(digest, offset).await
        {
            return Ok(convert::reply_to_wire(message::Reply::Chunk(chunk?)));
        }
        let mut asked = self.driver.traces().and_then(|traces| traces.asked(&request));
        let answer = self.driver.answer(device, request, LONGEST_HELD).await;
        if let Some(asked) = &mut asked {
            asked.answered(of_answer(&answer));
        }
        Ok(convert::reply_to_wire(answer?))
    }

    fn base_files(&self, request: &Request<wire::DescribeBaseRequest>) -> Result<wire::BaseFiles, Rejection> {
        self.device(request)?;
        let base = convert::describe_base_from_wire(request.get_ref())?;
        Ok(convert::base_files_to_wire(&self.bases.files(base)?))
    }

    /// The enrolled device that calls.
    fn device<T>(&self, request: &Request<T>) -> Result<DeviceId, Rejection> {
        let device = match peer(request.extensions())? {
            Peer::Device(id) => DeviceId(id),
            Peer::Anonymous | Peer::Admin(_) | Peer::Coordinator(_) => return Err(Rejection::NotEnrolled),
        };
        self.registry.check(device)?;
        let client = request.metadata().get("user-agent").and_then(|client| client.to_str().ok());
        // What comes behind is of the library that calls.
        let client = client.and_then(|client| client.split(' ').next()).unwrap_or_default();
        self.registry.seen.saw(device, client, driver::now().as_secs());
        Ok(device)
    }
}

#[tonic::async_trait]
impl wire::admin_server::Admin for AdminService {
    async fn send(&self, request: Request<wire::AdminRequest>) -> Result<Response<wire::AdminReply>, Status> {
        let answer = self.answer(request).await;
        respond(answer.map(convert::admin_reply_to_wire))
    }
}

impl AdminService {
    /// The operator who calls.
    pub(crate) fn operator(&self, extensions: &Extensions) -> Result<(AdminName, Serial, Role), Rejection> {
        let name = match peer(extensions)? {
            Peer::Admin(name) => name,
            Peer::Anonymous | Peer::Device(_) | Peer::Coordinator(_) => return Err(Rejection::NotEnrolled),
        };
        // The connection may be older than its revocation.
        let serial = extensions.get::<ConnectInfo>().and_then(|info| info.serial);
        let known = serial.and_then(|serial| Some((serial, self.registry.operators.role(serial)?)));
        let (serial, role) = known.ok_or(Rejection::NotEnrolled)?;
        Ok((name, serial, role))
    }

    async fn answer(&self, request: Request<wire::AdminRequest>) -> Result<AdminReply, Rejection> {
        let (name, serial, role) = self.operator(request.extensions())?;
        let request = convert::admin_request_from_wire(request.into_inner())?;
        let who = Who::Operator { name: name.clone(), serial, role };
        let what = What::of(&request);
        if !self.may(&request, &name, role).await? {
            let refused = roles::refusal(&request, &name, role);
            let (audit, what) = (self.registry.audit.clone(), what.unwrap_or_else(|| What::named(&request)));
            drop(spawn_blocking(move || audit.refused(&who, &what, "role", driver::now())).await);
            return Err(refused);
        }
        let Some(what) = what else { return self.perform((name, role), request).await };
        let service = self.clone();
        let done = async move { service.perform((name, role), request).await };
        self.registry.audit.change((who, what), done, came_of, self.registry.audit_fails()).await
    }

    /// Whether the role suffices. Everybody may revoke what has their own name.
    async fn may(&self, request: &AdminRequest, name: &AdminName, role: Role) -> Result<bool, Rejection> {
        if role >= roles::needed(request) {
            return Ok(true);
        }
        let AdminRequest::RevokeOperator(serial) = request else { return Ok(false) };
        let (registry, serial, name) = (Arc::clone(&self.registry), *serial, name.clone());
        apart(move || registry.is_operators_own(serial, &name)).await?
    }

    async fn perform(
        &self,
        (name, role): (AdminName, Role),
        request: AdminRequest,
    ) -> Result<AdminReply, Rejection> {
        Ok(match request {
            AdminRequest::CreateTask { plan, frozen } => {
                AdminReply::Task(self.driver.create_task(plan, frozen).await?)
            }
            AdminRequest::ListTasks => AdminReply::Tasks(self.driver.list().await),
            AdminRequest::ShowTask(task) => AdminReply::Task(self.task(task).await?),
            AdminRequest::ShowPrivacy(task) => AdminReply::Privacy(self.driver.spent(task).await?),
            AdminRequest::SignVersion { task, version } => self.sign_version(task, version).await?,
            AdminRequest::StopTask(task) => AdminReply::Task(self.driver.stop_task(task).await?),
            AdminRequest::ResumeTask(task) => AdminReply::Task(self.driver.resume_task(task).await?),
            AdminRequest::RollBack { task, version } => {
                AdminReply::Task(self.driver.roll_back(task, version).await?)
            }
            AdminRequest::IssueToken { label, lifetime_secs } => {
                AdminReply::Token(self.registry.issue_token(&label, lifetime_secs, driver::now()).await?)
            }
            AdminRequest::ListDevices(query) => self.devices(query).await?,
            AdminRequest::ShowDevice(device) => AdminReply::Device(self.device(device).await?),
            AdminRequest::ListTokens => AdminReply::TokenList(Arc::clone(&self.registry).tokens().await?),
            AdminRequest::RevokeToken(token) => {
                Arc::clone(&self.registry).revoke_token(token, driver::now()).await?;
                AdminReply::Done
            }
            AdminRequest::RevokeDevice(device) => {
                Arc::clone(&self.registry).revoke(device, driver::now()).await?;
                AdminReply::Done
            }
            AdminRequest::Fetch { digest, offset } => {
                AdminReply::Chunk(self.driver.fetch(digest, offset).await?)
            }
            AdminRequest::ShowHealth => AdminReply::Health(self.health().await?),
            AdminRequest::ListOperators => {
                AdminReply::Operators(Arc::clone(&self.registry).list_operators().await?)
            }
            AdminRequest::RevokeOperator(serial) => {
                Arc::clone(&self.registry).revoke_operator(serial, driver::now()).await?;
                AdminReply::Done
            }
            AdminRequest::SignOperator { certificate_request_pem } => {
                let registry = Arc::clone(&self.registry);
                let signed = registry.sign_operator((name, role), certificate_request_pem, driver::now());
                AdminReply::Certificate(signed.await?)
            }
            AdminRequest::AddOperator { name, role, certificate_request_pem } => {
                let registry = Arc::clone(&self.registry);
                let signed = registry.add_operator((name, role), certificate_request_pem, driver::now());
                AdminReply::Certificate(signed.await?)
            }
            AdminRequest::ReadAudit { from } => {
                let (audit, fails) = (self.registry.audit.clone(), self.registry.audit_fails());
                AdminReply::Audit(apart(move || audit.read(from)).await?.map_err(fails)?)
            }
        })
    }
}

impl AdminService {
    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Counts who may connect.
    pub(crate) async fn census(&self) -> Result<Census, Rejection> {
        let registry = || Arc::clone(&self.registry);
        let (devices, operators) = (registry().devices().await?, registry().list_operators().await?);
        Ok(Census::of(devices, operators, driver::now().as_secs()))
    }

    /// How the coordinator is.
    pub(crate) async fn health(&self) -> Result<Health, Rejection> {
        let (trouble, trouble_secs) = self.trouble().await?.unzip();
        let registry = Arc::clone(&self.registry);
        let log = apart(move || registry.log_status()).await?;
        let listeners = [("devices", &self.turned_away.devices), ("operators", &self.turned_away.operators)];
        let counts = listeners.into_iter().flat_map(|(listener, turned_away)| {
            let counts = turned_away.since_start().into_iter();
            counts.map(|(why, times)| TurnedAwayCount { listener: listener.into(), why: why.into(), times })
        });
        Ok(Health {
            trouble,
            trouble_secs: trouble_secs.unwrap_or(0),
            turned_away: counts.collect(),
            server_expires_unix_secs: self.certificates.expires_unix_secs(),
            authority_expires_unix_secs: self.registry.authority.expires_unix_secs(),
            bases: self.bases.served(),
            bases_to_read: self.bases.to_read(),
            now_unix_millis: driver::now().0,
            stopping: self.readiness.is_stopping(),
            log: Some(log),
            authority: self.registry.enroller.apart().map(Apart::status),
            issuer_expires_unix_secs: self.registry.hooks.issuer.roots_end_unix_secs().unwrap_or(0),
        })
    }

    /// Vouches for what the coordinator itself knows of a version; the operator's word is not asked.
    async fn sign_version(&self, task: TaskId, version: u32) -> Result<AdminReply, Rejection> {
        let status = self.driver.show(task).await?;
        let known = status.versions.iter().find(|known| known.version == version);
        let version = known.ok_or_else(|| Rejection::Unacceptable {
            request: "sign version".into(),
            why: format!("no round of the task ended in version {version}"),
        })?;
        if !self.driver.is_durable(task) {
            let why = "the version is not on disk yet; ask again when `nightshift health` says so".to_owned();
            return Err(Rejection::Unavailable(why));
        }
        let base = self.driver.base(task)?;
        let signed = self.registry.enroller.publishing().sign(Release::of(&status, version), &base);
        Ok(AdminReply::Signed { key: signed.key, signature: signed.signature })
    }
}

/// Runs what may wait for the disk on a thread that may.
async fn apart<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, Rejection> {
    spawn_blocking(run).await.map_err(|error| Rejection::Unavailable(error.to_string()))
}

/// Who calls. A connection may outlive its certificate, so the time is asked at each call.
fn peer(extensions: &Extensions) -> Result<Peer, Rejection> {
    let info = extensions.get::<ConnectInfo>().ok_or(Rejection::NotEnrolled)?;
    let over = info.not_after_unix_secs.is_some_and(|end| driver::now().as_secs() > end);
    if over { Err(Rejection::NotEnrolled) } else { Ok(info.peer.clone()) }
}

fn respond<T>(answer: Result<T, Rejection>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|rejection| status::of(&rejection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_connection_is_not_enrolled() {
        assert_eq!(peer(&Extensions::new()), Err(Rejection::NotEnrolled));
    }
}
