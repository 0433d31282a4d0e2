//! The keys of a coordinator's configuration that say who is asked. What does not go together is refused by its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shell::config::{OutOfRange, require};
use shell::home;

use crate::quote::Registers;
use crate::webhook::{Place, place};

/// The longest time that anybody is waited for, in seconds: the connection of a device that enrolls lives for little more than
/// what both may take together.
const MOST_SECS: u32 = 6;

/// The most by which a certificate's times may differ from what was asked, in seconds.
const MOST_SLACK_SECS: u32 = 24 * 3600;

/// Who signs devices' certificates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerKeys {
    /// `own`, `command` or `webhook`. Default `own`: the coordinator's own authority.
    pub kind: IssuerKind,
    /// For `command`: the program, with its whole path, and its arguments. Default none.
    pub command: Vec<String>,
    /// For `webhook`: where it is asked, `https:`, or `http:` on this machine. Default none.
    pub url: String,
    /// For `https:`: a file (PEM) with the authorities that vouch for the service. Default none.
    #[serde(deserialize_with = "home::path")]
    pub ca: PathBuf,
    /// For `webhook`: a file with a token that is shown to it, readable by its owner only; empty for none. Default none.
    #[serde(deserialize_with = "home::path")]
    pub bearer_file: PathBuf,
    /// For `command` and `webhook`: a file (PEM) with the authorities whose certificates the listener takes from devices
    /// beside its own. Default none.
    #[serde(deserialize_with = "home::path")]
    pub authority: PathBuf,
    /// Seconds that it is waited for, 1 to 6. Default 5.
    pub timeout_secs: u32,
    /// Seconds by which a certificate's times may differ from what was asked, at most a day. Default 300.
    pub slack_secs: u32,
}

/// Who signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IssuerKind {
    /// The coordinator's own authority.
    #[default]
    Own,
    /// A program on this machine.
    Command,
    /// A service.
    Webhook,
}

/// What is asked of a device's machine before it enrolls.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationKeys {
    /// `none`, `allow-list`, `webhook` or `tpm`. Default `none`.
    pub kind: AttestationKind,
    /// For `allow-list`, and for `tpm` where keys are listed: a file with a line for each key. Default none.
    #[serde(deserialize_with = "home::path")]
    pub allow_list: PathBuf,
    /// For `webhook`: where it is asked, `https:`, or `http:` on this machine. Default none.
    pub url: String,
    /// For `https:`: a file (PEM) with the authorities that vouch for the service. Default none.
    #[serde(deserialize_with = "home::path")]
    pub ca: PathBuf,
    /// For `webhook`: a file with a token that is shown to it, readable by its owner only; empty for none. Default none.
    #[serde(deserialize_with = "home::path")]
    pub bearer_file: PathBuf,
    /// For `webhook`: seconds that it is waited for, 1 to 6. Default 5.
    pub timeout_secs: u32,
    /// For `tpm`: a file (PEM) with the authorities that vouch for keys of TPMs. Default none.
    #[serde(deserialize_with = "home::path")]
    pub roots: PathBuf,
    /// For `tpm`: the lowest version of a TPM's firmware, as its maker counts. Default 0.
    pub least_firmware: u64,
    /// For `tpm`: what registers (0 to 23, of the bank of SHA-256) may hold, in hexadecimal digits. Default none.
    pub registers: BTreeMap<String, Vec<String>>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttestationKind {
    /// Nothing.
    #[default]
    None,
    /// Whether its key is listed.
    AllowList,
    /// What a service says.
    Webhook,
    /// What its TPM says.
    Tpm,
}

impl AttestationKind {
    /// As it stands in a configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::AllowList => "allow-list",
            Self::Webhook => "webhook",
            Self::Tpm => "tpm",
        }
    }
}

impl Default for IssuerKeys {
    fn default() -> Self {
        Self {
            kind: IssuerKind::Own,
            command: Vec::new(),
            url: String::new(),
            ca: PathBuf::new(),
            bearer_file: PathBuf::new(),
            authority: PathBuf::new(),
            timeout_secs: 5,
            slack_secs: 300,
        }
    }
}

impl Default for AttestationKeys {
    fn default() -> Self {
        Self {
            kind: AttestationKind::None,
            allow_list: PathBuf::new(),
            url: String::new(),
            ca: PathBuf::new(),
            bearer_file: PathBuf::new(),
            timeout_secs: 5,
            roots: PathBuf::new(),
            least_firmware: 0,
            registers: BTreeMap::new(),
        }
    }
}

impl IssuerKeys {
    /// Fails where a value is out of its range, or keys do not go together.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Self { kind, command, url, ca, bearer_file, authority, timeout_secs, slack_secs } = self;
        let is_command = *kind == IssuerKind::Command;
        let is_webhook = *kind == IssuerKind::Webhook;
        let words = command.join(" ");
        let is_program = command.first().is_some_and(|path| Path::new(path).is_absolute());
        require(is_command || command.is_empty(), "issuer.command", NOT_COMMAND, &words)?;
        require(!is_command || is_program, "issuer.command", "a program with its whole path", &words)?;
        let keys = ("issuer.url", "issuer.ca", "issuer.bearer_file");
        service(is_webhook, (keys.0, url), (keys.1, ca), (keys.2, bearer_file))?;
        let is_outside = is_command || is_webhook;
        let expected =
            "a file in PEM where issuer.kind is \"command\" or \"webhook\", and empty where it is \"own\"";
        require(is_outside != is_empty(authority), "issuer.authority", expected, &authority.display())?;
        require((1..=MOST_SECS).contains(timeout_secs), "issuer.timeout_secs", "1 to 6", timeout_secs)?;
        require(*slack_secs <= MOST_SLACK_SECS, "issuer.slack_secs", "at most 86400", slack_secs)
    }
}

impl AttestationKeys {
    /// Fails where a value is out of its range, or keys do not go together.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Self { kind, allow_list, url, ca, bearer_file, timeout_secs, roots, least_firmware, registers } =
            self;
        let is_tpm = *kind == AttestationKind::Tpm;
        let is_list = *kind == AttestationKind::AllowList;
        let (list_key, list) = ("attestation.allow_list", allow_list.display());
        require(is_list || is_tpm || is_empty(allow_list), list_key, NOT_LISTED, &list)?;
        require(
            !is_list || !is_empty(allow_list),
            list_key,
            "a file where attestation.kind is \"allow-list\"",
            &list,
        )?;
        let is_webhook = *kind == AttestationKind::Webhook;
        let keys = ("attestation.url", "attestation.ca", "attestation.bearer_file");
        service(is_webhook, (keys.0, url), (keys.1, ca), (keys.2, bearer_file))?;
        require((1..=MOST_SECS).contains(timeout_secs), "attestation.timeout_secs", "1 to 6", timeout_secs)?;
        let trusted = "a file in PEM, or attestation.allow_list one, where attestation.kind is \"tpm\"";
        require(is_tpm || is_empty(roots), "attestation.roots", NOT_TPM, &roots.display())?;
        let is_trusted = !is_empty(roots) || !is_empty(allow_list);
        require(!is_tpm || is_trusted, "attestation.roots", trusted, &"neither")?;
        require(
            is_tpm || *least_firmware == 0,
            "attestation.least_firmware",
            "0 where attestation.kind is not \"tpm\"",
            least_firmware,
        )?;
        let names = registers.keys().cloned().collect::<Vec<_>>().join(", ");
        require(is_tpm || registers.is_empty(), "attestation.registers", NOT_TPM, &names)?;
        let some = "at least one register with what it may hold, where attestation.kind is \"tpm\"";
        require(!is_tpm || !registers.is_empty(), "attestation.registers", some, &"none")?;
        let read = Registers::read(registers);
        let values = "numbers from 0 to 23, each with 1 to 64 values of 64 hexadecimal digits";
        require(read.is_ok(), "attestation.registers", values, &read.err().unwrap_or_default())
    }
}

const NOT_COMMAND: &str = "empty where issuer.kind is not \"command\"";
const NOT_TPM: &str = "empty where attestation.kind is not \"tpm\"";
const NOT_LISTED: &str = "empty where attestation.kind is neither \"allow-list\" nor \"tpm\"";

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// The three keys of a service.
fn service(
    is_asked: bool,
    (url_key, url): (&'static str, &str),
    (ca_key, ca): (&'static str, &Path),
    (bearer_key, bearer): (&'static str, &Path),
) -> Result<(), OutOfRange> {
    let unused = "empty where the kind is not \"webhook\"";
    if !is_asked {
        require(url.is_empty(), url_key, unused, &url)?;
        require(is_empty(ca), ca_key, unused, &ca.display())?;
        return require(is_empty(bearer), bearer_key, unused, &bearer.display());
    }
    let found = place(url);
    let addresses = "https://HOST/PATH, or http://127.0.0.1:PORT/PATH on this machine";
    require(found.is_some(), url_key, addresses, &url)?;
    match found {
        Some(Place::Loopback) => {
            require(is_empty(ca), ca_key, "empty where the address is not https", &ca.display())
        }
        Some(Place::Https) | None => {
            require(!is_empty(ca), ca_key, "a file in PEM where the address is https", &"nothing")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Both {
        issuer: IssuerKeys,
        attestation: AttestationKeys,
    }

    fn parse(text: &str) -> Result<Both, String> {
        shell::config::parse(text, Path::new("c.toml"), |both: &Both| {
            both.issuer.check()?;
            both.attestation.check()
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn what_goes_together_is_taken() {
        let register = format!("[attestation.registers]\n7 = ['{}']", "ab".repeat(32));
        for text in [
            String::new(),
            "[issuer]\nkind = 'command'\ncommand = ['/usr/bin/sign', '-x']\nauthority = '/a.pem'".to_owned(),
            "[issuer]\nkind = 'webhook'\nurl = 'https://ca.example/sign'\nca = '/ca.pem'\nauthority = '/a.pem'".to_owned(),
            "[issuer]\nkind = 'webhook'\nurl = 'http://[::1]:8080/sign'\nauthority = '/a.pem'".to_owned(),
            "[attestation]\nkind = 'allow-list'\nallow_list = '/l'".to_owned(),
            "[attestation]\nkind = 'webhook'\nurl = 'http://localhost/x'\nbearer_file = '/b'".to_owned(),
            format!("[attestation]\nkind = 'tpm'\nroots = '/r'\n{register}"),
            format!("[attestation]\nkind = 'tpm'\nallow_list = '/l'\nleast_firmware = 3\n{register}"),
        ] {
            parse(&text).unwrap();
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_its_key() {
        let register = format!("[attestation.registers]\n7 = ['{}']", "ab".repeat(32));
        for (text, key) in [
            ("[issuer]\nkind = 'acme'", "unknown variant `acme`"),
            ("[issuer]\nauthority = '/a'", "issuer.authority must be"),
            ("[issuer]\ncommand = ['/x']", "issuer.command must be empty"),
            ("[issuer]\nkind = 'command'\nauthority = '/a'", "issuer.command must be a program"),
            (
                "[issuer]\nkind = 'command'\nauthority = '/a'\ncommand = ['sh']",
                "issuer.command must be a program",
            ),
            ("[issuer]\nkind = 'command'\ncommand = ['/x']", "issuer.authority must be a file"),
            (
                "[issuer]\nkind = 'command'\ncommand = ['/x']\nauthority = '/a'\nurl = 'http://localhost/'",
                "issuer.url must be empty",
            ),
            ("[issuer]\nkind = 'webhook'\nauthority = '/a'", "issuer.url must be https"),
            (
                "[issuer]\nkind = 'webhook'\nauthority = '/a'\nurl = 'http://ca.example/'",
                "issuer.url must be https",
            ),
            (
                "[issuer]\nkind = 'webhook'\nauthority = '/a'\nurl = 'https://u:p@ca.example/'\nca = '/c'",
                "issuer.url must be https",
            ),
            (
                "[issuer]\nkind = 'webhook'\nauthority = '/a'\nurl = 'https://ca.example/'",
                "issuer.ca must be a file",
            ),
            (
                "[issuer]\nkind = 'webhook'\nauthority = '/a'\nurl = 'http://127.0.0.1/'\nca = '/c'",
                "issuer.ca must be empty",
            ),
            ("[issuer]\ntimeout_secs = 0", "issuer.timeout_secs must be 1 to 6"),
            ("[issuer]\nslack_secs = 86401", "issuer.slack_secs must be"),
            ("[issuer]\nbearer_file = '/b'", "issuer.bearer_file must be empty"),
            ("[attestation]\nallow_list = '/l'", "attestation.allow_list must be empty"),
            ("[attestation]\nkind = 'allow-list'", "attestation.allow_list must be a file"),
            (
                "[attestation]\nkind = 'allow-list'\nallow_list = '/l'\nroots = '/r'",
                "attestation.roots must be empty",
            ),
            ("[attestation]\nkind = 'webhook'", "attestation.url must be https"),
            ("[attestation]\ntimeout_secs = 7", "attestation.timeout_secs must be 1 to 6"),
            ("[attestation]\nleast_firmware = 1", "attestation.least_firmware must be 0"),
            ("[attestation]\nkind = 'tpm'\nroots = '/r'", "attestation.registers must be at least one"),
            (&format!("[attestation]\nkind = 'tpm'\n{register}"), "attestation.roots must be a file"),
            (&register, "attestation.registers must be empty"),
            (
                "[attestation]\nkind = 'tpm'\nroots = '/r'\n[attestation.registers]\n24 = ['00']",
                "attestation.registers must be numbers",
            ),
            (
                "[attestation]\nkind = 'tpm'\nroots = '/r'\n[attestation.registers]\n7 = ['00']",
                "attestation.registers must be numbers",
            ),
            (
                "[attestation]\nkind = 'tpm'\nroots = '/r'\n[attestation.registers]\n7 = []",
                "attestation.registers must be numbers",
            ),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(key), "{text}\n{said}");
        }
    }
}
