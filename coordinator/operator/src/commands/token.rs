//! `nightshift token`: the bootstrap tokens that were made, and never their secrets. `nightshift device token` makes one.

use std::path::Path;

use clap::Subcommand;
use coordinator::cli::CliError;
use coordinator::driver::now;
use proto::admin::{AdminReply, AdminRequest, TokenState, TokenStatus};
use proto::ids::TokenId;
use proto::shown::shown;
use serde_json::json;

use crate::client::{AdminClient, CallError};
use crate::connection::connect;
use crate::output::{Output, at, print, revoked, table};

/// As many are named where a word means several.
const MOST_NAMED: usize = 10;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the bootstrap tokens, the newest first; their secrets are nowhere but where they were printed.
    Ls {
        /// Those alone with which a device may still enroll.
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Make a token worthless that nobody has used yet.
    Revoke {
        /// The token: its id, the beginning of it, or its label.
        token: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    match command {
        Command::Ls { open, output } => {
            let mut tokens = tokens(&mut client).await?;
            tokens.retain(|token| !open || token.state(now().as_secs()) == TokenState::Open);
            print(output.format, "nightshift.tokens/1", &json!({ "tokens": tokens }), |_| {
                let rows: Vec<_> = tokens.iter().map(row).collect();
                table(&["TOKEN", "LABEL", "STATE", "MADE", "EXPIRES"], &rows)
            })
        }
        Command::Revoke { token, output } => {
            let all = tokens(&mut client).await?;
            let token = meant(&all, &token)?;
            let already = all.iter().any(|one| one.token == token && one.revoked_unix_secs.is_some());
            if !already {
                let reply = client.call(AdminRequest::RevokeToken(token)).await?;
                let AdminReply::Done = reply else { return Err(CallError::Unexpected.into()) };
            }
            revoked(output.format, &token, already)
        }
    }
}

async fn tokens(client: &mut AdminClient) -> Result<Vec<TokenStatus>, CliError> {
    let AdminReply::TokenList(tokens) = client.call(AdminRequest::ListTokens).await? else {
        return Err(CallError::Unexpected.into());
    };
    Ok(tokens)
}

/// The token that a word means: its id, the beginning of that, or a label that only one has which is still open.
fn meant(all: &[TokenStatus], word: &str) -> Result<TokenId, CliError> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let is_meant = |token: &&TokenStatus| {
        let by_id = word.len() >= 4 && token.token.to_string().starts_with(word);
        by_id || (token.label == word && token.state(now().as_secs()) == TokenState::Open)
    };
    let found: Vec<&TokenStatus> = all.iter().filter(is_meant).collect();
    let word = shown(word);
    match found.as_slice() {
        [token] => Ok(token.token),
        [] => Err(CliError::Input(format!(
            "no open bootstrap token is called `{word}`; `nightshift token ls` lists them"
        ))),
        several => {
            let ids: Vec<String> = several.iter().take(MOST_NAMED).map(|one| one.token.to_string()).collect();
            let more = several.len().saturating_sub(MOST_NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            Err(CliError::Input(format!(
                "{} bootstrap tokens are called `{word}`, use the id of one: {}{more}",
                several.len(),
                ids.join(", ")
            )))
        }
    }
}

fn row(token: &TokenStatus) -> Vec<String> {
    let state = match token.state(now().as_secs()) {
        TokenState::Open => "open".to_owned(),
        TokenState::Expired => "expired".to_owned(),
        TokenState::Redeemed => format!("redeemed {}", at(token.redeemed_unix_secs.unwrap_or(0))),
        TokenState::Revoked => format!("revoked {}", at(token.revoked_unix_secs.unwrap_or(0))),
    };
    let (made, expires) = (at(token.issued_unix_secs), at(token.expires_unix_secs));
    vec![token.token.to_string(), token.label.clone(), state, made, expires]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_an_id_or_the_one_open_token_of_a_label() {
        let token = |id, label: &str, redeemed_unix_secs| TokenStatus {
            token: TokenId([id; 8]),
            label: label.into(),
            issued_unix_secs: 1,
            expires_unix_secs: u64::MAX,
            redeemed_unix_secs,
            revoked_unix_secs: None,
        };
        let all = [token(0x11, "anna", Some(2)), token(0x22, "anna", None), token(0x33, "bob", Some(2))];
        assert_eq!(meant(&all, "anna").unwrap(), TokenId([0x22; 8]));
        assert_eq!(meant(&all, "1111").unwrap(), TokenId([0x11; 8]));
        assert_eq!(
            meant(&all, "4444444444444444").unwrap(),
            TokenId([0x44; 8]),
            "the coordinator says that it is none"
        );
        assert!(meant(&all, "bob").unwrap_err().to_string().contains("no open bootstrap token"));
        let two = [token(0x11, "anna", None), token(0x22, "anna", None)];
        assert!(meant(&two, "anna").unwrap_err().to_string().starts_with("2 bootstrap tokens"));
    }
}
