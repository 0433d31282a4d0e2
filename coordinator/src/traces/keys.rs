//! The keys of the configuration that say where traces go. What does not go together is refused by its key.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serving::post::Address;
use shell::config::{OutOfRange, require};
use shell::home;

/// The longest that a collector is waited for, in seconds.
const MOST_SECS: u32 = 30;

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracesKeys {
    /// A collector that takes OTLP by HTTP, as protobuf: `http://HOST:PORT` or `https://HOST:PORT`; empty for none. Without
    /// a path it is `/v1/traces`. Default none.
    pub endpoint: String,
    /// For `https:`: a file (PEM) with the authorities that vouch for the collector. Default none.
    #[serde(deserialize_with = "home::path")]
    pub ca: PathBuf,
    /// A file with headers by which the collector knows who sends, `Name: value` on each line, readable by its owner only;
    /// empty for none. Default none.
    #[serde(deserialize_with = "home::path")]
    pub headers_file: PathBuf,
    /// Seconds that the collector is waited for, 1 to 30. Default 5.
    pub timeout_secs: u32,
    /// Which part of devices' requests has a span, 0 to 1. Rounds always have theirs. Default 0.01.
    pub sample_ratio: Ratio,
}

impl Default for TracesKeys {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            ca: PathBuf::new(),
            headers_file: PathBuf::new(),
            timeout_secs: 5,
            sample_ratio: Ratio(0.01),
        }
    }
}

/// A part of a whole: 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Ratio(f64);

// It is a number, which the only way to make one checks.
impl Eq for Ratio {}

impl TryFrom<f64> for Ratio {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&ratio) {
            Ok(Self(ratio))
        } else {
            Err(format!("expected a number from 0 to 1, got {ratio}"))
        }
    }
}

impl Ratio {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

const PLACES: &str = "http://HOST:PORT or https://HOST:PORT with a port from 1 to 65535, without a name, a password or a `?` in it";

impl TracesKeys {
    /// Fails where a value is out of its range, or keys do not go together.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Self { endpoint, ca, headers_file, timeout_secs, sample_ratio: _ } = self;
        let is_empty = |path: &Path| path.as_os_str().is_empty();
        let seconds = "1 to 30";
        require((1..=MOST_SECS).contains(timeout_secs), "traces.timeout_secs", seconds, timeout_secs)?;
        if endpoint.is_empty() {
            let unused = "empty where traces.endpoint is";
            require(is_empty(ca), "traces.ca", unused, &ca.display())?;
            return require(is_empty(headers_file), "traces.headers_file", unused, &headers_file.display());
        }
        let parsed = Address::parse(endpoint).filter(|_| !endpoint.contains(['?', '#']));
        let Some(address) = parsed else {
            return require(false, "traces.endpoint", PLACES, &without_secrets(endpoint));
        };
        if !address.is_tls() {
            let in_clear = "empty where traces.endpoint is not https";
            require(is_empty(ca), "traces.ca", in_clear, &ca.display())?;
            let shown = "empty where traces.endpoint is neither https nor this machine: the headers would be read on the way";
            let is_safe = is_empty(headers_file) || address.is_here();
            return require(is_safe, "traces.headers_file", shown, &headers_file.display());
        }
        require(!is_empty(ca), "traces.ca", "a file in PEM where traces.endpoint is https", &"nothing")
    }
}

/// An address, without what may be a password: before an `@`, or in what is asked for.
fn without_secrets(endpoint: &str) -> String {
    let (place, mut shown) = match endpoint.split_once(['?', '#']) {
        Some((place, _)) => (place, "\u{2026}".to_owned()),
        None => (endpoint, String::new()),
    };
    match place.rsplit_once('@') {
        Some((_, place)) => shown.insert_str(0, &format!("\u{2026}@{place}")),
        None => shown.insert_str(0, place),
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TracesKeys, String> {
        shell::config::parse(text, Path::new("c.toml"), TracesKeys::check).map_err(|error| error.to_string())
    }

    #[test]
    fn what_goes_together_is_taken() {
        for text in [
            "",
            "endpoint = 'http://127.0.0.1:4318'",
            "endpoint = 'http://collector:4318/v1/traces'\nsample_ratio = 1",
            "endpoint = 'https://collector.example'\nca = '/ca.pem'\nheaders_file = '/h'\ntimeout_secs = 30",
            "endpoint = 'http://localhost:4318'\nheaders_file = '/h'\nsample_ratio = 0.0",
        ] {
            parse(text).unwrap();
        }
        assert_eq!(parse("").unwrap(), TracesKeys::default());
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_its_key_and_without_a_password() {
        for (text, said) in [
            ("endpoint = 'collector:4318'", "traces.endpoint must be http://HOST:PORT or https"),
            ("endpoint = 'http://c:99999'", "got http://c:99999"),
            ("endpoint = 'http://c:4318?key=owl'", "got http://c:4318\u{2026}"),
            ("endpoint = 'htps://c/v1?key=owl'", "got htps://c/v1\u{2026}"),
            ("endpoint = 'grpc://collector:4317'", "got grpc://collector:4317"),
            ("endpoint = 'http://u:geheim@collector:4318'", "got \u{2026}@collector:4318"),
            ("endpoint = 'https://collector'", "traces.ca must be a file in PEM"),
            ("endpoint = 'http://collector'\nca = '/ca'", "traces.ca must be empty"),
            ("endpoint = 'http://collector'\nheaders_file = '/h'", "traces.headers_file must be empty"),
            ("ca = '/ca'", "traces.ca must be empty where traces.endpoint is"),
            ("headers_file = '/h'", "traces.headers_file must be empty where traces.endpoint is"),
            ("timeout_secs = 0", "traces.timeout_secs must be 1 to 30, got 0"),
            ("timeout_secs = 31", "traces.timeout_secs must be 1 to 30, got 31"),
            ("sample_ratio = 1.5", "expected a number from 0 to 1, got 1.5"),
            ("sample_ratio = nan", "expected a number from 0 to 1, got NaN"),
            ("sample_ratio = -0.1", "expected a number from 0 to 1, got -0.1"),
            ("endpoin = ''", "unknown field"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains(said), "{text}\n{found}");
            assert!(!found.contains("geheim"), "{found}");
        }
    }
}
