//! Each path that code names: those of its imports, written out one by one, and those that stand in it.

use super::tokens::{Kind, Token};

/// A path and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// `std`, `fs`, `File`; an import of all names ends in `*`.
    pub(crate) segments: Vec<String>,
    pub(crate) import: bool,
    /// The modules of the same file that it stands in.
    pub(crate) inside: Vec<String>,
    pub(crate) line: usize,
}

impl Named {
    /// Whether this is `path` or below it. An import of what `path` is in counts too, because the rest of the path may
    /// then stand anywhere.
    pub(crate) fn reaches(&self, path: &str) -> bool {
        let mut own: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        if own.last() == Some(&"*") {
            own.pop();
        }
        // The door hands its parts on: `client::engine` is `engine`.
        if own.first() == Some(&"client") && own.len() > 1 {
            own.remove(0);
        }
        let wanted: Vec<&str> = path.split("::").collect();
        own.starts_with(&wanted) || (self.import && wanted.starts_with(&own))
    }
}

/// All paths of `tokens` in their order.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut modules: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut at) = (0_usize, 0);
    while at < tokens.len() {
        let token = &tokens[at];
        let next = tokens.get(at + 1);
        if token.is_mark("{") {
            depth += 1;
        } else if token.is_mark("}") {
            depth = depth.saturating_sub(1);
            modules.retain(|(_, inside)| *inside <= depth);
        } else if token.is_word("mod") && tokens.get(at + 2).is_some_and(|open| open.is_mark("{")) {
            modules.push((tokens[at + 1].text.clone(), depth + 1));
            at += 2;
            continue;
        }
        let mut add = |segments: Vec<String>, import: bool| {
            let inside = modules.iter().map(|(name, _)| name.clone()).collect();
            found.push(Named { segments, import, inside, line: token.line });
        };
        if token.is_word("use") && !next.is_some_and(|next| next.is_mark("<")) {
            let end = (at..tokens.len()).find(|index| tokens[*index].is_mark(";")).unwrap_or(tokens.len());
            for segments in expanded(&tokens[at + 1..end]) {
                add(segments, true);
            }
            at = end;
        } else if token.kind == Kind::Word && begins_path(tokens, at) {
            let mut segments = vec![token.text.clone()];
            while tokens.get(at + 1).is_some_and(|mark| mark.is_mark("::"))
                && tokens.get(at + 2).is_some_and(|name| name.kind == Kind::Word)
            {
                segments.push(tokens[at + 2].text.clone());
                at += 2;
            }
            if segments.len() > 1 {
                add(segments, false);
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Whether the word at `at` is the first of a path: none stands before it, or only the `::` of a path from the root.
fn begins_path(tokens: &[Token], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|index| &tokens[index]);
    if !before(1).is_some_and(|mark| mark.is_mark("::")) {
        return true;
    }
    !before(2).is_some_and(|token| token.kind == Kind::Word || token.is_mark(">"))
}

/// The paths of an import's tree; `self` and other names for what is imported are left out.
fn expanded(tree: &[Token]) -> Vec<Vec<String>> {
    let mut prefix = Vec::new();
    for (at, token) in tree.iter().enumerate() {
        if token.is_mark("{") {
            let inside = &tree[at + 1..tree.len().saturating_sub(1).max(at + 1)];
            let branches = branches(inside).into_iter().flat_map(expanded);
            return branches.map(|branch| [prefix.clone(), branch].concat()).collect();
        }
        if token.is_word("as") {
            break;
        }
        if token.kind == Kind::Word || token.is_mark("*") {
            prefix.push(token.text.clone());
        }
    }
    if prefix.last().is_some_and(|last| last == "self") && (prefix.len() > 1 || tree.len() == 1) {
        prefix.pop();
    }
    vec![prefix]
}

/// Parts between the commas that stand in no braces.
fn branches(tree: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_usize;
    let parts = tree.split(|token| {
        if token.is_mark("{") {
            depth += 1;
        } else if token.is_mark("}") {
            depth -= 1;
        }
        depth == 0 && token.is_mark(",")
    });
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn named(text: &str) -> Vec<String> {
        paths(&tokens(text)).into_iter().map(|path| path.segments.join("::")).collect()
    }

    fn reached(text: &str, path: &str) -> bool {
        paths(&tokens(text)).iter().any(|named| named.reaches(path))
    }

    #[test]
    fn an_import_is_written_out() {
        assert_eq!(named("use a::{self, b::{c, d as e}, f::*,};"), ["a", "a::b::c", "a::b::d", "a::f::*"]);
        assert_eq!(named("pub(crate) use ::a::b;\nuse {c, d::e};"), ["a::b", "c", "d::e"]);
    }

    #[test]
    fn a_path_in_the_code_is_found_and_a_method_is_none() {
        assert_eq!(named("fn f() -> a::B { ::c::d(e.f::<g::H>()) }"), ["a::B", "c::d", "g::H"]);
        assert_eq!(named("fn f() { <A as b::C>::d(); $crate::e::f!() }"), ["b::C", "crate::e::f"]);
        assert_eq!(named("fn f() -> impl A + use<'a> { b::c() }"), ["b::c"]);
    }

    #[test]
    fn a_path_knows_the_modules_that_it_stands_in() {
        let found = paths(&tokens("mod a { mod b { use c; } use d; } use e;"));
        let inside: Vec<_> = found.iter().map(|path| path.inside.join("::")).collect();
        assert_eq!(inside, ["a::b", "a", ""]);
    }

    #[test]
    fn a_path_is_reached_however_it_is_imported() {
        for text in [
            "use std::fs;",
            "use std::{fmt, fs::{self, File}};",
            "use std::fs as disk;",
            "use std::*;",
            "use std as s;",
            "fn a() { std::fs::read(b) }",
            "fn a() { ::std::fs::read(b) }",
        ] {
            assert!(reached(text, "std::fs"), "{text}");
        }
        for text in ["use std::fmt;", "use std::fs_like;", "fn a() { std::io::empty() }", "// std::fs"] {
            assert!(!reached(text, "std::fs"), "{text}");
        }
        assert!(reached("use std::time;", "std::time::Instant"));
        assert!(!reached("use std::time::Duration;", "std::time::Instant"));
    }
}
