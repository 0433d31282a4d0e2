//! The coordinator's configuration file: TOML, unknown keys refused. The
//! sample with every key is `deploy/coordinator.toml`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use authority::config::{
    DAYS, GRACE_DAYS, HOURS, MOST_DAYS, MOST_GRACE_DAYS, MOST_HOURS, WITHIN_AUTHORITY, names,
};
use authority::witnesses::{self, WitnessKeys};
use hooks::config::{AttestationKeys, AttestationKind, IssuerKeys};
use serde::Deserialize;
use shell::config::{self, ConfigError, OutOfRange, require};
use shell::home;
use shell::logs::LogFormat;

use crate::traces::keys::TracesKeys;
use crate::{address, listener};

mod store;

pub use self::store::StoreKeys;

/// Connections of operators, and of such as want to be one.
const OPERATORS: u32 = 32;

/// What the operator decides about a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where devices connect (gRPC), `address:port`. Default `0.0.0.0:7443`.
    #[serde(deserialize_with = "address::key")]
    pub listen: SocketAddr,
    /// Where administrators connect (gRPC), `address:port`. Default
    /// `127.0.0.1:7444`, this machine only.
    #[serde(deserialize_with = "address::key")]
    pub admin_listen: SocketAddr,
    /// The folder of the store, the artefacts, and the authority's key.
    /// Default `/var/lib/nightshift-coordinator`.
    #[serde(deserialize_with = "home::path")]
    pub state_dir: PathBuf,
    /// Host names and IP addresses by which devices reach this coordinator;
    /// they stand in its certificate, beside `localhost`, `127.0.0.1` and
    /// `::1`. The first goes into bootstrap tokens, with the port of `listen`.
    /// Default none: the address of `listen`, if that is one; else tokens say
    /// `localhost`.
    pub public_names: Vec<String>,
    /// A file in which revocations are kept once more, beside the state folder; empty for none. Default none.
    #[serde(deserialize_with = "home::path")]
    pub revocations: PathBuf,
    /// Where metrics and readiness are asked for (HTTP, in clear), `address:port`; empty for nowhere. Default nowhere.
    #[serde(deserialize_with = "address_if_any")]
    pub metrics: Option<SocketAddr>,
    /// How what happens is logged. Default for people.
    pub log_format: LogFormat,
    /// A file in which the newest head of the audit log is kept, beside the state folder; empty for none. Default none.
    #[serde(deserialize_with = "home::path")]
    pub audit_head: PathBuf,
    /// Mebibytes that the audit log may take, at least 16; then its oldest entries are removed. Default 256.
    pub audit_mib: u32,
    /// Bases that devices which lack them may fetch from this coordinator: Hugging Face folders and GGUF files.
    /// Default none.
    #[serde(deserialize_with = "home::paths")]
    pub bases: Vec<PathBuf>,
    /// Where the store is.
    pub store: StoreKeys,
    /// An enrollment authority apart from this coordinator.
    pub authority: AuthorityApart,
    /// How many witnesses must have signed a head of the enrollment log that rounds are about. Default 0: none.
    pub least_witnesses: u32,
    /// Who is asked to sign heads of the enrollment log. Default none.
    pub witness: Vec<WitnessKeys>,
    /// Seconds that open rounds are given to end after the coordinator was told
    /// to stop. Default 10.
    pub drain_secs: u32,
    /// How long certificates last.
    pub certificates: Certificates,
    /// What is taken on at the same time.
    pub limits: Limits,
    /// Who signs devices' certificates.
    pub issuer: IssuerKeys,
    /// What is asked of devices' machines before they are enrolled.
    pub attestation: AttestationKeys,
    /// Where traces of rounds go.
    pub traces: TracesKeys,
}

/// An address, or nothing.
fn address_if_any<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let why = |error| {
        serde::de::Error::custom(format!("{text:?} is not an address of the form address:port: {error}"))
    };
    text.parse().map(Some).map_err(why)
}

/// An enrollment authority apart from this coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorityApart {
    /// The file that `nightshift-authority coordinator-file` wrote for this coordinator; empty where this coordinator says
    /// itself which devices exist, with a key in its state folder. Default empty.
    #[serde(deserialize_with = "home::path")]
    pub file: PathBuf,
}

/// How long certificates last; all at least one, but for what is no life.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// Days that the authority's own certificate lasts. Default 3650.
    pub authority_days: u32,
    /// Days that the server's certificate lasts; it is made anew at each start,
    /// and when two thirds of them are over. Default 90.
    pub server_days: u32,
    /// Hours that a device's certificate lasts. The device renews it between a
    /// half and two thirds of them. Default 720.
    pub device_hours: u32,
    /// Days after the end of a device's certificate in which the device may
    /// still renew it; later it must be enrolled again. 0 for none. Default 90.
    pub renewal_grace_days: u32,
    /// Days that an administrator's certificate lasts. The one in the state
    /// folder is made anew when two thirds of them are over. Default 90.
    pub admin_days: u32,
}

/// What is taken on at the same time; all at least one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of devices; further devices are turned away. Default 16384.
    pub connections: u32,
    /// Connections without a certificate, such as enroll; a newer one takes the place of the oldest of the network
    /// that has most. Default 64.
    pub anonymous: u32,
    /// Connections whose TLS handshake is under way, and eight times as many that have sent nothing yet; a newer one
    /// takes the place of the oldest of the network that has most. Default 256.
    pub handshakes: u32,
    /// Seconds that a connection may take to send its first byte. Default 2.
    pub first_byte_timeout_secs: u32,
    /// Seconds that a handshake may take from then on. Default 5.
    pub handshake_timeout_secs: u32,
    /// Mebibytes that messages of devices may take while they come and are worked on; further ones wait. Default 256.
    pub message_memory_mib: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443),
            admin_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7444),
            state_dir: PathBuf::from("/var/lib/nightshift-coordinator"),
            public_names: Vec::new(),
            revocations: PathBuf::new(),
            metrics: None,
            log_format: LogFormat::Text,
            audit_head: PathBuf::new(),
            audit_mib: 256,
            bases: Vec::new(),
            store: StoreKeys::default(),
            authority: AuthorityApart::default(),
            least_witnesses: 0,
            witness: Vec::new(),
            drain_secs: 10,
            certificates: Certificates::default(),
            limits: Limits::default(),
            issuer: IssuerKeys::default(),
            attestation: AttestationKeys::default(),
            traces: TracesKeys::default(),
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            authority_days: 3650,
            server_days: 90,
            device_hours: 720,
            renewal_grace_days: 90,
            admin_days: 90,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            anonymous: 64,
            handshakes: 256,
            first_byte_timeout_secs: 2,
            handshake_timeout_secs: 5,
            message_memory_mib: 256,
        }
    }
}

impl Config {
    /// Reads the file. Fails when it is not there, has a wrong or unknown key,
    /// or a value out of its range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        config::load(path, Self::check)
    }

    /// Reads the text of a file; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        config::parse(text, path, Self::check)
    }

    fn check(&self) -> Result<(), OutOfRange> {
        let Certificates { authority_days, server_days, device_hours, renewal_grace_days, admin_days } =
            self.certificates;
        let Limits {
            connections,
            anonymous,
            handshakes,
            first_byte_timeout_secs,
            handshake_timeout_secs,
            message_memory_mib,
        } = self.limits;
        let at_least_one = [
            ("limits.connections", connections),
            ("limits.anonymous", anonymous),
            ("limits.handshakes", handshakes),
            ("limits.first_byte_timeout_secs", first_byte_timeout_secs),
            ("limits.handshake_timeout_secs", handshake_timeout_secs),
            ("limits.message_memory_mib", message_memory_mib),
        ];
        for (key, value) in at_least_one {
            require(value >= 1, key, "at least 1", &value)?;
        }
        for (key, days) in [
            ("certificates.authority_days", authority_days),
            ("certificates.server_days", server_days),
            ("certificates.admin_days", admin_days),
        ] {
            require((1..=MOST_DAYS).contains(&days), key, DAYS, &days)?;
            require(days <= authority_days, key, WITHIN_AUTHORITY, &days)?;
        }
        let (key, hours) = ("certificates.device_hours", device_hours);
        require((1..=MOST_HOURS).contains(&hours), key, HOURS, &hours)?;
        require(hours.div_ceil(24) <= authority_days, key, WITHIN_AUTHORITY, &hours)?;
        let grace = renewal_grace_days;
        require(grace <= MOST_GRACE_DAYS, "certificates.renewal_grace_days", GRACE_DAYS, &grace)?;
        require(!self.state_dir.as_os_str().is_empty(), "state_dir", "a folder", &"\"\"")?;
        names(&self.public_names)?;
        if !self.authority.file.as_os_str().is_empty() {
            let usual = Certificates::default();
            let theirs = "left out, since [authority] file names an authority that decides it";
            require(device_hours == usual.device_hours, "certificates.device_hours", theirs, &device_hours)?;
            let found = renewal_grace_days;
            require(found == usual.renewal_grace_days, "certificates.renewal_grace_days", theirs, &found)?;
            let asks = "left out, since [authority] file names an authority that asks them";
            require(self.witness.is_empty(), "witness", asks, &self.witness.len())?;
            require(self.least_witnesses == 0, "least_witnesses", asks, &self.least_witnesses)?;
            let attests =
                "none, since [authority] file names an authority that asks devices (its [attestation])";
            let kind = self.attestation.kind;
            require(kind == AttestationKind::None, "attestation.kind", attests, &kind.word())?;
        }
        witnesses::check(&self.witness, self.least_witnesses)?;
        require(self.audit_mib >= 16, "audit_mib", "at least 16", &self.audit_mib)?;
        self.store.check()?;
        self.issuer.check()?;
        self.attestation.check()?;
        self.traces.check()
    }
}

impl Limits {
    /// The same for the listener where devices connect.
    pub fn devices(&self) -> listener::Limits {
        listener::Limits {
            handshakes: count(self.handshakes),
            anonymous: count(self.anonymous),
            connections: count(self.connections),
            first_byte_timeout: Duration::from_secs(self.first_byte_timeout_secs.into()),
            handshake_timeout: Duration::from_secs(self.handshake_timeout_secs.into()),
            message_memory_bytes: count(self.message_memory_mib).saturating_mul(1 << 20),
        }
    }

    /// What is left for the listener where operators connect: no operator is without a certificate, and there are few.
    pub fn operators(&self) -> listener::Limits {
        let Self { handshakes, .. } = *self;
        listener::Limits {
            handshakes: count(handshakes.min(OPERATORS)),
            anonymous: 0,
            connections: count(OPERATORS),
            message_memory_bytes: 4 * listener::MAX_ADMIN_BYTES,
            ..self.devices()
        }
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../deploy/coordinator.toml");

    #[test]
    fn the_sample_has_every_key_at_its_default() {
        let sample = parse(SAMPLE).unwrap();
        assert_eq!(sample, Config::default());
        let keys: toml::Table = SAMPLE.parse().unwrap();
        assert_eq!(keys.len(), 19);
        assert_eq!(keys["store"].as_table().unwrap().len(), 6);
        assert_eq!(keys["certificates"].as_table().unwrap().len(), 5);
        assert_eq!(keys["limits"].as_table().unwrap().len(), 6);
        assert_eq!(keys["issuer"].as_table().unwrap().len(), 8);
        assert_eq!(keys["attestation"].as_table().unwrap().len(), 9);
        assert_eq!(keys["traces"].as_table().unwrap().len(), 5);
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Limits::default().devices(), listener::Limits::default());
    }

    #[test]
    fn an_unknown_key_is_named() {
        for text in ["listem = '0.0.0.0:1'", "[limits]\nhandshake = 1"] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("unknown field"), "{message}");
            assert!(message.contains("coordinator.toml"), "{message}");
        }
    }

    #[test]
    fn an_address_without_a_port_is_named_with_what_to_write() {
        let message = parse("listen = '0.0.0.0'").unwrap_err().to_string();
        let expected = "coordinator.toml, line 1, column 10: `0.0.0.0` has no port: write it as 0.0.0.0:7443";
        assert_eq!(message, expected);
    }

    #[test]
    fn a_tilde_is_the_home_folder_in_every_path() {
        let config = parse("state_dir = '~/n'\nrevocations = '~/r'\nbases = ['~/b', '/srv/b']").unwrap();
        let home = |path: &str| home::expanded(Path::new(path)).unwrap();
        assert!(config.state_dir.is_absolute() && config.state_dir.ends_with("n"));
        assert_eq!((config.state_dir, config.revocations), (home("~/n"), home("~/r")));
        assert_eq!(config.bases, [home("~/b"), PathBuf::from("/srv/b")]);
        let message = parse("state_dir = '~anna/n'").unwrap_err().to_string();
        assert!(message.contains("~anna/n") && message.contains("whole path"), "{message}");
    }

    #[test]
    fn a_zero_limit_is_refused() {
        let message = parse("[limits]\nhandshakes = 0").unwrap_err().to_string();
        let expected = "coordinator.toml: limits.handshakes must be at least 1, got 0";
        assert_eq!(message, expected);
    }

    #[test]
    fn what_no_certificate_can_be_made_of_is_named() {
        for (text, words) in [
            (
                "[certificates]\ndevice_hours = 4294967295",
                "certificates.device_hours must be 1 to 87600, got 4294967295",
            ),
            (
                "[certificates]\nrenewal_grace_days = 3651",
                "certificates.renewal_grace_days must be at most 3650, got 3651",
            ),
            (
                "[certificates]\nauthority_days = 36501",
                "certificates.authority_days must be 1 to 36500, got 36501",
            ),
            ("[certificates]\nadmin_days = 36501", "certificates.admin_days must be 1 to 36500, got 36501"),
            (
                "[certificates]\nauthority_days = 30",
                "certificates.server_days must be at most as long as certificates.authority_days, got 90",
            ),
            (
                "[certificates]\nauthority_days = 90\ndevice_hours = 2161",
                "certificates.device_hours must be at most as long as certificates.authority_days, got 2161",
            ),
            ("state_dir = ''", "state_dir must be a folder"),
            ("public_names = ['owl.example:7443']", "got \"owl.example:7443\""),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn what_an_authority_apart_decides_is_not_said_here() {
        assert!(parse("[authority]\nfile = '/etc/nightshift/authority-file.toml'").is_ok());
        for key in ["device_hours", "renewal_grace_days"] {
            let text = format!("[authority]\nfile = '/f'\n[certificates]\n{key} = 7");
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.contains(key) && message.contains("left out"), "{message}");
            assert!(parse(&format!("[certificates]\n{key} = 7")).is_ok());
        }
        let key = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
        let asked = format!("[[witness]]\nkey = '{key}'\nurl = 'http://127.0.0.1:7446'\n");
        assert_eq!(parse(&asked).unwrap().witness[0].timeout_secs, 5);
        assert!(parse(&format!("least_witnesses = 1\n{asked}")).is_ok());
        for text in [format!("{asked}[authority]\nfile = '/f'"), "least_witnesses = 1".to_owned()] {
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.contains("witness") && message.contains("must be"), "{message}");
        }
    }

    #[test]
    fn metrics_are_nowhere_or_at_an_address() {
        assert_eq!(parse("metrics = ''").unwrap().metrics, None);
        let at = parse("metrics = '127.0.0.1:9464'\nlog_format = 'json'").unwrap();
        assert_eq!((at.metrics, at.log_format), (Some(([127, 0, 0, 1], 9464).into()), LogFormat::Json));
        for (text, words) in [
            ("metrics = 'here'", "\"here\" is not an address"),
            ("log_format = 'xml'", "unknown variant `xml`"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        assert!(
            parse("audit_mib = 15")
                .unwrap_err()
                .to_string()
                .contains("audit_mib must be at least 16, got 15")
        );
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("coordinator.toml"))
    }
}
