//! `nightshift health`: whether the coordinator writes, and what it turned away.

use std::path::Path;

use clap::Args;
use coordinator::cli::CliError;
use proto::admin::{AdminReply, AdminRequest, Health, ServedBase, WitnessStatus};
use proto::counted::counted;
use proto::shown::{message, shown};

use crate::client::CallError;
use crate::connection::connect;
use crate::output::{Output, at, print, table};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
}

/// Prints how the coordinator is; fails where it writes nothing, so that a script can ask.
pub(super) async fn run(dir: &Path, arguments: Arguments) -> Result<(), CliError> {
    let reply = connect(dir).await?.call(AdminRequest::ShowHealth).await?;
    let AdminReply::Health(health) = reply else { return Err(CallError::Unexpected.into()) };
    print(arguments.output.format, "nightshift.health/1", &health, text)?;
    match health.trouble {
        None => Ok(()),
        Some(trouble) => Err(CliError::Store(trouble)),
    }
}

fn text(health: &Health) -> String {
    let state = match (&health.trouble, health.stopping) {
        (None, false) => "serving".to_owned(),
        (None, true) => "stopping: open rounds may end, and none is opened".to_owned(),
        (Some(_), _) => {
            format!("nothing can be written, for {} s now; what is only read goes on", health.trouble_secs)
        }
    };
    let state = format!(
        "{state}\nits certificate ends {}, and is made anew before that; its authority's ends {}",
        at(health.server_expires_unix_secs),
        at(health.authority_expires_unix_secs)
    );
    let issuer = match health.issuer_expires_unix_secs {
        0 => String::new(),
        end => format!("\nthe certificate of whoever signs devices' ends {}", at(end)),
    };
    let state = format!("{state}{issuer}{}{}{}", authority(health), log(health), bases(health));
    if health.turned_away.is_empty() {
        return format!("{state}\nnothing was turned away since the start");
    }
    let rows: Vec<Vec<String>> = health
        .turned_away
        .iter()
        .map(|count| vec![count.times.to_string(), count.listener.clone(), count.why.clone()])
        .collect();
    format!("{state}\n{}", table(&["TURNED AWAY", "LISTENER", "WHY"], &rows))
}

/// The authority apart, where there is one.
fn authority(health: &Health) -> String {
    let Some(authority) = &health.authority else { return String::new() };
    let at_address = shown(&authority.address);
    let since = at(authority.since_unix_secs);
    let says = match &authority.why {
        None if authority.answers => {
            format!("\nthe enrollment authority at {at_address} answers, since {since}")
        }
        None => format!("\nthe enrollment authority at {at_address} was not asked yet"),
        Some(why) => {
            let rounds = match health.log.as_ref().map_or(0, |log| log.rounds_unix_secs) {
                0 => "no round opens before it has said how its log is".to_owned(),
                signed => format!(
                    "rounds end {}, when the last head of its log is a day old",
                    at(signed.saturating_add(24 * 3600))
                ),
            };
            format!(
                "\nthe enrollment authority at {at_address} does not answer, since {since}: {}\nno device enrolls or renews meanwhile; \
                 {rounds}",
                shown(why)
            )
        }
    };
    let refused =
        authority.log_refused.as_ref().map_or_else(String::new, |why| format!("\n{}", message(why)));
    let says = format!("{says}{refused}");
    match authority.certificate_expires_unix_secs {
        0 => says,
        end => format!("{says}\nthe certificate in this coordinator's file for it ends {}", at(end)),
    }
}

/// The log of enrollments, and who signs it.
fn log(health: &Health) -> String {
    let Some(log) = &health.log else { return String::new() };
    let mut text = format!(
        "\nthe enrollment log has {}; {}; for witnesses it is {}",
        counted(log.size, "entry", "entries"),
        match log.head_unix_secs {
            0 => "it has no head yet".to_owned(),
            signed => format!("its newest head was signed {}", at(signed)),
        },
        shown(&log.key)
    );
    if log.rounds_size < log.size && log.rounds_unix_secs > 0 {
        let why = match log.least_witnesses {
            0 => "the others are not here yet".to_owned(),
            least => format!("no longer one is signed by {} yet", counted(least, "witness", "witnesses")),
        };
        text = format!(
            "{text}\nrounds are about its first {}, of {}: {why}",
            counted(log.rounds_size, "entry", "entries"),
            at(log.rounds_unix_secs)
        );
    }
    if log.rounds_unix_secs > 0 && !log.is_witnessed() {
        text = format!(
            "{text}\nrounds are about a head that fewer than {} signed: devices that demand more take no part",
            counted(log.least_witnesses, "witness", "witnesses")
        );
    }
    text = format!(
        "{text}\n{} in it, {} of them enrolled within a day",
        counted(log.devices, "device is", "devices are"),
        log.young_devices
    );
    if log.waiting_versions > 0 {
        text = format!(
            "{text}\n{} to become an entry",
            counted(log.waiting_versions, "version waits", "versions wait")
        );
    }
    if log.witnesses.is_empty() {
        return text;
    }
    let row = |witness: &WitnessStatus| {
        let [size, when] = if witness.signed_unix_secs == 0 {
            ["-".to_owned(), "never".to_owned()]
        } else {
            [witness.signed_size.to_string(), at(witness.signed_unix_secs)]
        };
        let now = witness.trouble.as_deref().map_or_else(|| "signs".to_owned(), |why| shown(why).to_string());
        vec![shown(&witness.name).to_string(), size, when, now]
    };
    let rows: Vec<Vec<String>> = log.witnesses.iter().map(row).collect();
    format!("{text}\n{}", table(&["WITNESS", "ENTRIES", "SIGNED", "NOW"], &rows))
}

/// The bases that devices may fetch, a line each.
fn bases(health: &Health) -> String {
    let mut text = match (health.bases.is_empty(), health.bases_to_read) {
        (true, 0) => {
            "\nno base is served; `bases` in its configuration names those that devices may fetch".to_owned()
        }
        (_, 0) => String::new(),
        (_, more) => format!(
            "\n{} still read",
            counted(more, "base that is to be served is", "bases that are to be served are")
        ),
    };
    if !health.bases.is_empty() {
        let row =
            |base: &ServedBase| vec![base.name.clone(), base.digest.to_string(), base.bytes.to_string()];
        let rows: Vec<Vec<String>> = health.bases.iter().map(row).collect();
        text = format!("{text}\n{}", table(&["SERVED BASE", "DIGEST", "BYTES"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::admin::{AuthorityStatus, LogStatus};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn an_authority_that_is_away_and_witnesses_that_do_not_sign_are_said_with_what_it_means() {
        let witness = |name: &str, signed, trouble: Option<&str>| WitnessStatus {
            name: name.into(),
            signed_size: 5,
            signed_unix_secs: signed,
            trouble: trouble.map(str::to_owned),
            ..WitnessStatus::default()
        };
        let log = LogStatus {
            key: "log+1+A".into(),
            size: 5,
            head_unix_secs: NOW,
            rounds_size: 4,
            rounds_unix_secs: NOW,
            waiting_versions: 1,
            least_witnesses: 2,
            witnesses: vec![witness("owl", NOW, None), witness("elk", 0, Some("away\u{1b}[2J"))],
            devices: 3,
            young_devices: 1,
            rounds_witnesses: 2,
        };
        let authority = AuthorityStatus {
            address: "localhost:7445".into(),
            since_unix_secs: NOW,
            why: Some("no answer".into()),
            certificate_expires_unix_secs: NOW,
            ..AuthorityStatus::default()
        };
        let mut health = Health { log: Some(log), authority: Some(authority), ..Health::default() };
        let said = text(&health);
        for words in [
            "localhost:7445 does not answer, since 2027-01-15T08:00:00Z: no answer",
            "rounds end 2027-01-16T08:00:00Z",
            "file for it ends 2027-01-15T08:00:00Z",
            "has 5 entries",
            "first 4 entries, of 2027-01-15T08:00:00Z: no longer one is signed by 2 witnesses yet",
            "3 devices are in it, 1 of them enrolled within a day",
            "1 version waits",
            "signs",
            "never",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!said.contains('\u{1b}') && !said.contains("signs devices'"), "{said}");

        // Before the authority was asked.
        health.log = Some(LogStatus::default());
        health.issuer_expires_unix_secs = NOW;
        let said = text(&health);
        assert!(said.contains("no round opens before") && said.contains("it has no head yet"), "{said}");
        assert!(said.contains("whoever signs devices' ends 2027") && !said.contains("1970"), "{said}");
        health.authority = None;
        assert!(!text(&health).contains("enrollment authority"));
    }
}
