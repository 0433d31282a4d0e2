//! General text: what a base model knows before it has seen a message.

use super::dice::{Dice, Domain};
use super::grammar::{Given, Grammar, capitalized};

const RULES: &str = include_str!("base.grammar");

/// What a paragraph is about; a story and a talk are the most frequent.
const KINDS: [&str; 10] =
    ["story", "story", "story", "talk", "talk", "place", "fact", "weather", "object", "craft"];

/// `documents` plain, well-formed English texts of one to four paragraphs.
///
/// They tell stories, describe places and things, state simple facts and hold
/// small dialogues, all in written English: the register of the personas'
/// messages does not occur. The first texts do not depend on how many are
/// asked for.
pub fn base_corpus(seed: u64, documents: usize) -> Vec<String> {
    let grammar = Grammar::parse(RULES);
    (0_u64..)
        .take(documents)
        .map(|index| document(&grammar, &mut Dice::new(Domain::Base, seed, index)))
        .collect()
}

/// One text, about one person, who meets one other.
fn document(grammar: &Grammar, dice: &mut Dice) -> String {
    let [he, she] = ["he.name", "she.name"].map(|rule| dice.pick(grammar.choices(rule)));
    let mut given = Given::new();
    if dice.chance(50) {
        given.extend([("hero", he), ("other", she)]);
        given.extend([("he", "he"), ("his", "his"), ("him", "him")]);
    } else {
        given.extend([("hero", she), ("other", he)]);
        given.extend([("he", "she"), ("his", "her"), ("him", "her")]);
    }
    let paragraphs = dice.between(1, 4);
    let paragraphs: Vec<_> = (0..paragraphs)
        .map(|_| {
            let kind = if dice.chance(8) { "market" } else { dice.pick(&KINDS) };
            paragraph(grammar, kind, given.clone(), dice)
        })
        .collect();
    paragraphs.join("\n\n")
}

/// Two to six sentences of one kind, about one thing at one spot.
fn paragraph<'a>(grammar: &'a Grammar, kind: &str, mut given: Given<'a>, dice: &mut Dice) -> String {
    // What a paragraph returns to; the rest of its words are drawn freely.
    for subject in ["item", "spot", "beast"] {
        if dice.chance(40) {
            given.insert(subject, dice.pick(grammar.choices(subject)));
        }
    }
    let mut sentences = vec![sentence(grammar, &format!("{kind}.open"), &given, dice)];
    for _ in 0..dice.between(1, 4) {
        let next = sentence(grammar, &format!("{kind}.more"), &given, dice);
        if !sentences.contains(&next) {
            sentences.push(next);
        }
    }
    if sentences.len() < 2 || dice.chance(35) {
        sentences.push(sentence(grammar, &format!("{kind}.end"), &given, dice));
    }
    sentences.join(" ")
}

/// A template may hold two sentences; each begins with a capital.
fn sentence(grammar: &Grammar, rule: &str, given: &Given<'_>, dice: &mut Dice) -> String {
    let text = grammar.write(rule, given, dice).replace("?,\"", "?\"");
    let sentences: Vec<_> = text.split_inclusive(". ").map(capitalized).collect();
    let quotes: Vec<_> = sentences
        .concat()
        .split_inclusive('"')
        .enumerate()
        .map(|(at, piece)| match at % 2 {
            // Inside a quotation, unless it goes on with an `and`.
            1 if !piece.starts_with("and ") => capitalized(piece),
            _ => piece.to_owned(),
        })
        .collect();
    quotes.concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::grammar::tests::open_slots;
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_text() {
        assert_eq!(base_corpus(7, 50), base_corpus(7, 50));
        assert_eq!(base_corpus(7, 50)[..10], base_corpus(7, 10));
        assert_ne!(base_corpus(7, 50), base_corpus(8, 50));
    }

    #[test]
    fn every_slot_has_a_filling() {
        let given = ["hero", "other", "he", "his", "him"];
        let open = open_slots(&Grammar::parse(RULES), &given);
        assert_eq!(open, Vec::<String>::new());
    }

    #[test]
    fn paragraphs_are_two_to_eight_well_formed_sentences() {
        for document in base_corpus(1, 500) {
            for paragraph in document.split("\n\n") {
                let stops = paragraph.matches(['.', '!', '?']).count();
                assert!((2..=10).contains(&stops), "{paragraph}");
                assert!(paragraph.ends_with(['.', '!', '?', '"']), "{paragraph}");
                assert_eq!(paragraph.matches('"').count() % 2, 0, "{paragraph}");
                for wrong in ["  ", "{", "}", "~", "|", " .", " ,", "..", "..\""] {
                    assert!(!paragraph.contains(wrong), "{wrong:?} in {paragraph}");
                }
                let first = paragraph.trim_start_matches('"').chars().next();
                assert!(first.is_some_and(|letter| !letter.is_lowercase()), "{paragraph}");
            }
        }
    }

    #[test]
    fn the_vocabulary_has_several_hundred_words() {
        let text = base_corpus(3, 1_000).join(" ").to_lowercase();
        let words: BTreeSet<_> = text.split(|letter: char| !letter.is_ascii_alphabetic()).collect();
        assert!(words.len() > 600, "{}", words.len());
    }
}
