//! What of a file is compiled outside tests: all of it but the items behind a `#[cfg(test)]`.

use super::tokens::{Kind, Token};

/// A file without its tests.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    pub(crate) code: Vec<Token>,
    /// First and last lines of what was left out.
    pub(crate) left_out: Vec<(usize, usize)>,
    /// Modules that were left out: their files are tests too.
    pub(crate) test_modules: Vec<String>,
}

/// Leaves out each item, statement, field or arm whose attributes say that it is compiled in tests only, and nothing
/// behind it.
pub(crate) fn outside_tests(tokens: &[Token]) -> Outside {
    let mut outside = Outside::default();
    let mut at = 0;
    while at < tokens.len() {
        let Some(attribute) = attribute(tokens, at) else {
            outside.code.push(tokens[at].clone());
            at += 1;
            continue;
        };
        if !attribute.test_only {
            outside.code.extend_from_slice(&tokens[at..attribute.end]);
            at = attribute.end;
            continue;
        }
        let mut start = attribute.end;
        let end = if attribute.inner {
            end_of_block(tokens, start)
        } else {
            while let Some(further) = self::attribute(tokens, start) {
                start = further.end;
            }
            end_of_item(tokens, start)
        };
        outside.left_out.push((tokens[at].line, tokens[end - 1].last_line));
        outside.test_modules.extend(module(&tokens[start..end]));
        at = end;
    }
    outside
}

struct Attribute {
    /// `#![…]`, which is about what it stands in.
    inner: bool,
    test_only: bool,
    /// Where the token behind it stands.
    end: usize,
}

fn attribute(tokens: &[Token], at: usize) -> Option<Attribute> {
    if !tokens.get(at)?.is_mark("#") {
        return None;
    }
    let inner = tokens.get(at + 1)?.is_mark("!");
    let open = at + 1 + usize::from(inner);
    if !tokens.get(open)?.is_mark("[") {
        return None;
    }
    let end = end_of_group(tokens, open);
    let inside = &tokens[open + 1..end - 1];
    let test_only = inside.first().is_some_and(|name| name.is_word("cfg")) && {
        let predicate = inside.get(2..inside.len() - 1).unwrap_or_default();
        only_in_tests(predicate)
    };
    Some(Attribute { inner, test_only, end })
}

/// Whether a predicate of `cfg` holds in tests only.
fn only_in_tests(predicate: &[Token]) -> bool {
    match predicate {
        [word] => word.is_word("test"),
        [name, open, inside @ .., _] if open.is_mark("(") => {
            let mut parts = separated(inside).into_iter();
            match name.text.as_str() {
                "all" => parts.any(only_in_tests),
                "any" => !inside.is_empty() && parts.all(only_in_tests),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Parts between the commas that stand in no brackets; none where nothing follows the last.
fn separated(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < tokens.len() {
        if tokens[at].is_mark(",") {
            parts.push(&tokens[start..at]);
            start = at + 1;
        }
        at = end_of_group(tokens, at);
    }
    if start < tokens.len() {
        parts.push(&tokens[start..]);
    }
    parts
}

/// Where the token behind the brackets stands that open at `at`; the next token, where none do.
fn end_of_group(tokens: &[Token], at: usize) -> usize {
    if !opens(&tokens[at]) {
        return at + 1;
    }
    (end_of_block(tokens, at + 1) + 1).min(tokens.len())
}

/// Where what `at` stands in is closed.
fn end_of_block(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        if opens(token) {
            depth += 1;
        } else if closes(token) {
            if depth == 0 {
                return index;
            }
            depth -= 1;
        }
    }
    tokens.len()
}

/// Where the token behind the item that begins at `start` stands. Where that is in doubt it is too early: what is
/// looked at twice is no harm, and what is overlooked is one.
fn end_of_item(tokens: &[Token], start: usize) -> usize {
    let first = first_word(tokens, start);
    let ends_by_brace = !matches!(first, "use" | "static" | "const" | "type" | "let");
    let ends_by_comma =
        !matches!(first, "mod" | "fn" | "impl" | "struct" | "enum" | "trait" | "union") && ends_by_brace;
    let mut at = start;
    while at < tokens.len() && !closes(&tokens[at]) {
        let end = end_of_group(tokens, at);
        let brace = ends_by_brace && tokens[at].is_mark("{");
        // A constant in braces among the parameters of a type is not what an item ends with.
        let parameter = at > start
            && (tokens[at - 1].is_mark("<") || tokens[at - 1].is_mark(","))
            && tokens.get(end).is_some_and(|next| next.is_mark(">") || next.is_mark(","));
        if tokens[at].is_mark(";") || (ends_by_comma && tokens[at].is_mark(",")) || (brace && !parameter) {
            return end;
        }
        at = end;
    }
    at
}

/// The word that says what an item is, without what may stand before it.
fn first_word(tokens: &[Token], start: usize) -> &str {
    let mut at = start;
    while at < tokens.len() {
        let next_is = |word: &str| tokens.get(at + 1).is_some_and(|next| next.is_word(word));
        match tokens[at].text.as_str() {
            "(" => at = end_of_group(tokens, at),
            "const" if !["fn", "unsafe", "async", "extern"].into_iter().any(next_is) => return "const",
            "unsafe" if tokens.get(at + 1).is_some_and(|next| next.is_mark("{")) => return "unsafe",
            "pub" | "const" | "unsafe" | "async" | "extern" | "default" => at += 1,
            _ if tokens[at].kind == Kind::Text => at += 1,
            word => return word,
        }
    }
    ""
}

/// The module that an item is, if it is one.
fn module(item: &[Token]) -> Option<String> {
    let at = item.iter().position(|token| token.is_word("mod"))?;
    let name = item.get(at + 1)?;
    let next = item.get(at + 2)?;
    let first = first_word(item, 0) == "mod";
    (first && name.kind == Kind::Word && (next.is_mark(";") || next.is_mark("{"))).then(|| name.text.clone())
}

fn opens(token: &Token) -> bool {
    ["(", "[", "{"].into_iter().any(|mark| token.is_mark(mark))
}

fn closes(token: &Token) -> bool {
    [")", "]", "}"].into_iter().any(|mark| token.is_mark(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn seen(text: &str) -> bool {
        outside_tests(&tokens(text)).code.iter().any(|token| token.is_word("forbidden"))
    }

    #[test]
    fn what_follows_an_item_of_tests_is_seen() {
        for item in [
            "#[cfg(test)] use a::{b, c};",
            "#[cfg(test)] mod tests;",
            "#[cfg(test)] mod tests { fn a() { if b { c() } } }",
            "#[cfg(test)] fn a() -> [u8; { 3 }] { b }",
            "#[cfg(test)] pub(crate) const fn a() {}",
            "#[cfg(test)] const A: B = B { c: 1 };",
            "#[cfg(test)] static A: [u8; 2] = [1; 2];",
            "#[cfg(test)] impl A<{ 1 }> for B {}",
            "#[cfg(test)] struct A;",
            "#[cfg(test)] struct A(B);",
            "#[cfg(test)] a! { b }",
            "#[cfg(test)] #[expect(b, reason = \"}\")] /// d {\n #[e] fn a() {}",
            "#[cfg(all(test, unix))] mod tests { }",
            "#[cfg(test)] mod tests { const A: &str = r#\"}\"{\"#; }",
            "#[cfg(test)] mod tests { const A: [char; 3] = ['}', '\"', '\\'']; }",
            "#[cfg(test)] fn a<'a>(b: &'a B) where B: C<'a> {}",
            "#[cfg(test)] extern \"C\" fn a() {}",
        ] {
            assert!(seen(&format!("fn first() {{}} {item} use forbidden::word;")), "overlooked after {item}");
            assert!(seen(&format!("mod inner {{ {item} }} use forbidden::word;")), "overlooked after {item}");
        }
    }

    #[test]
    fn what_follows_a_statement_a_field_or_an_arm_of_tests_is_seen() {
        assert!(seen("fn a() { #[cfg(test)] b(); forbidden() }"));
        assert!(seen("fn a() { #[cfg(test)] let b = C { d }; forbidden() }"));
        assert!(seen("fn a() { #[cfg(test)] { b } forbidden() }"));
        assert!(seen("struct A { #[cfg(test)] b: C, d: forbidden }"));
        assert!(seen("enum A { #[cfg(test)] B { c: D }, E(forbidden) }"));
        assert!(seen("fn a() { match b { #[cfg(test)] C => d(), E => forbidden() } }"));
        assert!(seen("struct A { #[cfg(test)] b: C } use forbidden;"));
    }

    #[test]
    fn what_is_inside_an_item_of_tests_is_not() {
        for item in [
            "#[cfg(test)] use a::{b, forbidden};",
            "#[cfg(test)] mod tests { mod inner { fn a() { forbidden() } } fn b() { forbidden() } }",
            "#[cfg(test)] fn a() -> [u8; { 3 }] { forbidden() }",
            "#[cfg(test)] impl A<{ 1 }> for B { fn c() { forbidden() } }",
            "#[cfg(test)] const A: B = B { c: 1, d: forbidden };",
            "#[cfg(test)] const unsafe fn a(b: [u8; 2], c: D) { forbidden() }",
            "#[cfg(test)] #[a] #[b(c)] pub(in crate::d) fn a() { forbidden() }",
            "#[cfg(all(unix, any(test)))] fn a() { forbidden() }",
            "#[cfg(test)] fn a() { let b = '{'; let c = \"}\"; let d = r##\"}\"#\"##; forbidden() }",
            "#![cfg(test)] use a; fn b() { forbidden() }",
        ] {
            assert!(!seen(item), "taken for code: {item}");
        }
    }

    #[test]
    fn what_is_compiled_outside_tests_too_is_seen() {
        for condition in
            ["not(test)", "any(test, unix)", "unix", "feature = \"test\"", "all(unix, not(test))"]
        {
            assert!(seen(&format!("#[cfg({condition})] fn a() {{ forbidden() }}")), "{condition}");
        }
        assert!(seen("#[cfg_attr(test, a)] fn a() { forbidden() }"));
        assert!(seen("#[test] fn a() { forbidden() }"));
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert!(!seen("// forbidden\n/* forbidden */ fn a() { b(\"forbidden\", r#\"forbidden\"#) }"));
        assert!(seen("// #[cfg(test)]\nfn a() { forbidden() }"));
        assert!(seen("fn a() { b(\"#[cfg(test)]\"); forbidden() }"));
    }

    #[test]
    fn the_modules_and_lines_of_tests_are_named() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod one;\n\n#[cfg(test)]\n#[b]\npub(crate) mod two {\n}\nmod three;\n";
        let outside = outside_tests(&tokens(text));
        assert_eq!(outside.test_modules, ["one", "two"]);
        assert_eq!(outside.left_out, [(2, 3), (5, 8)]);
    }
}
