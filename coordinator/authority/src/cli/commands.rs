//! Commands that ask the authority that runs: over its listener, by the operator's certificate in its folder.

use std::path::Path;

use comfy_table::{Table, presets};
use proto::admin::{LogStatus, TokenState, TokenStatus};
use proto::authority::{AuthorityReply, AuthorityRequest, IssuedDevice};
use proto::files;
use proto::ids::{DeviceId, TokenId};
use proto::shown::shown;
use serde::Serialize;
use serving::cli::CliError;
use serving::pki::Identity;
use shell::cli::{Format, note, print};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::spawn_blocking;

use crate::asking::{AskError, Link};
use crate::bundle::{Bundle, BundleError, SaveError};
use crate::clock::now_unix_secs;
use crate::config::Config;
use crate::keeper::SEED_FILE;
use crate::keeper::peers::OPERATOR;
use crate::server::ADDRESS_FILE;

/// A document for programs: an object that says first what it is.
#[derive(Serialize)]
struct Document<T> {
    schema: &'static str,
    #[serde(flatten)]
    document: T,
}

#[derive(Serialize)]
struct TokenDocument {
    token: String,
}

#[derive(Serialize)]
struct TokensDocument {
    tokens: Vec<TokenStatus>,
}

#[derive(Serialize)]
struct DevicesDocument {
    devices: Vec<DeviceDocument>,
}

#[derive(Serialize)]
struct DeviceDocument {
    device: DeviceId,
    label: String,
    identity: String,
    enrolled_unix_secs: u64,
    expires_unix_secs: u64,
    revoked_unix_secs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_by: Option<String>,
}

pub(super) async fn make_token(
    config: &Config,
    (label, lifetime_secs, coordinator): (String, u64, String),
    format: Format,
) -> Result<(), CliError> {
    let request = AuthorityRequest::IssueToken { label, lifetime_secs, coordinator };
    let AuthorityReply::Token(token) = ask(config, request).await? else { return Err(unexpected()) };
    let text = token.clone();
    printed(format, "nightshift.authority.token/1", TokenDocument { token }, || text)
}

pub(super) async fn list_tokens(config: &Config, format: Format) -> Result<(), CliError> {
    let tokens = tokens(config).await?;
    let rows: Vec<Vec<String>> = tokens.iter().map(token_row).collect();
    printed(format, "nightshift.authority.tokens/1", TokensDocument { tokens }, || {
        table(&["TOKEN", "LABEL", "STATE", "MADE", "EXPIRES"], &rows)
    })
}

pub(super) async fn revoke_token(config: &Config, word: &str) -> Result<(), CliError> {
    let token = meant(&tokens(config).await?, word)?;
    done(&ask(config, AuthorityRequest::RevokeToken(token)).await?)?;
    note(&format!("revoked {token}"));
    Ok(())
}

pub(super) async fn list_devices(config: &Config, format: Format) -> Result<(), CliError> {
    let mut all: Vec<IssuedDevice> = Vec::new();
    loop {
        let after = all.last().map(|device| device.device);
        let reply = ask(config, AuthorityRequest::ListIssued { after }).await?;
        let AuthorityReply::Devices { devices, more } = reply else { return Err(unexpected()) };
        let none = devices.is_empty();
        all.extend(devices);
        if !more || none {
            break;
        }
    }
    let rows: Vec<Vec<String>> = all.iter().map(device_row).collect();
    let devices = all.into_iter().map(DeviceDocument::of).collect();
    printed(format, "nightshift.authority.devices/1", DevicesDocument { devices }, || {
        table(&["DEVICE", "LABEL", "STATE", "ENROLLED", "EXPIRES"], &rows)
    })
}

pub(super) async fn revoke_device(config: &Config, device: DeviceId) -> Result<(), CliError> {
    done(&ask(config, AuthorityRequest::RevokeDevice(device)).await?)?;
    note(&format!("revoked {device}; its coordinators are told within half a minute of their next call"));
    Ok(())
}

pub(super) async fn coordinator_file(config: &Config, out: &Path, name: String) -> Result<(), CliError> {
    let (public, own, path) = (public_key(config)?, config.clone(), out.to_owned());
    let runtime = tokio::runtime::Handle::current();
    // A new certificate makes the one before worthless, so it is known first that the file can be written.
    let made = spawn_blocking(move || {
        Bundle::save_made(&path, public, || runtime.block_on(certified(&own, public, name)))
    });
    let bundle = made.await.map_err(CliError::internal)?.map_err(|error| match error {
        SaveError::Bundle(error @ BundleError::Taken(_)) => CliError::Input(error.to_string()),
        SaveError::Bundle(error) => CliError::Store(error.to_string()),
        SaveError::Made(error) => error,
    })?;
    note(&format!(
        "wrote {}, by which a coordinator calls {}; bring it there by a private way, and name it in coordinator.toml: \
         [authority] file",
        out.display(),
        bundle.address
    ));
    Ok(())
}

/// What a coordinator's file says, with a new certificate.
async fn certified(
    config: &Config,
    enrollment_key: aggregation::IdentityPublic,
    name: String,
) -> Result<Bundle, CliError> {
    let (key, certificate_request_pem) = Identity::request().map_err(CliError::internal)?;
    let request = AuthorityRequest::AddCoordinator { name, certificate_request_pem };
    let AuthorityReply::Certificate(pem) = ask(config, request).await? else { return Err(unexpected()) };
    let identity = key.with_chain(&pem).map_err(CliError::internal)?;
    let listens = address(config)?;
    let port =
        listens.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(config.listen.port());
    let mut at = config.listen;
    at.set_port(port);
    Ok(Bundle { address: config.reached_at(at), enrollment_key, identity })
}

pub(super) async fn show_log(config: &Config, format: Format) -> Result<(), CliError> {
    let AuthorityReply::LogStatus(log) = ask(config, AuthorityRequest::ShowLog).await? else {
        return Err(unexpected());
    };
    let text = log_text(&log);
    printed(format, "nightshift.authority.log/1", log, || text)
}

/// How the log is, for people.
fn log_text(log: &LogStatus) -> String {
    let mut lines = vec![
        format!("the log, for witnesses: {}", log.key),
        format!("{} entries; the newest head was signed {}", log.size, at(log.head_unix_secs)),
        format!("{} devices enrolled, {} of them within a day", log.devices, log.young_devices),
    ];
    if log.least_witnesses > 0 {
        let about = if log.is_witnessed() {
            format!("heads that {} of the witnesses signed", log.least_witnesses)
        } else {
            format!(
                "the newest head, which fewer than {} witnesses signed: devices that demand more take no part",
                log.least_witnesses
            )
        };
        lines.push(format!(
            "rounds are about {about}; now that of {} entries, of {}",
            log.rounds_size,
            at(log.rounds_unix_secs)
        ));
    }
    if log.witnesses.is_empty() {
        lines.push("no witness is asked; [[witness]] in the configuration names some".to_owned());
        return lines.join("\n");
    }
    let rows: Vec<Vec<String>> = log
        .witnesses
        .iter()
        .map(|witness| {
            let signed = if witness.signed_unix_secs == 0 {
                ["-".to_owned(), "never".to_owned()]
            } else {
                [witness.signed_size.to_string(), at(witness.signed_unix_secs)]
            };
            let [size, when] = signed;
            let trouble =
                witness.trouble.as_deref().map_or_else(|| "signs".to_owned(), |why| shown(why).to_string());
            vec![shown(&witness.name).to_string(), size, when, trouble]
        })
        .collect();
    lines.push(table(&["WITNESS", "ENTRIES", "SIGNED", "NOW"], &rows));
    lines.join("\n")
}

/// The key of the authority in this folder.
fn public_key(config: &Config) -> Result<aggregation::IdentityPublic, CliError> {
    let path = config.state_dir.join(SEED_FILE);
    let seed = zeroize::Zeroizing::new(
        files::read_secret(&path).map_err(|error| CliError::Store(error.to_string()))?,
    );
    let seed: &[u8; 32] = seed
        .as_slice()
        .try_into()
        .map_err(|_| CliError::Input(format!("{} does not hold a seed of 32 bytes", path.display())))?;
    Ok(aggregation::IdentityKey::from_seed(seed).public())
}

async fn tokens(config: &Config) -> Result<Vec<TokenStatus>, CliError> {
    let reply = ask(config, AuthorityRequest::ListTokens).await?;
    let AuthorityReply::TokenList(tokens) = reply else { return Err(unexpected()) };
    Ok(tokens)
}

async fn ask(config: &Config, request: AuthorityRequest) -> Result<AuthorityReply, CliError> {
    let folder = &config.state_dir;
    let identity = Identity::load(folder, OPERATOR).map_err(|error| {
        CliError::Input(format!(
            "{error}; `nightshift-authority init` makes an authority, as the user that it runs as"
        ))
    })?;
    let address = address(config)?;
    let link = Link::new(&address, &identity).map_err(CliError::input)?;
    link.ask(request).await.map_err(|error| match error {
        AskError::Rejected(rejection) => CliError::Refused(rejection.reason()),
        AskError::Unreachable(why) => CliError::Network(format!(
            "the authority of {} does not answer at {address}: {why}; start it by `nightshift-authority serve`",
            folder.display()
        )),
        AskError::Unexpected => CliError::internal(error),
    })
}

/// Where the authority of this folder listens.
fn address(config: &Config) -> Result<String, CliError> {
    let path = config.state_dir.join(ADDRESS_FILE);
    let bytes = files::read(&path).map_err(|error| {
        CliError::Network(format!("{error}; start the authority first: nightshift-authority serve"))
    })?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn done(reply: &AuthorityReply) -> Result<(), CliError> {
    if *reply == AuthorityReply::Done { Ok(()) } else { Err(unexpected()) }
}

fn unexpected() -> CliError {
    CliError::internal(AskError::Unexpected)
}

/// The token that a word means: its id, the beginning of that, or a label that only one has which is still open.
fn meant(all: &[TokenStatus], word: &str) -> Result<TokenId, CliError> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let is_meant = |token: &&TokenStatus| {
        let by_id = word.len() >= 4 && token.token.to_string().starts_with(word);
        by_id || (token.label == word && token.state(now_unix_secs()) == TokenState::Open)
    };
    let found: Vec<&TokenStatus> = all.iter().filter(is_meant).collect();
    let word = shown(word);
    match found.as_slice() {
        [token] => Ok(token.token),
        [] => Err(CliError::Input(format!(
            "no open bootstrap token is called `{word}`; `nightshift-authority token ls` lists them"
        ))),
        several => Err(CliError::Input(format!(
            "{} bootstrap tokens are called `{word}`; use the id that `nightshift-authority token ls` prints",
            several.len()
        ))),
    }
}

fn token_row(token: &TokenStatus) -> Vec<String> {
    let state = match token.state(now_unix_secs()) {
        TokenState::Open => "open".to_owned(),
        TokenState::Expired => "expired".to_owned(),
        TokenState::Redeemed => format!("redeemed {}", at(token.redeemed_unix_secs.unwrap_or(0))),
        TokenState::Revoked => format!("revoked {}", at(token.revoked_unix_secs.unwrap_or(0))),
    };
    let (made, expires) = (at(token.issued_unix_secs), at(token.expires_unix_secs));
    vec![token.token.to_string(), token.label.clone(), state, made, expires]
}

fn device_row(device: &IssuedDevice) -> Vec<String> {
    let state = match device.revoked_unix_secs {
        Some(revoked) => match &device.revoked_by {
            Some(name) => format!("revoked {} by coordinator {name}", at(revoked)),
            None => format!("revoked {}", at(revoked)),
        },
        None if now_unix_secs() >= device.expires_unix_secs => "expired".to_owned(),
        None => "enrolled".to_owned(),
    };
    let (enrolled, expires) = (at(device.enrolled_unix_secs), at(device.expires_unix_secs));
    vec![device.device.to_string(), device.label.clone(), state, enrolled, expires]
}

impl DeviceDocument {
    fn of(device: IssuedDevice) -> Self {
        Self {
            device: device.device,
            label: device.label,
            identity: hex::encode(device.identity.0),
            enrolled_unix_secs: device.enrolled_unix_secs,
            expires_unix_secs: device.expires_unix_secs,
            revoked_unix_secs: device.revoked_unix_secs,
            revoked_by: device.revoked_by,
        }
    }
}

/// A moment, in UTC.
fn at(unix_secs: u64) -> String {
    let moment =
        i64::try_from(unix_secs).ok().and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| unix_secs.to_string())
}

fn printed<T: Serialize>(
    format: Format,
    schema: &'static str,
    document: T,
    text: impl FnOnce() -> String,
) -> Result<(), CliError> {
    print(format, &Document { schema, document }, text).map_err(CliError::internal)
}

/// Rows under a head, each column as wide as its widest cell.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| shown(cell).to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_labels_cannot_break_a_line() {
        let rows = [vec!["a\nb".to_owned(), "x".to_owned()], vec!["long one".to_owned(), String::new()]];
        let text = table(&["L", "STATE"], &rows);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.starts_with('L') && text.contains("  STATE"), "{text}");
    }

    #[test]
    fn a_word_means_one_token() {
        let token = |id, label: &str, redeemed_unix_secs| TokenStatus {
            token: TokenId([id; 8]),
            label: label.into(),
            issued_unix_secs: 1,
            expires_unix_secs: u64::MAX,
            redeemed_unix_secs,
            revoked_unix_secs: None,
        };
        let all = [token(0x11, "anna", Some(2)), token(0x22, "anna", None)];
        assert_eq!(meant(&all, "anna").unwrap(), TokenId([0x22; 8]));
        assert_eq!(meant(&all, "1111").unwrap(), TokenId([0x11; 8]));
        assert!(meant(&all, "bob").unwrap_err().to_string().contains("no open bootstrap token"));
    }
}
