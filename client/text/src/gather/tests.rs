use std::fs;

use proptest::prelude::*;

use super::*;
use crate::{Conversation, Message, Role, SecretKind, Skipped};

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn read(folder: &tempfile::TempDir) -> UserText {
    UserText::read(&[folder.path().to_owned()], &ReadOptions::default()).unwrap()
}

fn plain(text: &UserText) -> Vec<&str> {
    let mut found = Vec::new();
    for document in text.documents() {
        match document {
            Document::Plain(text) => found.push(text.as_str()),
            Document::Completion { .. } | Document::Conversation(_) => panic!("a document with roles"),
        }
    }
    found
}

/// File name, reason, count and first line.
fn skipped(reading: &Reading) -> Vec<(String, SkipReason, u64, u64)> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let entry = |entry: &Skipped| (name(&entry.file), entry.reason, entry.count, entry.first);
    reading.skipped.iter().map(entry).collect()
}

#[test]
fn a_bad_line_is_counted_with_its_reason_and_the_rest_is_read() {
    let mut lines =
        b"\xef\xbb\xbf{\"text\": \"one\"}\r\nnot json\n\n{\"other\": 1}\n\"\xff\"\n{\"text\": \" \"}\n"
            .to_vec();
    lines.extend(b"{\"messages\": [{\"role\": \"narrator\", \"content\": \"x\"}]}\n{\"text\": \nnot json\n");
    lines.extend(b"{\"text\": \"two\"}");
    let text = read(&folder(&[("a.jsonl", &lines)]));
    assert_eq!(plain(&text), ["one", "two"]);
    let name = || "a.jsonl".to_owned();
    let expected = [
        (name(), SkipReason::NotJson, 3, 2),
        (name(), SkipReason::NoText, 1, 4),
        (name(), SkipReason::NotUtf8, 1, 5),
        (name(), SkipReason::Empty, 1, 6),
        (name(), SkipReason::UnknownRole, 1, 7),
    ];
    assert_eq!(skipped(text.reading()), expected);
    assert_eq!((text.reading().files, text.reading().documents), (1, 2));
}

#[test]
fn a_list_and_objects_one_after_the_other_are_read_alike() {
    let list = b"\xef\xbb\xbf [\n {\"text\": \"one\"},\n 3, {\"text\":\n\"two\"}]\n";
    let values = b"{\n \"text\": \"three\"\n}\n{\"text\": \"four\"} 5";
    let lines = b"[{\"text\": \"five\"}]";
    let text = read(&folder(&[("a.json", list), ("b.json", values), ("c.jsonl", lines)]));
    assert_eq!(plain(&text), ["one", "two", "three", "four", "five"]);
    let expected = [
        ("a.json".to_owned(), SkipReason::NoObject, 1, 2),
        ("b.json".to_owned(), SkipReason::NoObject, 1, 3),
    ];
    assert_eq!(skipped(text.reading()), expected);
}

#[test]
fn of_a_file_that_breaks_off_nothing_is_used_and_it_is_named() {
    let files: [(&str, &[u8]); 6] = [
        ("a.json", b"[{\"text\": \"one\"},\n {\"text\""),
        ("b.json", b"{\"text\": \"one\"}\n{\"text\": "),
        ("c.json", b"[{\"text\": \"one\"}] more"),
        ("d.txt", b"t\0e\0x\0t\0"),
        ("e.txt", b"\xff\xfet\0"),
        ("f.json", b""),
    ];
    let text = read(&folder(&files));
    assert_eq!(text.documents().len(), 0);
    let reading = text.reading();
    assert_eq!((reading.files, reading.unread_files()), (1, 5));
    assert_eq!(reading.unread[&UnreadReason::NotText].count, 1);
    assert_eq!(reading.unread[&UnreadReason::Utf16].count, 1);
    let at =
        |line, column| reading.unread[&UnreadReason::NotJson { line, column }].named[0].file_name().unwrap();
    assert_eq!([at(2, 8), at(2, 9), at(1, 19)], ["a.json", "b.json", "c.json"]);
}

#[test]
fn text_files_are_cut_at_paragraphs_and_small_ones_are_one_document() {
    let long: String = (0..200)
        .map(|i| format!("Paragraph {i}. {}\r\n\r\n", "And so on. ".repeat(8)))
        .collect::<Vec<_>>()
        .concat();
    let text = read(&folder(&[
        ("a.md", b"# Title\r\n\r\nBody\r\n"),
        ("b.txt", long.as_bytes()),
        ("c.txt", b" \n\n"),
    ]));
    let documents = plain(&text);
    assert_eq!(documents[0], "# Title\n\nBody\n");
    assert!(documents.len() > 4, "{}", documents.len());
    assert!(
        documents.iter().skip(1).all(|document| document.starts_with("Paragraph") && document.len() <= 4096)
    );
    assert_eq!(text.reading().files, 3);
}

#[test]
fn a_file_that_is_named_itself_is_read_by_what_it_begins_with() {
    let files: [(&str, &[u8]); 4] = [
        ("a.log", b"a line\n"),
        ("b", b" {\"text\": \"object\"}\nx\n"),
        ("c.dat", b"[{\"text\": \"list\"}]"),
        ("d.bin", b"\0"),
    ];
    let folder = folder(&files);
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    let text = UserText::read(&paths, &ReadOptions::default()).unwrap();
    assert_eq!(plain(&text), ["a line\n", "object", "list"]);
    assert_eq!(text.reading().unread[&UnreadReason::NotText].named, [folder.path().join("d.bin")]);
    assert_eq!(read(&folder).reading().unread[&UnreadReason::OtherKind].count, 4);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// The files that were not read, each with its reason.
fn unread(reading: &Reading) -> Vec<(String, UnreadReason)> {
    let named = |(reason, unread): (&UnreadReason, &crate::Unread)| {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        unread.named.iter().map(|path| (name(path), *reason)).collect::<Vec<_>>()
    };
    reading.unread.iter().flat_map(named).collect()
}

#[test]
fn what_python_and_pandas_write_costs_nothing_but_itself() {
    let lines = b"{\"text\": \"one\", \"score\": NaN}\n{\"text\": \"two \\ud83d\"}\n{\"text\": \"three\", \"x\": 1e400}\n\xef\xbb\xbf{\"text\": \"four\"}\n";
    let list = b"[{\"text\": \"five\", \"score\": NaN},\n{\"text\": \"six\", \"score\": -Infinity}]";
    let broken = b"[{\"text\": \"seven\", \"score\": NaN}, x]";
    let text = read(&folder(&[("a.jsonl", lines), ("b.json", list), ("c.json", broken)]));
    assert_eq!(plain(&text), ["one", "two \u{fffd}", "three", "four", "five", "six"]);
    // The column is the file's, and not that of what was read in its place.
    assert_eq!(
        unread(text.reading()),
        [("c.json".to_owned(), UnreadReason::NotJson { line: 1, column: 35 })]
    );
}

#[test]
fn lists_of_turns_are_conversations_wherever_they_are() {
    let chat = |word: &str| {
        format!(r#"[{{"role": "user", "content": "u"}}, {{"role": "assistant", "content": "{word}"}}]"#)
    };
    let pretty = format!("[\n{},\n{}\n]", chat("e"), chat("f"));
    let files = [
        ("a.jsonl", format!("{}\n{}\n", chat("a"), chat("b"))),
        ("b.json", chat("c").replace(", ", ",\n")),
        ("c.jsonl", chat("d")),
        ("d.jsonl", pretty.clone()),
        ("e.json", pretty.replace("\"e\"", "\"g\"").replace("\"f\"", "\"h\"")),
        ("f.jsonl", "[{\"text\": \"one\"}, {\"text\": \"two\"}]\n[3]\n".to_owned()),
    ];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let text = read(&folder(&files));
    let answers: Vec<&str> = text
        .documents()
        .filter_map(|document| match document {
            Document::Conversation(conversation) => Some(conversation.messages[1].content.as_str()),
            Document::Plain(_) | Document::Completion { .. } => None,
        })
        .collect();
    assert_eq!(answers, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert_eq!(text.documents().len(), 10);
    assert_eq!(skipped(text.reading()), [("f.jsonl".to_owned(), SkipReason::NoObject, 1, 2)]);
    let forms: Vec<_> = text.reading().taken.iter().map(|taken| taken.forms.clone()).collect();
    let turns = |count| BTreeMap::from([(Form::Turns, count)]);
    assert_eq!(forms, [turns(2), turns(1), turns(1), turns(2), turns(2), BTreeMap::from([(Form::Text, 2)])]);
}

#[test]
fn tables_and_packed_files_are_read_and_others_say_what_to_do() {
    let table =
        b"\xef\xbb\xbfQuestion,Answer,id\r\n\"What, is \"\"it\"\"?\",\"A\nlist\",1\r\nshort,row\r\nu,a,2\r\n";
    let tabs = b"id\ttext\n1\tone\n2\t\n";
    let chat = b"messages\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"u\"\"}, {\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"b\"\"}]\"\n";
    let (rows, text) = (packed(b"{\"text\": \"two\"}\n"), packed(b"three\n"));
    let twice = [packed(b"{\"text\": \"four\"}\n"), packed(b"{\"text\": \"five\"}\n")].concat();
    let folder = folder(&[
        ("a.csv", table),
        ("b.tsv", tabs),
        ("c.csv", chat),
        ("d.csv", b"one,two\nthree,four\n"),
        ("e.jsonl.gz", &rows),
        ("f.txt.gz", &text),
        ("g.json.gz", &twice),
        ("h.parquet", b"PAR1\0"),
        ("i.jsonl", b"PAR1\0"),
        ("j.jsonl.zst", b"\x28\xb5\x2f\xfd"),
        ("k.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
        ("l.jsonl.gz", &rows[..rows.len() - 9]),
    ]);
    let text = read(&folder);
    let pair = |asked: &str, answered: &str| {
        Document::Conversation(Conversation::of(vec![
            Message::new(Role::User, asked),
            Message::new(Role::Assistant, answered),
        ]))
    };
    let documents: Vec<&Document> = text.documents().collect();
    assert_eq!(documents[..2], [&pair("What, is \"it\"?", "A\nlist"), &pair("u", "a")]);
    assert_eq!(*documents[3], pair("u", "b"));
    let texts: Vec<&str> = documents
        .iter()
        .filter_map(|document| match document {
            Document::Plain(text) => Some(text.trim()),
            Document::Completion { .. } | Document::Conversation(_) => None,
        })
        .collect();
    assert_eq!(texts, ["one", "two", "three", "four", "five"]);
    assert_eq!(
        skipped(text.reading()),
        [("a.csv".to_owned(), SkipReason::NotARow, 1, 2), ("b.tsv".to_owned(), SkipReason::Empty, 1, 2)]
    );
    let name = |name: &str| name.to_owned();
    let mut expected = vec![
        (name("h.parquet"), UnreadReason::Parquet),
        (name("i.jsonl"), UnreadReason::Parquet),
        (name("j.jsonl.zst"), UnreadReason::Packed),
        (name("k.jsonl"), UnreadReason::LfsPointer),
        (name("d.csv"), UnreadReason::NoColumns),
        (name("l.jsonl.gz"), UnreadReason::Refused(std::io::ErrorKind::UnexpectedEof)),
    ];
    let mut found = unread(text.reading());
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    // Named by its user, it is told all the same.
    let named = UserText::read(&[folder.path().join("h.parquet")], &ReadOptions::default()).unwrap();
    assert_eq!(unread(named.reading()), [(name("h.parquet"), UnreadReason::Parquet)]);
}

#[test]
fn a_text_in_one_line_is_cut_at_its_words_and_loses_no_more_than_its_secrets() {
    let words: Vec<String> = (0..600_000).map(|i| format!("word{i}s")).collect();
    let card = "4111 1111 1111 1111";
    let line = words.join(" ");
    assert!(line.len() > 5 << 20);
    // Where pieces meet is found by trying: the card stands across one of these places, and within a piece at others.
    let mut lost = 0;
    for place in [65_500, 65_520, 65_530, 65_536, 70_000] {
        let at = line[..place].rfind(' ').unwrap();
        let with = format!("{} {card}{}", &line[..at], &line[at..]);
        let text = read(&folder(&[("a.txt", with.as_bytes())]));
        let joined = plain(&text).concat();
        assert!(!joined.contains("4111 1111") && !joined.contains("1111 1111"), "{place}");
        assert_eq!(text.reading().secret_looking(), 1, "{place}");
        assert!(joined.len() + (200 << 10) > line.len(), "{place}: {} of {}", joined.len(), line.len());
        assert_eq!(text.reading().skipped_lines(), 0);
        lost += line.len() - joined.len();
    }
    assert!(lost > 0);
    let text = read(&folder(&[("a.txt", line.as_bytes())]));
    let found: Vec<String> = plain(&text).concat().split_whitespace().map(str::to_owned).collect();
    assert!(found == words);
    let row = serde_json::json!({ "text": line }).to_string();
    let text = read(&folder(&[("a.jsonl", row.as_bytes())]));
    assert!(plain(&text).concat().split_whitespace().eq(words.iter()), "as a row");
}

#[test]
fn duplicates_are_dropped_across_files_up_to_white_space() {
    let text = read(&folder(&[
        ("a.jsonl", b"{\"text\": \"one  two\"}\n{\"text\": \"one two\"}\n{\"text\": \"Two\"}\n"),
        ("b.md", b"one two\r\n"),
        ("c.jsonl", b"{\"prompt\": \"one\", \"completion\": \" two\"}\n"),
    ]));
    assert_eq!((text.documents().len(), text.reading().duplicates, text.reading().with_roles), (3, 2, 1));
}

#[test]
fn a_secret_takes_its_line_from_plain_text_and_the_whole_of_a_conversation() {
    let card = "4111 1111 1111 1111";
    let chat = |said: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{said}\"}}, {{\"role\": \"assistant\", \"content\": \"ok\"}}]}}\n"
        )
    };
    let lines = format!(
        "{}{}{{\"text\": \"first\\n{card}\\nlast\"}}\n{{\"text\": \"{card}\"}}\n",
        chat(card),
        chat("hi")
    );
    let key = "top\n-----BEGIN PRIVATE KEY-----\n\nMIIabc\n\n-----END PRIVATE KEY-----\nbottom\n";
    let folder = folder(&[("a.jsonl", lines.as_bytes()), ("b.txt", key.as_bytes())]);
    let text = read(&folder);
    let kept: Vec<&Document> = text.documents().collect();
    assert_eq!(kept.len(), 3);
    assert_eq!(*kept[1], Document::Plain("first\nlast".to_owned()));
    assert_eq!(*kept[2], Document::Plain("top\nbottom\n".to_owned()));
    let secrets = &text.reading().secrets;
    assert_eq!((secrets[&SecretKind::PaymentCard], secrets[&SecretKind::PrivateKey]), (3, 1));
    let options = ReadOptions { secrets: SecretLines::Keep, ..ReadOptions::default() };
    let all = UserText::read(&[folder.path().to_owned()], &options).unwrap();
    assert_eq!((all.documents().len(), all.reading().secret_looking()), (5, 0));
    assert!(!format!("{text:?}{all:?}").contains("1111"));
}

#[test]
fn of_too_much_text_a_part_is_used_that_no_order_changes() {
    let documents: Vec<Document> = (0..50).map(|i| Document::Plain(format!("number {i:03}"))).collect();
    let gathered = |documents: Vec<Document>| {
        let mut gatherer = Gatherer::new(ReadOptions::default(), 200);
        for document in documents {
            gatherer.add(document);
        }
        gatherer.finish()
    };
    let text = gathered(documents.clone());
    assert_eq!((text.documents().len(), text.reading().surplus), (20, 30));
    let backwards = gathered(documents.into_iter().rev().collect());
    let mut same: Vec<&Document> = backwards.documents().collect();
    same.reverse();
    assert_eq!(same, text.documents().collect::<Vec<_>>());
}

#[test]
fn a_long_plain_document_becomes_several() {
    let text: String = (0..20_000).map(|i| format!("word{i} ")).collect::<Vec<_>>().concat();
    let documents = [Document::Plain(text.clone()), Document::Plain("short".to_owned())];
    let read = UserText::of(documents, &ReadOptions::default());
    assert!(read.documents().len() > 40);
    let joined = plain(&read)[..read.documents().len() - 1].concat();
    assert_eq!(joined.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_counts_add_up(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        lines in prop::collection::vec(prop_oneof![
            Just("{\"text\": \"a b\"}"), Just("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}"),
            Just("{\"prompt\": \"a\", \"completion\": \"b\"}"), Just("{"), Just(""), Just("[1]"), Just("\u{feff}x"),
        ], 0..12),
        at in any::<prop::sample::Index>(),
        name in prop::sample::select(vec!["a.jsonl", "a.json", "a.txt", "a.md", "a"]),
    ) {
        let mut text = lines.join("\n").into_bytes();
        let place = at.index(text.len() + 1);
        text.splice(place..place, bytes);
        let folder = folder(&[(name, &text)]);
        let read = UserText::read(&[folder.path().join(name)], &ReadOptions::default()).unwrap();
        let reading = read.reading();
        prop_assert_eq!(reading.files + reading.unread_files(), 1);
        prop_assert_eq!(reading.documents, read.documents().len() as u64);
        let digests: std::collections::BTreeSet<_> = read.identified().iter().map(|(digest, _)| *digest).collect();
        prop_assert_eq!(digests.len(), read.documents().len());
    }

    #[test]
    fn formats_keep_what_they_are_given(turns in prop::collection::vec(("\\PC{1,20}", "\\PC{0,20}[a-z]"), 1..4)) {
        let messages: Vec<serde_json::Value> = turns
            .iter()
            .flat_map(|(user, assistant)| {
                [serde_json::json!({"role": "user", "content": user}), serde_json::json!({"role": "assistant", "content": assistant})]
            })
            .collect();
        let line = serde_json::json!({ "messages": messages }).to_string();
        let folder = folder(&[("a.jsonl", line.as_bytes())]);
        let options = ReadOptions { secrets: SecretLines::Keep, ..ReadOptions::default() };
        let read = UserText::read(&[folder.path().to_owned()], &options).unwrap();
        let expected = turns
            .into_iter()
            .flat_map(|(user, assistant)| {
                [Message::new(Role::User, user), Message::new(Role::Assistant, assistant)]
            })
            .collect();
        prop_assert_eq!(read.documents().next(), Some(&Document::Conversation(Conversation::of(expected))));
    }
}

#[test]
fn a_list_within_an_object_is_that_of_its_rows() {
    let rows = r#"[{"text": "one"}, {"text": "two"}]"#;
    for (json, expected) in [
        (format!(r#"{{"data": {rows}, "version": "1"}}"#), vec!["one", "two"]),
        (format!(r#"{{"features": [{{"name": "text"}}], "rows": {rows}}}"#), vec!["one", "two"]),
        (format!(r#"{{"messages": {rows}}}"#), vec!["one", "two"]),
        (format!(r#"{{"mine": {rows}}}"#), vec!["one", "two"]),
        (
            r#"{"rows": [{"row_idx": 0, "row": {"text": "one"}, "truncated_cells": []}]}"#.to_owned(),
            vec!["one"],
        ),
        // A row with a list in it is one.
        (r#"{"text": "one", "data": [{"text": "two"}]}"#.to_owned(), vec!["one"]),
        // Of two that are not known, neither.
        (format!(r#"{{"mine": {rows}, "yours": {rows}}}"#), vec![]),
    ] {
        let text = read(&folder(&[("a.json", json.as_bytes())]));
        assert_eq!(plain(&text), expected, "{json}");
    }
    let parts = br#"{"train": [{"text": "one"}, {"a": 1}], "test": [{"text": "two"}, {"text": "three"}], "validation": []}"#;
    let text = read(&folder(&[("a.json", parts)]));
    assert_eq!(plain(&text), ["one"]);
    let name = || "a.json".to_owned();
    let expected = [(name(), SkipReason::NoText, 1, 2), (name(), SkipReason::OtherPart, 2, 1)];
    assert_eq!(skipped(text.reading()), expected);
}

#[test]
fn rows_are_found_however_they_are_lined_up() {
    let turns = br#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#;
    for (file, bytes, expected) in [
        ("a.jsonl", &b"{\n \"text\": \"one\"\n}\n{\n \"text\": \"two\"\n}\n"[..], &["one", "two"][..]),
        ("b.jsonl", b"{\"text\": \"one\"}{\"text\": \"two\"}\n", &["one", "two"]),
        ("c.jsonl", b"{\"text\": \"one\"},\n\n{\"text\": \"two\"} , \r\n", &["one", "two"]),
        ("d.jsonl", b"{\"text\": \"one\"}\r{\"text\": \"two\"}\r", &["one", "two"]),
        ("e.txt", b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n", &["one", "two"]),
        ("f.txt", b"{\"no\": \"row\"}\ntext\n", &["{\"no\": \"row\"}\ntext\n"]),
        ("g.txt", b"a\rb\r", &["a\nb\n"]),
    ] {
        assert_eq!(plain(&read(&folder(&[(file, bytes)]))), expected, "{file}");
    }
    assert_eq!(read(&folder(&[("a.txt", turns)])).reading().with_roles, 1);
    let deep =
        format!("{{\"text\": \"a\", \"x\": {}{}}}\n{{\"text\": \"b\"}}", "[".repeat(200), "]".repeat(200));
    let text = read(&folder(&[("a.jsonl", deep.as_bytes())]));
    assert_eq!((plain(&text), skipped(text.reading())[0].1), (vec!["b"], SkipReason::Deep));
}

#[test]
fn a_table_is_cut_where_its_first_line_names_a_column() {
    let pair = |prompt: &str, completion: &str| Document::Completion {
        prompt: prompt.to_owned(),
        completion: completion.to_owned(),
    };
    for (file, bytes) in [
        ("a.csv", &b"prompt;completion\na;b,c\n"[..]),
        ("b.csv", b"\xef\xbb\xbfPrompt;Completion\r\na;\"b,c\"\r\n"),
        ("c.csv", b"sep=;\nprompt;completion\na;b,c\n"),
        ("d.csv", b"prompt\tcompletion\na\tb,c\n"),
        ("e.tsv", b"prompt,completion\na,\"b,c\"\n"),
        ("f.csv", b"prompt|completion\na|b,c"),
    ] {
        let text = read(&folder(&[(file, bytes)]));
        assert_eq!(text.documents().collect::<Vec<_>>(), [&pair("a", "b,c")], "{file}");
    }
    let name = || "a.csv".to_owned();
    // What programs write for nothing, a column that is there twice, and a quote that is not closed.
    for (bytes, expected) in [
        (&b"prompt,completion\na,NaN\nb,None\nc,d\n"[..], (name(), SkipReason::NothingToLearn, 2, 1)),
        (b"prompt,completion,completion\na,b,c\nc,d,d\n", (name(), SkipReason::Twice, 1, 1)),
        (b"prompt,completion\nc,d\na,\"b\nx,y\nz,w\n", (name(), SkipReason::OpenQuote, 1, 2)),
        (b"prompt,completion,label\na,b,False\nc,d,True\n", (name(), SkipReason::NotToBeLearned, 1, 1)),
    ] {
        let text = read(&folder(&[("a.csv", bytes)]));
        let found: Vec<_> = text.documents().collect();
        assert_eq!((found, skipped(text.reading())), (vec![&pair("c", "d")], vec![expected]));
    }
    // A quote within a cell is a letter.
    let text = read(&folder(&[("a.csv", b"prompt,completion\n\"a\nb\",5\" wide\n")]));
    assert_eq!(text.documents().next(), None, "an odd number of quotes over two lines is said");
    let text = read(&folder(&[("a.csv", b"prompt,completion\na,5\" wide\n")]));
    assert_eq!(text.documents().next(), Some(&pair("a", "5\" wide")));
}

#[test]
fn what_is_no_text_is_named() {
    let wide: Vec<u8> = "hello\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = [&b"\xff\xfe"[..], &wide].concat();
    for (bytes, expected) in [
        (wide.as_slice(), UnreadReason::Utf16),
        (b"\xff\xfe\0\0h\0\0\0", UnreadReason::NotText),
        (b"%PDF-1.7\n", UnreadReason::Laid),
        (b"{\\rtf1\\ansi hello}", UnreadReason::Laid),
        (b"BZh11AY&SY", UnreadReason::Packed),
        (b"\x04\x22\x4d\x18x", UnreadReason::Packed),
    ] {
        let text = read(&folder(&[("a.txt", bytes)]));
        assert_eq!(unread(text.reading()), [("a.txt".to_owned(), expected)]);
    }
    let text = read(&folder(&[("a.json", b"[{\"text\": \"caf\xe9\"}]")]));
    assert!(
        matches!(unread(text.reading())[0].1, UnreadReason::NotUtf8 { line: 1, .. }),
        "{:?}",
        text.reading()
    );
}
