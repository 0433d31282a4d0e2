//! `nightshift device`: tokens, devices, revocation.

use std::path::Path;

use clap::{Subcommand, ValueEnum};
use coordinator::cli::CliError;
use coordinator::driver::now;
use coordinator::tokens;
use proto::admin::{
    AdminReply, AdminRequest, Attested, DeviceDetail, DeviceQuery, DeviceState, DeviceStatus, DeviceTask,
};
use proto::ids::{DeviceId, TokenId};
use proto::shown::shown;
use proto::token::BootstrapToken;
use serde::Serialize;
use serde_json::json;
use shell::cli::note;

use crate::client::{AdminClient, CallError};
use crate::connection::connect;
use crate::output::{Output, adversary, ago, at, epsilon, print, revoked, table};

/// As many are named where a word means several.
const MOST_NAMED: usize = 10;

/// The most tokens that are made at a time.
const MOST_TOKENS: i64 = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a bootstrap token: with it one device may enrol, once. Prints the token and nothing else; on stderr its id, by which
    /// `token revoke` takes it back.
    #[command(allow_negative_numbers = true)]
    Token {
        /// Whom it is for.
        #[arg(long, value_parser = label)]
        label: String,
        /// Hours until it is worth nothing.
        #[arg(long, default_value_t = 24)]
        hours: u32,
        /// Make so many, each on a line of its own, called LABEL-1, LABEL-2 and so on.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_TOKENS))]
        count: Option<u32>,
        #[command(flatten)]
        output: Output,
    },
    /// List the enrolled devices, in the order of their ids.
    #[command(allow_negative_numbers = true)]
    Ls {
        /// So many at most; all where it is left out.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Those behind this id: the last of what was listed before.
        #[arg(long, value_name = "ID")]
        after: Option<DeviceId>,
        /// Those whose label has this in it.
        #[arg(long, value_name = "WORDS")]
        label: Option<String>,
        /// Those that stand so.
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Those that have not called since: a moment such as `2026-01-31` or `2026-01-31T18:00:00Z`, or so long ago, such as
        /// `90m`, `12h` or `7d`. Whoever never called is among them.
        #[arg(long, value_name = "WHEN")]
        not_seen_since: Option<ago::When>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one device, and what it has spent in each task.
    Show {
        /// The device: its id, the beginning of it, or its label.
        device: String,
        #[command(flatten)]
        output: Output,
    },
    /// Shut a device out, for ever.
    Revoke {
        /// The device: its id, the beginning of it, or its label.
        device: String,
        #[command(flatten)]
        output: Output,
    },
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum State {
    /// It may connect.
    Enrolled,
    /// It is shut out, for ever.
    Revoked,
    /// Its certificate has ended.
    Expired,
}

impl From<State> for DeviceState {
    fn from(state: State) -> Self {
        match state {
            State::Enrolled => Self::Enrolled,
            State::Revoked => Self::Revoked,
            State::Expired => Self::Expired,
        }
    }
}

/// What the device that a word means is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// To look at it. One that is revoked is meant by its label too, where no other is.
    Shown,
    /// To revoke it.
    Revoked,
}

/// The device that a word means: its id, the beginning of that, or a label that only one has which is not revoked yet.
fn meant(all: &[DeviceStatus], word: &str, wanted: Wanted) -> Result<DeviceId, CliError> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let by_id = |device: &DeviceStatus| word.len() >= 4 && device.device.to_string().starts_with(word);
    let (revoked, good): (Vec<_>, Vec<_>) =
        all.iter().filter(|device| device.label == word && !by_id(device)).partition(|device| device.revoked);
    let mut found: Vec<&DeviceStatus> = all.iter().filter(|device| by_id(device)).chain(good).collect();
    if found.is_empty() && wanted == Wanted::Shown {
        found.clone_from(&revoked);
    }
    let word = shown(word);
    match found.as_slice() {
        [device] => Ok(device.device),
        [] if !revoked.is_empty() => Err(CliError::Input(format!(
            "every device called `{word}` is revoked already; `nightshift device ls --state revoked` has their ids"
        ))),
        [] => {
            Err(CliError::Input(format!("no device is called `{word}`; `nightshift device ls` lists them")))
        }
        several => {
            let named = |device: &&DeviceStatus| {
                format!("{} ({}, {})", device.device, shown(&device.label), state(device))
            };
            let (first, rest) = several.split_at(several.len().min(MOST_NAMED));
            let names: Vec<String> = first.iter().map(named).collect();
            let rest = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            Err(CliError::Input(format!(
                "{} devices are called `{word}`, use the id of one: {}{rest}",
                several.len(),
                names.join(", ")
            )))
        }
    }
}

/// The devices that a query wants, answer by answer, and whether there are more of them than it asks for.
async fn devices(
    client: &mut AdminClient,
    query: DeviceQuery,
) -> Result<(Vec<DeviceStatus>, bool), CliError> {
    let mut all: Vec<DeviceStatus> = Vec::new();
    let mut next = query.clone();
    loop {
        let reply = client.call(AdminRequest::ListDevices(next.clone())).await?;
        let AdminReply::Devices { devices, more } = reply else { return Err(CallError::Unexpected.into()) };
        let is_empty = devices.is_empty();
        all.extend(devices);
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let is_enough = query.limit > 0 && count >= query.limit;
        if !more || is_enough || is_empty {
            return Ok((all, more));
        }
        next.after = all.last().map(|device| device.device);
        next.limit = query.limit.saturating_sub(if query.limit > 0 { count } else { 0 });
    }
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    match command {
        Command::Token { label, hours, count: None, output } => {
            // The token alone is data, for whoever hands it on; how it is called here is for whoever may take it back.
            let Issued { token, id, .. } = issue(&mut client, label, hours).await?;
            print(output.format, "nightshift.token-issued/1", &json!({ "token": token, "id": id }), |_| {
                token.clone()
            })?;
            note(&format!("`nightshift token revoke {id}` takes it back as long as nobody has used it"));
            Ok(())
        }
        Command::Token { label, hours, count: Some(count), output } => {
            let mut issued = Vec::new();
            let mut failed = None;
            for number in 1..=count {
                match issue(&mut client, format!("{label}-{number}"), hours).await {
                    Ok(one) => issued.push(one),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            // What was made is nowhere else.
            if failed.is_none() || !issued.is_empty() {
                print(output.format, "nightshift.tokens-issued/1", &json!({ "tokens": issued }), |_| {
                    let lines: Vec<&str> = issued.iter().map(|one| one.token.as_str()).collect();
                    lines.join("\n")
                })?;
            }
            let Some(error) = failed else { return Ok(()) };
            if !issued.is_empty() {
                note(&format!(
                    "{} of {count} tokens were made before it failed, and are printed",
                    issued.len()
                ));
            }
            Err(error)
        }
        Command::Ls { limit, after, label, state, not_seen_since, output } => {
            let query = DeviceQuery {
                after,
                limit: limit.unwrap_or(0),
                label: label.unwrap_or_default(),
                state: state.map(DeviceState::from),
                not_seen_since_unix_secs: not_seen_since.map(|when| when.unix_secs(now().as_secs())),
            };
            let (devices, more) = devices(&mut client, query).await?;
            let after = devices.last().filter(|_| more).map(|device| device.device);
            let document = json!({ "devices": devices, "after": after });
            print(output.format, "nightshift.devices/1", &document, |_| {
                let rows: Vec<_> = devices.iter().map(row).collect();
                table(
                    &["DEVICE", "LABEL", "STATE", "CERTIFICATE ENDS", "LAST SEEN", "PROGRAM", "ROUNDS"],
                    &rows,
                )
            })?;
            if let Some(after) = after {
                note(&format!("there are more; `--after {after}` lists those behind"));
            }
            Ok(())
        }
        Command::Show { device, output } => {
            let device = named(&mut client, &device, Wanted::Shown).await?;
            print(output.format, "nightshift.device/1", &one(&mut client, device).await?, describe)
        }
        Command::Revoke { device, output } => {
            let device = named(&mut client, &device, Wanted::Revoked).await?;
            // What it says of one that it does not know, or may not do, it says of the revocation.
            let already = one(&mut client, device).await.is_ok_and(|device| device.status.revoked);
            if !already {
                let reply = client.call(AdminRequest::RevokeDevice(device)).await?;
                let AdminReply::Done = reply else { return Err(CallError::Unexpected.into()) };
            }
            revoked(output.format, &device, already)
        }
    }
}

/// A token that was made.
#[derive(Serialize)]
struct Issued {
    token: String,
    id: TokenId,
    label: String,
}

async fn issue(client: &mut AdminClient, label: String, hours: u32) -> Result<Issued, CliError> {
    let lifetime_secs = u64::from(hours) * 3600;
    let reply = client.call(AdminRequest::IssueToken { label: label.clone(), lifetime_secs }).await?;
    let AdminReply::Token(token) = reply else { return Err(CallError::Unexpected.into()) };
    let read = token.parse::<BootstrapToken>().map_err(CliError::internal)?;
    let id = tokens::id_of(read.key().public());
    Ok(Issued { token, id, label })
}

/// The device that a word means.
async fn named(client: &mut AdminClient, word: &str, wanted: Wanted) -> Result<DeviceId, CliError> {
    match word.parse() {
        Ok(id) => Ok(id),
        Err(_) => meant(&devices(client, DeviceQuery::default()).await?.0, word, wanted),
    }
}

async fn one(client: &mut AdminClient, device: DeviceId) -> Result<DeviceDetail, CliError> {
    let AdminReply::Device(device) = client.call(AdminRequest::ShowDevice(device)).await? else {
        return Err(CallError::Unexpected.into());
    };
    Ok(device)
}

/// A label, as it is typed.
fn label(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("a label says whom the token is for, and cannot be empty".to_owned());
    }
    Ok(text.to_owned())
}

fn state(device: &DeviceStatus) -> &'static str {
    match device.state(now().as_secs()) {
        DeviceState::Enrolled => "enrolled",
        DeviceState::Revoked => "revoked",
        DeviceState::Expired => "certificate ended",
    }
}

fn program(device: &DeviceStatus) -> String {
    if device.client.is_empty() { "unknown".to_owned() } else { device.client.clone() }
}

fn row(device: &DeviceStatus) -> Vec<String> {
    vec![
        device.device.to_string(),
        device.label.clone(),
        state(device).to_owned(),
        at(device.expires_unix_secs),
        at(device.last_seen_unix_secs),
        program(device),
        device.participations.to_string(),
    ]
}

/// By what a device was admitted when it enrolled.
fn machine(attested: Option<&Attested>) -> String {
    let Some(Attested { kind, policy, at_unix_secs, is_current }) = attested else {
        return "nothing was asked of it when it enrolled".to_owned();
    };
    let now = if *is_current { "as is asked today" } else { "something else is asked today" };
    format!("admitted by {} on {}, policy {policy}; {now}", shown(kind), at(*at_unix_secs))
}

fn describe(device: &DeviceDetail) -> String {
    let DeviceDetail { status, tasks, attested } = device;
    let mut lines = vec![
        format!("device       {} ({})", status.device, shown(&status.label)),
        format!("state        {}", state(status)),
        format!("enrolled     {}", at(status.enrolled_unix_millis / 1000)),
        format!("certificate  ends {}", at(status.expires_unix_secs)),
        format!("last seen    {}", at(status.last_seen_unix_secs)),
        format!("program      {}", shown(&program(status))),
        format!("machine      {}", machine(attested.as_ref())),
        format!("rounds       {} charged, over all tasks", status.participations),
    ];
    if !tasks.is_empty() {
        let row = |task: &DeviceTask| {
            let stands = match (task.excluded, task.declined) {
                (true, _) => "shut out until the coordinator starts again".to_owned(),
                (false, Some(reason)) => format!("declines: {reason}"),
                (false, None) => "takes part".to_owned(),
            };
            vec![
                task.name.clone(),
                format!("{}/{}", task.participations, task.participations_allowed),
                format!("{} at δ = {:e}", epsilon(task.epsilon), task.delta),
                stands,
            ]
        };
        lines.push(table(
            &["TASK", "ROUNDS", "EPSILON", "STANDING"],
            &tasks.iter().map(row).collect::<Vec<_>>(),
        ));
        let mut modes: Vec<&str> = tasks.iter().map(|task| adversary(task.mode)).collect();
        modes.sort_unstable();
        modes.dedup();
        lines.extend(modes.into_iter().map(str::to_owned));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: u8, label: &str, revoked: bool) -> DeviceStatus {
        DeviceStatus {
            device: DeviceId([id; 16]),
            label: label.to_owned(),
            enrolled_unix_millis: 1,
            expires_unix_secs: u64::MAX,
            revoked,
            last_seen_unix_secs: 0,
            client: String::new(),
            participations: 0,
        }
    }

    #[test]
    fn a_label_means_the_one_that_is_not_revoked_and_to_look_at_it_the_one_that_is() {
        let all = [
            device(0x11, "anna", true),
            device(0x22, "anna", false),
            device(0x33, "bela", true),
            device(0x44, "cem", false),
            device(0x55, "cem", false),
            device(0x66, "dora", true),
            device(0x77, "dora", true),
        ];
        let id = |id| DeviceId([id; 16]);
        for wanted in [Wanted::Shown, Wanted::Revoked] {
            assert_eq!(meant(&all, "anna", wanted).unwrap(), id(0x22));
            assert_eq!(meant(&all, "1111", wanted).unwrap(), id(0x11), "the beginning of an id");
            let said = meant(&all, "cem", wanted).unwrap_err().to_string();
            assert!(said.starts_with("2 devices are called `cem`, use the id of one: 4444"), "{said}");
            assert!(said.contains("5555") && said.contains("(cem, enrolled)"), "{said}");
            assert!(meant(&all, "eva", wanted).unwrap_err().to_string().starts_with("no device is called"));
        }
        assert_eq!(meant(&all, "bela", Wanted::Shown).unwrap(), id(0x33));
        let said = meant(&all, "bela", Wanted::Revoked).unwrap_err().to_string();
        assert!(said.starts_with("every device called `bela` is revoked already"), "{said}");
        let said = meant(&all, "dora", Wanted::Shown).unwrap_err().to_string();
        assert!(said.contains("(dora, revoked)"), "{said}");
    }
}
