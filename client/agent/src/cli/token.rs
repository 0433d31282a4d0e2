//! Where the bootstrap token of an enrollment comes from.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use proto::token::{BootstrapToken, looks_like_one};
use zeroize::Zeroizing;

use super::path;

/// The most bytes that are read; a token has fewer.
const MOST_BYTES: u64 = 4096;

/// Exactly one of the ways to give a token.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct TokenArgs {
    /// What `nightshift device token` printed; `-` to read it from standard input. An argument is seen by other users of
    /// this machine and stays in the shell's history: prefer `-`, or --token-file
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// A file with what `nightshift device token` printed
    #[arg(long, value_name = "FILE", value_parser = path())]
    token_file: Option<PathBuf>,
}

/// Whether a token stands among arguments; where they cannot be read, they are not printed then.
pub(super) fn is_among(args: &[OsString]) -> bool {
    args.iter().any(|argument| looks_like_one(&argument.to_string_lossy()))
}

impl TokenArgs {
    /// What a token that cannot be read ends with: a file is unusable input, an argument wrong usage.
    pub(super) fn exit_code(&self) -> u8 {
        if self.token.is_none() && self.token_file.is_some() { 3 } else { 2 }
    }

    /// The token. What was read is wiped; what was an argument cannot be.
    pub(super) fn read(&self) -> anyhow::Result<BootstrapToken> {
        let input = std::io::stdin();
        if input.is_terminal() && self.token.as_deref() == Some("-") {
            tracing::info!("reading the token from the terminal; end it with Ctrl-D");
        }
        self.read_with(input)
    }

    fn read_with(&self, input: impl Read) -> anyhow::Result<BootstrapToken> {
        match (&self.token, &self.token_file) {
            (Some(token), None) if token == "-" => parse(input, "standard input"),
            (Some(token), None) => {
                tracing::warn!(
                    "the token was an argument, which others may have seen; --token - and --token-file keep it hidden"
                );
                Ok(token.parse()?)
            }
            (None, Some(path)) => parse(open(path)?, &path.display().to_string()),
            (None, None) | (Some(_), Some(_)) => {
                anyhow::bail!(
                    "give the token in exactly one way: --token TOKEN, --token -, or --token-file FILE"
                )
            }
        }
    }
}

/// A regular file; anything else might never come to an end.
fn open(path: &Path) -> anyhow::Result<File> {
    let unread = |error| anyhow::anyhow!("cannot read the token file {}: {error}", path.display());
    if !fs::metadata(path).map_err(unread)?.is_file() {
        anyhow::bail!("the token file {} is not a regular file; use `--token -` for a pipe", path.display());
    }
    File::open(path).map_err(unread)
}

fn parse(input: impl Read, from: &str) -> anyhow::Result<BootstrapToken> {
    // Made large enough at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MOST_BYTES)? + 1));
    input
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow::anyhow!("cannot read the token from {from}: {error}"))?;
    if bytes.len() as u64 > MOST_BYTES {
        anyhow::bail!("{from} holds more than {MOST_BYTES} bytes, which is no token");
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| anyhow::anyhow!("{from} is not text"))?;
    text.parse().map_err(|error| anyhow::anyhow!("{from}: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        token: TokenArgs,
    }

    fn token_text() -> String {
        let authority = aggregation::IdentityPublic([3; 32]);
        let token = BootstrapToken::new("localhost:7443", [1; 32], authority, Zeroizing::new([2; 32]));
        token.to_text().reveal().to_owned()
    }

    fn read(args: &[&str], input: &[u8]) -> anyhow::Result<BootstrapToken> {
        let args = ["enroll"].iter().chain(args);
        Cli::try_parse_from(args)?.token.read_with(input)
    }

    #[test]
    fn a_token_comes_from_an_argument_a_file_or_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let spaced = format!("\n  {}\n\n", token_text());
        fs::write(&file, &spaced).unwrap();
        let path = file.to_str().unwrap();
        for (args, input) in [
            (["--token", &token_text()], ""),
            (["--token", "-"], spaced.as_str()),
            (["--token-file", path], "not looked at"),
        ] {
            assert_eq!(read(&args, input.as_bytes()).unwrap().address(), "localhost:7443", "{args:?}");
        }
    }

    #[test]
    fn exactly_one_way_is_taken_and_the_error_names_both() {
        let both = read(&["--token", "-", "--token-file", "f"], b"").unwrap_err().to_string();
        let none = read(&[], b"").unwrap_err().to_string();
        for error in [both, none] {
            assert!(error.contains("--token <TOKEN>") && error.contains("--token-file <FILE>"), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_by_where_it_came_from_and_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let error = read(&["--token-file", path], b"").unwrap_err().to_string();
        assert!(error.contains(path) && error.contains("not a regular file"), "{error}");
        let absent = format!("{path}/absent");
        let error = read(&["--token-file", &absent], b"").unwrap_err().to_string();
        assert!(error.contains(&absent), "{error}");
        let error = read(&["--token", "-"], b"my secret").unwrap_err().to_string();
        assert_eq!(error, "standard input: a bootstrap token begins with nst2.");
        let error = read(&["--token", "-"], b"nst1.secret").unwrap_err().to_string();
        assert!(error.contains("ask the operator for a new one") && !error.contains("secret"), "{error}");
        let error = read(&["--token", "-"], &[b' '; 5000]).unwrap_err().to_string();
        assert!(error.contains("more than 4096 bytes"), "{error}");
    }
}
