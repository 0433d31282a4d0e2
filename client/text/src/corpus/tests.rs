use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{Conversation, Document, Message, ReadOptions, Role};
use engine::model::blocks::Block;

fn base() -> Base {
    Base::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/reference/base")).unwrap()
}

const MISTRAL: &str = include_str!("../../tests/reference/chat/mistral.jinja");

/// The same base with a chat template.
fn base_with(template: &str) -> (tempfile::TempDir, Base) {
    let folder = tempfile::tempdir().unwrap();
    for entry in
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/reference/base"))
            .unwrap()
    {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let base = Base::open(folder.path()).unwrap();
    (folder, base)
}

fn text(lines: impl IntoIterator<Item = String>) -> UserText {
    UserText::of(lines.into_iter().map(Document::Plain), &ReadOptions::default())
}

fn tokens(blocks: &Blocks) -> Vec<u32> {
    blocks.as_slice().iter().flat_map(Block::tokens).copied().collect()
}

/// The digests of those that are held out.
fn out(digests: &[Digest]) -> BTreeSet<Digest> {
    held_out(digests)
        .into_iter()
        .zip(digests)
        .filter_map(|(held_out, digest)| held_out.then_some(*digest))
        .collect()
}

fn digests(range: std::ops::Range<u32>) -> Vec<Digest> {
    range.map(|i| Document::Plain(format!("number {i}")).digest()).collect()
}

#[test]
fn about_a_tenth_is_held_out() {
    let digests = digests(0..10_000);
    let share = out(&digests).len();
    assert!((900..1_100).contains(&share), "{share}");
}

#[test]
fn one_document_is_trained_on_and_two_are_one_on_each_side() {
    for first in 0..200 {
        assert_eq!(held_out(&digests(first..first + 1)), [false]);
        let pair = held_out(&digests(first..first + 2));
        assert_eq!(pair.iter().filter(|held_out| **held_out).count(), 1);
    }
    assert!(held_out(&[]).is_empty());
    // All in the tenth: the highest is trained on.
    let low = [Digest([1; 32]), Digest([3; 32]), Digest([2; 32])];
    assert_eq!(held_out(&low), [true, false, true]);
    // None in the tenth: the lowest is held out.
    let high = [Digest([201; 32]), Digest([203; 32]), Digest([202; 32])];
    assert_eq!(held_out(&high), [true, false, false]);
}

#[test]
fn a_corpus_has_both_sides_and_says_what_the_template_refuses() {
    let base = base();
    let lines = (3..28).map(|i| format!("w{i}"));
    let corpus = Corpus::new(&base, &text(lines)).unwrap();
    let (train, held_out) = (tokens(&corpus.train(64)), tokens(&corpus.held_out(64)));
    let all: BTreeSet<u32> = train.iter().chain(&held_out).copied().collect();
    assert_eq!(all, (3..28).chain([1]).collect());
    assert!(train.len() + held_out.len() == 50 && held_out.len() >= 2 && train.len() > held_out.len());
    assert_eq!(corpus.train(10).as_slice()[0].tokens().len(), 10);

    let say = |role, content: &str| Message::new(role, content);
    let alone = Document::Conversation(Conversation::of(vec![say(Role::Assistant, "w5")]));
    let pair =
        Document::Conversation(Conversation::of(vec![say(Role::User, "w6"), say(Role::Assistant, "w7")]));
    let (_folder, base) = base_with(MISTRAL);
    let read = |documents: Vec<Document>| UserText::of(documents, &ReadOptions::default());
    let corpus = Corpus::new(&base, &read(vec![alone.clone(), pair.clone()])).unwrap();
    assert_eq!((corpus.refused(), corpus.train(64).len()), (1, 1));
    assert_eq!(format!("{corpus:?}"), "Corpus(1 documents, 0 held out, 1 refused)");
    let error = Corpus::new(&base, &read(vec![alone])).unwrap_err().to_string();
    assert!(
        error.contains("1 document (1 with roles)")
            && error.contains("1 conversation is left out that the base's chat template refuses"),
        "{error}"
    );
}

#[test]
fn text_that_cannot_be_used_says_what_was_left_out() {
    let error = Corpus::new(&base(), &text(Vec::new())).unwrap_err().to_string();
    assert_eq!(error, "no usable text: 0 files read, 0 documents (0 with roles)");
}

proptest! {
    #[test]
    fn the_order_of_reading_does_not_change_what_is_held_out(
        ids in prop::collection::btree_set(0_u32..10_000, 1..60).prop_map(|ids| ids.into_iter().collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let shuffled: Vec<Digest> = ids.iter().flat_map(|i| digests(*i..*i + 1)).collect();
        let mut sorted = shuffled.clone();
        sorted.sort();
        prop_assert_eq!(out(&shuffled), out(&sorted));
        if ids.len() > 1 {
            prop_assert!((1..ids.len()).contains(&out(&sorted).len()));
        }
    }

    #[test]
    fn a_document_of_the_tenth_stays_held_out_when_others_come(
        first in 0_u32..1_000, count in 2_u32..40, more in 0_u32..40,
    ) {
        let few = digests(first..first + count);
        let many = digests(first..first + count + more);
        let (few_out, many_out) = (out(&few), out(&many));
        let highest = few.iter().max();
        for digest in few.iter().filter(|digest| digest.0[0] < 25 && Some(*digest) != highest) {
            prop_assert!(few_out.contains(digest) && many_out.contains(digest));
        }
        for digest in few.iter().filter(|digest| digest.0[0] > 25 && !few_out.contains(digest)) {
            prop_assert!(!many_out.contains(digest), "what was trained on is held out");
        }
    }
}
