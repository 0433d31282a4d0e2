//! Floors and circles: which files of a package name which.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{File, files};
use super::packages::members;
use super::paths::{Named, paths};

/// The engine's floors from the bottom. A floor names itself and those below it, not its neighbor in the same line.
const ENGINE: [&[&str]; 11] = [
    &["guarded", "process"],
    &["kernels"],
    &["layers"],
    &["model"],
    &["base"],
    &["lora"],
    &["backend"],
    &["error"],
    &["checks"],
    &["training", "generation"],
    &["engine"],
];

/// The packages whose files name each other in no circle but in these, which are still there. A circle is taken apart
/// by moving what both need into a file that names neither. Nothing is added here.
const NO_CIRCLES: [(&str, &[&[&str]]); 6] = [
    ("proto/formats", &[]),
    ("client/engine", &[]),
    ("coordinator", &[&["cli.rs", "cli/serve.rs"]]),
    ("coordinator/authority", &[]),
    ("coordinator/serving", &[&["pki.rs", "pki/identity.rs"]]),
    (
        "coordinator/task",
        &[
            &[
                "round.rs",
                "round/advertise.rs",
                "round/agree.rs",
                "round/draw.rs",
                "round/masked.rs",
                "round/share.rs",
                "round/unmask.rs",
            ],
            &["spool.rs", "spool/folder.rs"],
            &["task.rs", "task/accounting.rs"],
        ],
    ),
];

/// The circles of files of which none is inside another's module, by package, and why each is still there.
const CIRCLES_BESIDE: [(&str, &[&str], &str); 1] = [(
    "coordinator/task",
    &[
        "round/advertise.rs",
        "round/agree.rs",
        "round/draw.rs",
        "round/masked.rs",
        "round/share.rs",
        "round/unmask.rs",
    ],
    "each phase ends by making the next one, which holds what the phase has learned",
)];

/// Files by the names of their modules, `lib.rs` as the empty one, and which of them each names on what line.
type Graph = BTreeMap<String, BTreeMap<String, usize>>;

fn graph(files: &[File]) -> Graph {
    let names = files.iter().filter(|file| file.name != "main.rs" && !file.name.starts_with("bin/"));
    let names: BTreeMap<String, &File> = names.map(|file| (module(&file.name), file)).collect();
    let edges = |(name, file): (&String, &&File)| {
        let mut edges = BTreeMap::new();
        for path in paths(&file.code) {
            let target = target(&path, name, &names);
            if let Some(target) = target.filter(|target| target != name) {
                edges.entry(target).or_insert(path.line);
            }
        }
        (name.clone(), edges)
    };
    names.iter().map(edges).collect()
}

/// `kernels/matmul.rs` as `kernels::matmul`.
fn module(file: &str) -> String {
    let name = file.trim_end_matches(".rs").replace('/', "::");
    if name == "lib" { String::new() } else { name }
}

/// `kernels::matmul` as `kernels/matmul.rs`.
fn file(module: &str) -> String {
    if module.is_empty() { "lib.rs".to_owned() } else { format!("{}.rs", module.replace("::", "/")) }
}

/// The file of the same package that `path` leads to, if it leads to any.
fn target(path: &Named, from: &str, names: &BTreeMap<String, &File>) -> Option<String> {
    let own = from.split("::").filter(|part| !part.is_empty()).map(str::to_owned);
    let mut here: Vec<String> = own.chain(path.inside.iter().cloned()).collect();
    let mut rest = path.segments.as_slice();
    match rest.first()?.as_str() {
        "crate" => {
            here.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                here.pop();
                rest = &rest[1..];
            }
        }
        first => {
            // Without such a word: a module of this one, or something that is not of this package.
            let child = [here.as_slice(), &[first.to_owned()]].concat().join("::");
            names.get(&child)?;
        }
    }
    here.extend_from_slice(rest);
    (0..=here.len()).rev().map(|length| here[..length].join("::")).find(|name| names.contains_key(name))
}

/// The same without what a module and those inside it name of each other: a module hands on what its parts are, and
/// they name what is common to them.
fn beside(graph: &Graph) -> Graph {
    let inside = |inner: &str, outer: &str| outer.is_empty() || inner.starts_with(&format!("{outer}::"));
    let edges = |(name, edges): (&String, &BTreeMap<String, usize>)| {
        let beside = |named: &str| !inside(named, name) && !inside(name, named);
        let edges = edges.iter().filter(|(named, _)| beside(named));
        (name.clone(), edges.map(|(named, line)| (named.clone(), *line)).collect())
    };
    graph.iter().map(edges).collect()
}

/// The sets of files each of which can be reached from each other.
fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reached = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = graph[start].keys().collect();
        while let Some(name) = open.pop() {
            if seen.insert(name) {
                open.extend(graph[name].keys());
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|name| (name, reached(name))).collect();
    let with = |name: &String| -> BTreeSet<String> {
        let both = reached[name].iter().filter(|other| reached[*other].contains(name));
        both.map(|other| file(other)).collect()
    };
    let found: BTreeSet<BTreeSet<String>> =
        graph.keys().map(with).filter(|circle| circle.len() > 1).collect();
    found.into_iter().collect()
}

/// What in `graph` names a floor above its own, or stands on none.
fn above(graph: &Graph, floors: &[&[&str]]) -> Vec<String> {
    let top = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let floor = |module: &str| floors.iter().position(|floor| floor.contains(&top(module).as_str()));
    let mut wrong = Vec::new();
    for (name, edges) in graph.iter().filter(|(name, _)| !name.is_empty()) {
        let Some(own) = floor(name) else {
            wrong.push(format!("{} is on no floor: say on which in ENGINE", file(name)));
            continue;
        };
        for (named, line) in edges {
            if top(named) != top(name) && floor(named).is_none_or(|floor| floor >= own) {
                wrong.push(format!("{} names {} on line {line}", file(name), file(named)));
            }
        }
    }
    wrong
}

#[test]
fn each_floor_of_the_engine_names_only_those_below_it() {
    let wrong = above(&graph(&files("client/engine")), &ENGINE);
    assert!(
        wrong.is_empty(),
        "client/engine/src: a floor names only those below it (ENGINE in tests/tests/architecture/floors.rs); move \
         what both need down:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for (folder, still) in NO_CIRCLES {
        wrong.extend(wrong_circles(folder, &circles(&graph(&files(folder))), still));
    }
    no_circles(&wrong);
}

#[test]
fn no_files_of_any_package_name_each_other_in_a_circle_beside_their_modules() {
    let mut wrong = Vec::new();
    for member in members() {
        let still = CIRCLES_BESIDE.iter().filter(|(folder, ..)| *folder == member.folder);
        let still: Vec<&[&str]> = still.map(|(_, circle, _)| *circle).collect();
        let found = circles(&beside(&graph(&files(&member.folder))));
        wrong.extend(wrong_circles(&member.folder, &found, &still));
    }
    no_circles(&wrong);
}

/// Circles of a package that are not among those that are still there, and those of them that are there no more.
fn wrong_circles(folder: &str, found: &[BTreeSet<String>], still: &[&[&str]]) -> Vec<String> {
    let is_in =
        |circle: &BTreeSet<String>, known: &[&str]| circle.iter().all(|file| known.contains(&file.as_str()));
    let new = found.iter().filter(|circle| !still.iter().any(|known| is_in(circle, known)));
    let gone = still.iter().filter(|known| !found.iter().any(|circle| is_in(circle, known)));
    let new = new.map(|circle| format!("{folder}/src: {circle:?}"));
    new.chain(gone.map(|known| format!("{folder}/src: {known:?} is no circle any more: strike it out")))
        .collect()
}

fn no_circles(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "files that name each other in a circle; move what both need into a file that names neither:\n{}",
        wrong.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn made_up(sources: &[(&str, &str)]) -> Graph {
        let file =
            |(name, text): &(&str, &str)| File { name: (*name).to_owned(), code: tokens(text), lines: 0 };
        graph(&sources.iter().map(file).collect::<Vec<_>>())
    }

    fn circles_of(sources: &[(&str, &str)]) -> Vec<Vec<String>> {
        circles(&made_up(sources)).into_iter().map(|circle| circle.into_iter().collect()).collect()
    }

    #[test]
    fn a_circle_of_three_files_is_found() {
        let sources = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "fn b() { super::c::c() }"),
            ("c.rs", "use super::{d, a::A};"),
        ];
        assert_eq!(circles_of(&sources), [["a.rs", "b.rs", "c.rs"]]);
        assert!(circles_of(&sources[..3]).is_empty());
    }

    #[test]
    fn a_parent_and_a_child_that_name_each_other_are_a_circle() {
        let parent = ("a.rs", "mod b; pub use b::B; struct A;");
        assert_eq!(circles_of(&[parent, ("a/b.rs", "use super::A;")]), [["a.rs", "a/b.rs"]]);
        assert!(circles_of(&[("a.rs", "mod b; struct A;"), ("a/b.rs", "use super::A;")]).is_empty());
        assert!(circles_of(&[parent, ("a/b.rs", "mod inner { use super::B; }")]).is_empty());
    }

    #[test]
    fn what_a_module_and_those_inside_it_name_of_each_other_is_no_circle_beside_them() {
        let parent = ("a.rs", "mod b; mod c; pub use b::B; struct A;");
        let named = |sources: &[(&str, &str)]| circles(&beside(&made_up(sources))).len();
        assert_eq!(named(&[parent, ("a/b.rs", "use super::A;"), ("a/c.rs", "")]), 0);
        assert_eq!(named(&[parent, ("a/b.rs", "use super::c::C;"), ("a/c.rs", "use super::b::B;")]), 1);
        let root = ("lib.rs", "mod a; mod b; pub use a::A;");
        assert_eq!(named(&[root, ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::A;")]), 0);
    }

    #[test]
    fn a_circle_that_is_new_and_one_that_is_gone_are_wrong() {
        let found = [BTreeSet::from(["a.rs".to_owned(), "b.rs".to_owned()])];
        assert!(wrong_circles("p", &found, &[&["a.rs", "b.rs"]]).is_empty());
        assert_eq!(wrong_circles("p", &found, &[]), [r#"p/src: {"a.rs", "b.rs"}"#]);
        let gone = r#"p/src: ["a.rs", "b.rs"] is no circle any more: strike it out"#;
        assert_eq!(wrong_circles("p", &[], &[&["a.rs", "b.rs"]]), [gone]);
    }

    #[test]
    fn the_root_is_in_a_circle_where_it_hands_on_what_names_it() {
        let sources = [("lib.rs", "mod a; pub use a::A; pub struct B;"), ("a.rs", "use crate::B;")];
        assert_eq!(circles_of(&sources), [["a.rs", "lib.rs"]]);
    }

    #[test]
    fn a_file_that_names_a_floor_above_or_beside_its_own_is_found() {
        let floors: [&[&str]; 2] = [&["a", "b"], &["c"]];
        let graph =
            |a: &str| made_up(&[("a.rs", a), ("b.rs", ""), ("c.rs", "use crate::a;"), ("c/d.rs", "")]);
        assert!(above(&graph("use std::fmt;"), &floors).is_empty());
        assert_eq!(above(&graph("use crate::c::d::D;"), &floors), ["a.rs names c/d.rs on line 1"]);
        assert_eq!(above(&graph("\nuse super::b;"), &floors), ["a.rs names b.rs on line 2"]);
        assert_eq!(
            above(&made_up(&[("e.rs", "")]), &floors),
            ["e.rs is on no floor: say on which in ENGINE"]
        );
    }
}
