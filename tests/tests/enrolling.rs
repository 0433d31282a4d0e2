//! Who else is asked when a device enrolls: a coordinator that serves, devices that come to it, a service that signs their
//! certificates, and a TPM that says what their machine is.
//!
//! The TPM is simulated by swtpm. Without it those tests say so and are skipped, unless `NIGHTSHIFT_REQUIRE_SWTPM` is set.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a server runs beside the devices, and a clock says when")]

use std::path::PathBuf;

use client::session::policy::Policy;
use client::tpm::Tpm;
use client::{Device, Proxy, enrollment};
use coordinator::config::Config;
use coordinator::pki::Identity;
use coordinator::server::{Coordinator, Listeners, OPERATOR, ServerError};
use operator::client::AdminClient;
use proto::admin::{AdminReply, AdminRequest, DeviceDetail, DeviceQuery, TokenState};
use proto::ids::DeviceId;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "enrolling/ca.rs"]
mod ca;
#[path = "enrolling/swtpm.rs"]
mod swtpm;

/// A coordinator that serves.
struct World {
    folder: tempfile::TempDir,
    admin: AdminClient,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl World {
    /// One whose configuration has these lines too, which may name files of this folder.
    async fn new(folder: tempfile::TempDir, lines: &str) -> Self {
        let home = folder.path().join("coordinator");
        let text = format!("state_dir = '{}'\ndrain_secs = 1\n{lines}", home.display());
        let config = Config::parse(&text, &folder.path().join("coordinator.toml")).unwrap();
        let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners { device: listener().await, admin: listener().await };
        let coordinator = Coordinator::open(config, listeners).unwrap();
        let (_, admin) = coordinator.addresses();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(coordinator.serve(stop.clone()));
        let identity = Identity::load(&home, OPERATOR).unwrap();
        let admin = AdminClient::connect(&admin.to_string(), &identity).await.unwrap();
        Self { folder, admin, stop, serving }
    }

    async fn token(&mut self) -> String {
        let request = AdminRequest::IssueToken { label: "anna".into(), lifetime_secs: 600 };
        let AdminReply::Token(token) = self.admin.call(request).await.unwrap() else { panic!("no token") };
        token
    }

    /// How many tokens are as good as new.
    async fn open_tokens(&mut self) -> usize {
        let AdminReply::TokenList(tokens) = self.admin.call(AdminRequest::ListTokens).await.unwrap() else {
            panic!("no tokens")
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        tokens.iter().filter(|token| token.state(now) == TokenState::Open).count()
    }

    async fn devices(&mut self) -> usize {
        let AdminReply::Devices { devices, .. } =
            self.admin.call(AdminRequest::ListDevices(DeviceQuery::default())).await.unwrap()
        else {
            panic!("no devices")
        };
        devices.len()
    }

    async fn show(&mut self, device: DeviceId) -> DeviceDetail {
        let reply = self.admin.call(AdminRequest::ShowDevice(device)).await.unwrap();
        let AdminReply::Device(detail) = reply else { panic!("no device") };
        detail
    }

    fn home(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A device enrolls, or says why not.
    async fn enroll(&self, name: &str, token: &str, tpm: Option<&Tpm>) -> Result<DeviceId, String> {
        let device = Device::open(&self.home(name)).unwrap();
        let enrolled = device.enroll_attested(&token.parse().unwrap(), None, tpm).await;
        enrolled.map_err(|error| error.to_string())
    }

    /// An enrolled device connects by its certificate, and is given the next one.
    async fn renew(&self, name: &str) -> Result<(), String> {
        let home = self.home(name);
        let device = Device::open(&home).unwrap();
        let (store, proxy) = (device.store(), Proxy::none());
        let loaded = enrollment::load(&home, store, (None, &proxy), Vec::new(), Policy::default()).unwrap();
        let renewed = enrollment::renew(&home, store, &loaded.transport, true).await;
        renewed.map(drop).map_err(|error| error.to_string())
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}
