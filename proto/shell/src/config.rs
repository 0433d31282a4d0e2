//! A configuration file: TOML, unknown keys refused, each value in its range.

use std::path::{Path, PathBuf};

use proto::files::{self, FileError};
use serde::de::DeserializeOwned;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not TOML, or has a wrong or unknown key.
    #[error("{}, {place}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A value is out of its range.
    #[error("{}: {key} must be {expected}, got {actual}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        actual: String,
    },
}

/// A value that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    key: &'static str,
    expected: &'static str,
    actual: String,
}

/// Refuses the value of a key where `holds` is not so; `expected` says what it must be, and `actual` what it is.
pub fn require(
    holds: bool,
    key: &'static str,
    expected: &'static str,
    actual: &impl ToString,
) -> Result<(), OutOfRange> {
    if holds { Ok(()) } else { Err(OutOfRange { key, expected, actual: actual.to_string() }) }
}

/// Reads a file. Fails when it is not there, has a wrong or unknown key (where the type refuses unknown ones), or a value
/// that `check` refuses.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), OutOfRange>,
) -> Result<T, ConfigError> {
    let bytes = files::read(path)?;
    parse(&String::from_utf8_lossy(&bytes), path, check)
}

/// The line and the column of a byte of a text, both from 1, for people.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

/// The same for the text of a file; `path` is for messages only.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), OutOfRange>,
) -> Result<T, ConfigError> {
    let path = || path.to_owned();
    let config = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        path: path(),
        place: place(text, error.span().map_or(0, |span| span.start)),
        why: error.message().to_owned(),
    })?;
    match check(&config) {
        Ok(()) => Ok(config),
        Err(OutOfRange { key, expected, actual }) => {
            Err(ConfigError::Value { path: path(), key, expected, actual })
        }
    }
}
