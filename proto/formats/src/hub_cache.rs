//! The folder in which programs of the Hugging Face hub keep what they fetched, read only: `refs` says what commit a
//! revision is, `snapshots` has the files of each commit.

use std::path::{Path, PathBuf};

use proto::files::read_regular;

use crate::folder::{CONFIG, INDEX, SINGLE, TOKENIZER, most_bytes, shards};
use crate::location::is_gguf;

/// The longest name of a commit that is read, with the line's end.
const MOST_REF_BYTES: u64 = 128;

/// A folder of what came from the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    folder: PathBuf,
}

impl HubCache {
    /// This folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// That of this user: below `HF_HOME`, or `~/.cache/huggingface` without it. `None` where neither is known.
    pub fn from_env() -> Option<Self> {
        let given = std::env::var("HF_HOME").ok().filter(|home| !home.is_empty());
        let home = match given {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir()?.join(".cache/huggingface"),
        };
        Some(Self::new(home.join("hub")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a repository `owner/name`.
    pub fn repository(&self, name: &str) -> PathBuf {
        self.folder.join(format!("models--{}", name.replace('/', "--")))
    }

    /// The commit that a revision was when all of it was fetched last.
    pub fn commit(&self, name: &str, revision: &str) -> Option<String> {
        let path = self.repository(name).join("refs").join(revision);
        let commit = String::from_utf8(read_regular(&path, MOST_REF_BYTES).ok()?).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// The base that an earlier fetch of a revision left here: its folder, or its GGUF file. A revision is written down when
    /// all of its files have come.
    pub fn base(&self, name: &str, file: Option<&str>, revision: &str) -> Option<PathBuf> {
        let folder = self.repository(name).join("snapshots").join(self.commit(name, revision)?);
        match file {
            Some(file) => Some(folder.join(file)).filter(|path| path.exists()),
            None if folder.join(CONFIG).exists() => {
                let index = folder.join(INDEX);
                let mut wanted = vec![TOKENIZER.to_owned()];
                if folder.join(SINGLE).exists() || !index.exists() {
                    wanted.push(SINGLE.to_owned());
                } else {
                    wanted.extend(shards(&index, &read_regular(&index, most_bytes(INDEX)).ok()?).ok()?);
                }
                wanted.iter().all(|file| folder.join(file).exists()).then_some(folder)
            }
            None => {
                let files = std::fs::read_dir(folder).ok()?;
                let mut files = files.filter_map(|file| Some(file.ok()?.path())).filter(|file| is_gguf(file));
                files.next().filter(|_| files.next().is_none())
            }
        }
    }
}

/// Whether a text is the name of a commit: it becomes the name of a folder.
pub fn is_commit(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_found_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path().to_owned());
        let repository = folder.path().join("models--o--n");
        let snapshot = repository.join("snapshots/0123");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        assert_eq!(cache.base("o/n", None, "main"), None);
        std::fs::write(repository.join("refs/main"), "0123\n").unwrap();
        for name in [CONFIG, TOKENIZER] {
            std::fs::write(snapshot.join(name), "{}").unwrap();
            assert_eq!(cache.base("o/n", None, "main"), None);
        }
        std::fs::write(snapshot.join(SINGLE), "").unwrap();
        assert_eq!(cache.base("o/n", None, "main"), Some(snapshot.clone()));
        assert_eq!(cache.base("o/n", Some("q4.gguf"), "main"), None);
        assert_eq!(cache.base("o/n", None, "v1"), None);
        std::fs::write(repository.join("refs/v1"), "../../../etc").unwrap();
        assert_eq!(cache.base("o/n", None, "v1"), None);
    }
}
