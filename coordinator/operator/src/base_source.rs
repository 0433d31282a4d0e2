//! Where a base is that an operator names: a folder, a GGUF file, or one of the hub's, which is fetched where it is not here.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use coordinator::cli::CliError;
use engine::{Base, Fetching, Hub, Source};
use proto::shown::shown;
use shell::cli::note;

/// The path of a base; one of the hub comes into the cache that its other programs use too, by the code of the agent.
pub(crate) async fn resolve(name: &str) -> Result<PathBuf, CliError> {
    let source: Source = name.parse().map_err(CliError::input)?;
    match source {
        Source::Path(path) => Ok(path),
        Source::Hub(_) => {
            tokio::task::spawn_blocking(move || fetch(&source)).await.map_err(CliError::internal)?
        }
    }
}

/// What a remembered name leads to: a path, or the hub's `owner/name`.
pub(crate) fn remembered(name: &str) -> String {
    if Path::new(name).is_absolute() { name.to_owned() } else { format!("hf:{name}") }
}

fn fetch(source: &Source) -> Result<PathBuf, CliError> {
    let hub = Hub::from_env().map_err(CliError::input)?;
    let mut said = String::new();
    let path = Base::fetch(source, &hub, &mut |fetching: Fetching| {
        if fetching.file != said {
            let mib = fetching.of_bytes.div_ceil(1 << 20);
            note(&format!("fetching {} of {source}, {mib} MiB", shown(&fetching.file)));
            said.clone_from(&fetching.file);
        }
        ControlFlow::Continue(())
    });
    path.map_err(CliError::input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_base_is_a_path_or_the_hubs() {
        assert_eq!(remembered("/srv/base"), "/srv/base");
        assert_eq!(remembered("o/n"), "hf:o/n");
    }

    #[tokio::test]
    async fn a_path_is_itself_and_a_name_of_the_hub_has_a_form() {
        assert_eq!(resolve("a/b").await.unwrap(), Path::new("a/b"));
        let error = resolve("hf:o").await.unwrap_err().to_string();
        assert!(error.contains("hf:owner/name"), "{error}");
    }
}
