//! `nightshift-docs DIR` writes the manual pages and completions of the installed programs into a folder, for packages.
//!
//! They are made of what the programs parse their arguments by, each time a package is built, so they cannot say anything
//! else. This is a program of its own so that none of the installed ones carries what writes them. The same sources give
//! the same bytes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

/// The shells that packages bring completions for, and how each calls the file.
const SHELLS: [(Shell, &str, &str); 3] =
    [(Shell::Bash, "", ""), (Shell::Zsh, "_", ""), (Shell::Fish, "", ".fish")];

/// A file, by its path below the folder that was given, and what is in it.
type Written = (PathBuf, Vec<u8>);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        return Err(anyhow!("give one folder to write to, as in `nightshift-docs target/release/docs`"));
    };
    for (path, bytes) in all()? {
        let path = Path::new(folder).join(path);
        let within = path.parent().unwrap_or(Path::new(folder));
        fs::create_dir_all(within).with_context(|| format!("cannot create {}", within.display()))?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Everything, program by program.
fn all() -> anyhow::Result<Vec<Written>> {
    let programs = [
        nightshift_agent::cli::command(),
        coordinator::cli::command(),
        authority::cli::command(),
        operator::command(),
    ];
    let mut written = Vec::new();
    for program in programs {
        let folder = PathBuf::from(program.get_name());
        completions(&program, &folder.join("completions"), &mut written);
        // `help` has nothing to say that the pages do not.
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let version = format!("nightshift {}", program.get_version().unwrap_or_default());
        pages(&program, &version, &folder.join("man"), &mut written)?;
    }
    Ok(written)
}

/// A page for a command, and one for each below it.
fn pages(command: &Command, version: &str, folder: &Path, written: &mut Vec<Written>) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let page = Man::new(command.clone()).source(version);
    let mut bytes = Vec::new();
    page.render(&mut bytes).with_context(|| format!("cannot write the page of {name}"))?;
    written.push((folder.join(format!("{name}.1")), bytes));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, version, folder, written)?;
    }
    Ok(())
}

fn completions(program: &Command, folder: &Path, written: &mut Vec<Written>) {
    let name = program.get_name();
    for (shell, before, behind) in SHELLS {
        let mut bytes = Vec::new();
        generate(shell, &mut program.clone(), name, &mut bytes);
        written.push((folder.join(format!("{before}{name}{behind}")), bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_file() {
        let names: Vec<String> =
            all().unwrap().iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect();
        for expected in [
            "nightshift-agent/man/nightshift-agent.1",
            "nightshift-agent/man/nightshift-agent-run.1",
            "nightshift-agent/man/nightshift-agent-service-install.1",
            "nightshift-agent/completions/_nightshift-agent",
            "nightshift-coordinator/man/nightshift-coordinator.1",
            "nightshift-coordinator/completions/nightshift-coordinator.fish",
            "nightshift-authority/man/nightshift-authority-coordinator-file.1",
            "nightshift-authority/completions/_nightshift-authority",
            "nightshift/man/nightshift.1",
            "nightshift/man/nightshift-task-create.1",
            "nightshift/completions/nightshift",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected} is not among {names:#?}");
        }
        assert!(!names.iter().any(|name| name.contains("-help")), "{names:#?}");
    }

    #[test]
    fn the_same_sources_give_the_same_bytes() {
        assert_eq!(all().unwrap(), all().unwrap());
    }

    #[test]
    fn a_page_says_what_its_command_s_help_says() {
        let all = all().unwrap();
        let page = |name: &str| {
            let found = all.iter().find(|(path, _)| path.ends_with(name)).unwrap();
            String::from_utf8(found.1.clone()).unwrap().replace('\\', "")
        };
        assert!(page("nightshift-agent.1").contains("Exit codes: 0 done"));
        let run = page("nightshift-agent-run.1");
        assert!(run.contains("nightshift-agent-run") && run.contains("--override-conditions"), "{run}");
    }

    #[test]
    fn shells_understand_the_completions() {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in
            all().unwrap().iter().filter(|(path, _)| path.iter().any(|part| part == "completions"))
        {
            let file = folder.path().join(path.file_name().unwrap());
            fs::write(&file, bytes).unwrap();
            let name = path.file_name().unwrap().to_string_lossy();
            let shell = match (name.starts_with('_'), name.ends_with(".fish")) {
                (true, _) => "zsh",
                (_, true) => "fish",
                _ => "bash",
            };
            match Command::new(shell).arg("-n").arg(&file).output() {
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{shell} -n {name}: {said}");
                }
                Err(error) => println!("skipped: {shell} -n {name}: {error}"),
            }
        }
    }
}
