//! `nightshift health`: whether the coordinator writes, and what it turned away.

use std::path::Path;

use clap::Args;
use coordinator::cli::CliError;
use proto::admin::{AdminReply, AdminRequest, Health, ServedBase};
use proto::counted::counted;

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
    let state = format!("{state}{}", bases(health));
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
