//! The authority's configuration file: TOML, unknown keys refused. The sample with every key is `deploy/authority.toml`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serving::address;
use shell::config::{self, ConfigError, OutOfRange, require};
use shell::home;
use shell::logs::LogFormat;

use crate::decide::Terms;
use crate::witnesses::{self, WitnessKeys};

const HOUR_SECS: u64 = 3600;
const DAY_SECS: u64 = 24 * HOUR_SECS;

/// What the operator decides about an enrollment authority.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where coordinators and operators connect (gRPC), `address:port`. Default `127.0.0.1:7445`, this machine only.
    #[serde(deserialize_with = "address::key")]
    pub listen: SocketAddr,
    /// The folder of the key, the store and the certificates. Default `/var/lib/nightshift-authority`.
    #[serde(deserialize_with = "home::path")]
    pub state_dir: PathBuf,
    /// Host names and IP addresses by which coordinators reach this authority; the first goes into their files. Default none:
    /// the address of `listen`, if that is one; else `localhost`.
    pub public_names: Vec<String>,
    /// How many devices may be new on one day of UTC. Default 200.
    pub most_enrolled_a_day: u32,
    /// Hours that what is stated of a device holds; the device renews it between a half and two thirds of them. Default 720.
    pub credential_hours: u32,
    /// Days after its end in which it may still be renewed; 0 for none. Default 90.
    pub renewal_grace_days: u32,
    /// How what happens is logged. Default for people.
    pub log_format: LogFormat,
    /// How many witnesses must have signed a head of the log that rounds are about. Default 0: none.
    pub least_witnesses: u32,
    /// Who is asked to sign heads of the log. Default none.
    pub witness: Vec<WitnessKeys>,
    /// How long certificates last.
    pub certificates: Certificates,
}

/// How long certificates last, in days; all at least one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// That which signs the others. Default 3650.
    pub authority_days: u32,
    /// The authority's own; made anew when two thirds of them are over. Default 90.
    pub server_days: u32,
    /// An operator's, in the folder; made anew likewise. Default 90.
    pub operator_days: u32,
    /// A coordinator's; its file is to be made anew before. Default 730.
    pub coordinator_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7445),
            state_dir: PathBuf::from("/var/lib/nightshift-authority"),
            public_names: Vec::new(),
            most_enrolled_a_day: 200,
            credential_hours: 720,
            renewal_grace_days: 90,
            log_format: LogFormat::Text,
            least_witnesses: 0,
            witness: Vec::new(),
            certificates: Certificates::default(),
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self { authority_days: 3650, server_days: 90, operator_days: 90, coordinator_days: 730 }
    }
}

impl Config {
    /// Reads the file. Fails when it is not there, has a wrong or unknown key, or a value out of its range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        config::load(path, Self::check)
    }

    /// Reads the text of a file; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        config::parse(text, path, Self::check)
    }

    fn check(&self) -> Result<(), OutOfRange> {
        let Certificates { authority_days, server_days, operator_days, coordinator_days } = self.certificates;
        for (key, value) in [
            ("most_enrolled_a_day", self.most_enrolled_a_day),
            ("credential_hours", self.credential_hours),
            ("certificates.authority_days", authority_days),
            ("certificates.server_days", server_days),
            ("certificates.operator_days", operator_days),
            ("certificates.coordinator_days", coordinator_days),
        ] {
            require(value >= 1, key, "at least 1", &value)?;
        }
        witnesses::check(&self.witness, self.least_witnesses)
    }

    /// What devices are granted.
    pub fn terms(&self) -> Terms {
        Terms {
            credential_secs: u64::from(self.credential_hours) * HOUR_SECS,
            renewal_grace_secs: u64::from(self.renewal_grace_days) * DAY_SECS,
            most_enrolled_a_day: self.most_enrolled_a_day,
        }
    }

    /// Where coordinators are told to connect, of an authority that listens at `listens`.
    pub fn reached_at(&self, listens: SocketAddr) -> String {
        let ip = listens.ip();
        let host = match self.public_names.first() {
            Some(name) => name.clone(),
            None if ip.is_unspecified() => "localhost".to_owned(),
            None => ip.to_string(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("{host}:{}", listens.port())
    }
}

impl Certificates {
    /// So many days in seconds.
    pub fn secs(days: u32) -> u64 {
        u64::from(days) * DAY_SECS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../deploy/authority.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("authority.toml"))
    }

    #[test]
    fn the_sample_has_every_key_at_its_default() {
        assert_eq!(parse(SAMPLE).unwrap(), Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
        let keys: toml::Table = SAMPLE.parse().unwrap();
        assert_eq!((keys.len(), keys["certificates"].as_table().unwrap().len()), (9, 4));
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_named() {
        for (text, words) in [
            ("listem = '0.0.0.0:1'", "unknown field"),
            ("most_enrolled_a_day = 0", "most_enrolled_a_day must be at least 1, got 0"),
            ("[certificates]\ncoordinator_days = 0", "certificates.coordinator_days must be at least 1"),
            ("listen = '0.0.0.0'", "has no port"),
            (
                "least_witnesses = 1",
                "least_witnesses must be at most as many as there are [[witness]], got 1",
            ),
            ("[[witness]]\nkey = 'owl'\nurl = 'http://localhost'", "not the key of a witness"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("authority.toml"), "{message}");
        }
    }

    #[test]
    fn coordinators_are_told_where_it_is_reached() {
        let at = |config: &str, listens: &str| parse(config).unwrap().reached_at(listens.parse().unwrap());
        assert_eq!(at("", "127.0.0.1:7445"), "127.0.0.1:7445");
        assert_eq!(at("", "0.0.0.0:1"), "localhost:1");
        assert_eq!(at("", "[::1]:1"), "[::1]:1");
        assert_eq!(at("public_names = ['owl.example']", "0.0.0.0:1"), "owl.example:1");
    }
}
