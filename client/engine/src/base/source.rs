//! What a user names a base by.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use formats::HubCache;

/// How a name of a hub's repository begins.
const HUB: &str = "hf:";

/// Where a base is: `DIR`, `FILE.gguf` or `hf:owner/name[/FILE.gguf][@revision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On this machine.
    Path(PathBuf),
    /// In a repository of the Hugging Face hub.
    Hub(Repository),
}

/// A repository of the hub at a revision, or one GGUF file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    name: String,
    file: Option<String>,
    revision: String,
}

/// A text that names no base.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing.
    #[error("a base is a folder, a GGUF file, or `hf:owner/name[/FILE.gguf][@revision]`, found nothing")]
    Empty,
    /// No name of a repository.
    #[error("`{0}` is not of the form `hf:owner/name[/FILE.gguf][@revision]`")]
    Repository(String),
}

impl Repository {
    /// `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The one file that is wanted, if it is one.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// A branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The folder, or the GGUF file, that an earlier fetch of this revision left in a cache; the hub is not asked.
    pub fn cached(&self, cache: &HubCache) -> Option<PathBuf> {
        cache.base(&self.name, self.file.as_deref(), &self.revision)
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text.strip_prefix(HUB) {
            None if text.is_empty() => Err(SourceError::Empty),
            None => Ok(Self::Path(text.into())),
            Some(rest) => {
                repository(rest).map(Self::Hub).ok_or_else(|| SourceError::Repository(text.to_owned()))
            }
        }
    }
}

/// Only what needs no escaping in an address and leads nowhere else in a file system.
fn repository(text: &str) -> Option<Repository> {
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && !part.starts_with('.') && part.len() <= 200 && part.chars().all(known)
    };
    let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
    let parts: Vec<&str> = path.split('/').collect();
    let (owner, name, file) = match parts.as_slice() {
        [owner, name] => (owner, name, None),
        [owner, name, file] if file.to_ascii_lowercase().ends_with(".gguf") => (owner, name, Some(*file)),
        _ => return None,
    };
    let fine = plain(owner) && plain(name) && file.is_none_or(plain) && revision.split('/').all(plain);
    fine.then(|| Repository {
        name: format!("{owner}/{name}"),
        file: file.map(str::to_owned),
        revision: revision.to_owned(),
    })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Hub(repository) => repository.fmt(f),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB}{}", self.name)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        write!(f, "@{}", self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_named_by_a_path_or_by_a_repository() {
        let hub = |text: &str| match text.parse() {
            Ok(Source::Hub(hub)) => {
                (hub.name().to_owned(), hub.file().map(str::to_owned), hub.revision().to_owned())
            }
            other => panic!("{other:?}"),
        };
        let owned = |name: &str, file: Option<&str>, revision: &str| {
            (name.to_owned(), file.map(str::to_owned), revision.to_owned())
        };
        assert_eq!("a/b".parse(), Ok(Source::Path("a/b".into())));
        assert_eq!("x.gguf".parse(), Ok(Source::Path("x.gguf".into())));
        assert_eq!(hub("hf:o/n"), owned("o/n", None, "main"));
        assert_eq!(hub("hf:o/n.v2@refs/pr/1"), owned("o/n.v2", None, "refs/pr/1"));
        assert_eq!(hub("hf:o/n/q4.gguf@v1"), owned("o/n", Some("q4.gguf"), "v1"));
        assert_eq!("hf:o/n/q4.gguf@v1".parse::<Source>().unwrap().to_string(), "hf:o/n/q4.gguf@v1");
        for wrong in [
            "hf:",
            "hf:o",
            "hf:o/n/x.bin",
            "hf:o/../n",
            "hf:../n",
            "hf:o/n@",
            "hf:o/n@../x",
            "hf:o/n?x",
            "hf:o/n@a b",
        ] {
            let error = wrong.parse::<Source>().unwrap_err();
            let expected = format!("`{wrong}` is not of the form `hf:owner/name[/FILE.gguf][@revision]`");
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!("".parse::<Source>(), Err(SourceError::Empty));
    }
}
