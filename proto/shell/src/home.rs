//! Paths as people write them: `~` is the home folder of whoever runs the program.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer, de};

/// Why a path that begins with `~` leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// It begins with somebody's name.
    #[error(
        "{} begins with the home folder of a named user, which is not looked up: write the whole path, or ./{} for a name \
         that begins with ~",
        .0.display(),
        .0.display()
    )]
    Named(PathBuf),
    /// Nobody knows where the home is.
    #[error("{} is below the home folder, and this user has none: write the whole path", .0.display())]
    None(PathBuf),
}

/// A path with the home folder in place of a `~` that it begins with; every other path as it is.
pub fn expanded(path: &Path) -> Result<PathBuf, HomeError> {
    expanded_below(path, std::env::home_dir().filter(|home| home.is_absolute()).as_deref())
}

/// Whether a path begins with `~`, so that it means something else for each user.
pub fn is_below_home(path: &Path) -> bool {
    matches!(path.components().next(), Some(Component::Normal(first)) if first.as_encoded_bytes().starts_with(b"~"))
}

fn expanded_below(path: &Path, home: Option<&Path>) -> Result<PathBuf, HomeError> {
    if !is_below_home(path) {
        return Ok(path.to_owned());
    }
    let rest = path.strip_prefix("~").map_err(|_| HomeError::Named(path.to_owned()))?;
    let home = home.ok_or_else(|| HomeError::None(path.to_owned()))?;
    // Without a separator at the end, which joining nothing would put there.
    Ok(if rest.as_os_str().is_empty() { home.to_owned() } else { home.join(rest) })
}

/// For a key of a configuration that is a path.
pub fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    expanded(&PathBuf::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// For a key of a configuration that is a list of paths.
pub fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    paths.iter().map(|path| expanded(path)).collect::<Result<_, _>>().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_the_home_folder_at_the_beginning_only() {
        let home = Path::new("/home/alex");
        let below = |path: &str| expanded_below(Path::new(path), Some(home));
        for (path, expected) in [
            ("~", "/home/alex"),
            ("~/", "/home/alex"),
            ("~/notes/2026", "/home/alex/notes/2026"),
            ("./~/notes", "./~/notes"),
            ("/srv/~alex", "/srv/~alex"),
            ("notes~", "notes~"),
            ("hf:owner/name@main", "hf:owner/name@main"),
        ] {
            assert_eq!(below(path).unwrap().as_os_str(), expected, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_named_with_what_to_do() {
        let error = expanded_below(Path::new("~anna/notes"), Some(Path::new("/home/alex"))).unwrap_err();
        assert!(
            error.to_string().contains("~anna/notes") && error.to_string().contains("whole path"),
            "{error}"
        );
        let error = expanded_below(Path::new("~/notes"), None).unwrap_err();
        assert!(error.to_string().starts_with("~/notes is below the home folder"), "{error}");
    }
}
