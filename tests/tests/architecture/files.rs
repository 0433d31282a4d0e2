//! The source files of a package, and which of them are tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::outside_tests::outside_tests;
use super::tokens::{Kind, Token, tokens};

/// A source file that is compiled outside tests.
#[derive(Debug)]
pub(crate) struct File {
    /// Below the package's `src`, as `store/frame.rs`.
    pub(crate) name: String,
    /// What is compiled outside tests.
    pub(crate) code: Vec<Token>,
    /// How many lines that is, blank ones too, comments not.
    pub(crate) lines: usize,
}

impl File {
    /// The lines on which these words stand one behind the other; `.` and the like are words too.
    pub(crate) fn lines_of(&self, sequence: &[&str]) -> Vec<usize> {
        let found = self.code.windows(sequence.len()).filter(|window| {
            window
                .iter()
                .zip(sequence)
                .all(|(token, word)| token.text == *word && matches!(token.kind, Kind::Word | Kind::Mark))
        });
        found.map(|window| window[0].line).collect()
    }
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of the package in `folder`, a path from the root, that are compiled outside tests.
pub(crate) fn files(folder: &str) -> Vec<File> {
    let sources = sources(&format!("{folder}/src"));
    assert!(!sources.is_empty(), "{folder}/src has no source files: is the folder right?");
    outside(&sources)
}

/// Every source file below `folder`, a path from the root, by its path from there.
pub(crate) fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let start = root().join(folder);
    let mut folders = vec![start.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&start).unwrap().to_string_lossy().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// Those of `sources`, texts by their names, that are compiled outside tests.
fn outside(sources: &BTreeMap<String, String>) -> Vec<File> {
    let (mut tests, mut besides) = (BTreeSet::new(), BTreeSet::new());
    let mut files = Vec::new();
    for (name, text) in sources {
        let tokens = tokens(text);
        let outside = outside_tests(&tokens);
        let folder = folder_of_modules(name);
        tests.extend(outside.test_modules.iter().map(|module| format!("{folder}{module}")));
        let declared =
            outside.code.windows(3).filter(|three| three[0].is_word("mod") && three[2].is_mark(";"));
        besides.extend(declared.map(|three| format!("{folder}{}", three[1].text)));
        let with_tokens: BTreeSet<usize> =
            tokens.iter().flat_map(|token| token.line..=token.last_line).collect();
        let counts = |(line, text): &(usize, &str)| {
            let left_out = outside.left_out.iter().any(|(first, last)| (first..=last).contains(&line));
            !left_out && (text.trim().is_empty() || with_tokens.contains(line))
        };
        let lines = (1..).zip(text.lines()).filter(counts).count();
        files.push(File { name: name.clone(), code: outside.code, lines });
    }
    // What is a module of tests and, by another declaration, of the code is code.
    tests.retain(|module: &String| !besides.contains(module));
    files.retain(|file| {
        !tests.iter().any(|test| {
            file.name.strip_prefix(test).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    });
    files
}

/// Where the files of a file's modules lie, with a slash behind it.
fn folder_of_modules(name: &str) -> String {
    let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, file)| (folder, file));
    let root = ["lib.rs", "main.rs", "mod.rs"].contains(&file) || folder == "bin";
    match (root, folder) {
        (true, "") => String::new(),
        (true, folder) => format!("{folder}/"),
        (false, _) => format!("{}/", name.trim_end_matches(".rs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tests_and_those_below_them_are_left_out() {
        let sources = [
            ("lib.rs", "mod a; #[cfg(test)] mod tests;"),
            ("tests.rs", "mod of_the_whole;"),
            ("tests/of_the_whole.rs", ""),
            ("a.rs", "mod tested; #[cfg(test)] mod tests { mod further; }"),
            ("a/tested.rs", ""),
            ("a/tests/further.rs", ""),
            ("a/tests_of_nothing.rs", ""),
            ("bin/tool.rs", ""),
        ];
        let sources = sources.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let names: Vec<_> = outside(&sources).into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["a.rs", "a/tested.rs", "a/tests_of_nothing.rs", "bin/tool.rs", "lib.rs"]);
    }

    #[test]
    fn lines_behind_tests_are_counted_and_comments_are_not() {
        let text = "//! About.\nfn a() {\n    // why\n\n}\n#[cfg(test)]\nfn b() {\n}\nfn c() {}\n";
        let sources = [("lib.rs".to_owned(), text.to_owned())].into();
        let [file] = &outside(&sources)[..] else { panic!("one file") };
        assert_eq!(file.lines, 4);
        assert_eq!(file.lines_of(&["fn", "c"]), [9]);
        assert!(file.lines_of(&["fn", "b"]).is_empty());
    }
}
