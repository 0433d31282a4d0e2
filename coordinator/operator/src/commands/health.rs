//! `nightshift health`: whether the coordinator writes, and what it turned away.

use std::path::Path;

use clap::Args;
use coordinator::cli::CliError;
use proto::admin::{AdminReply, AdminRequest, Health, ServedBase, WitnessStatus};
use proto::counted::counted;
use proto::shown::shown;

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
            let signed = health.log.as_ref().map_or(0, |log| log.rounds_unix_secs);
            format!(
                "\nthe enrollment authority at {at_address} does not answer, since {since}: {}\nno device enrolls or renews meanwhile; \
                 rounds end {}, when the last head of its log is a day old",
                shown(why),
                at(signed + 24 * 3600)
            )
        }
    };
    match authority.certificate_expires_unix_secs {
        0 => says,
        end => format!("{says}\nthe certificate in this coordinator's file for it ends {}", at(end)),
    }
}

/// The log of enrollments, and who signs it.
fn log(health: &Health) -> String {
    let Some(log) = &health.log else { return String::new() };
    let mut text = format!(
        "\nthe enrollment log has {}; its newest head was signed {}; for witnesses it is {}",
        counted(log.size, "entry", "entries"),
        at(log.head_unix_secs),
        shown(&log.key)
    );
    if log.rounds_size < log.size {
        text = format!(
            "{text}\nrounds are about its first {}, of {}: {} witnesses have not signed a longer one yet",
            counted(log.rounds_size, "entry", "entries"),
            at(log.rounds_unix_secs),
            log.least_witnesses
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
