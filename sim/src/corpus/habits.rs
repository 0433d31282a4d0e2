//! How a persona writes, whatever it writes about.

use super::dice::Dice;
use super::grammar::capitalized;

/// Words that some people shorten.
const SHORTER: [(&str, &str); 22] = [
    ("you", "u"),
    ("your", "ur"),
    ("are", "r"),
    ("please", "pls"),
    ("thanks", "thx"),
    ("tomorrow", "tmrw"),
    ("tonight", "2nite"),
    ("because", "cos"),
    ("about", "abt"),
    ("people", "ppl"),
    ("minutes", "mins"),
    ("message", "msg"),
    ("before", "b4"),
    ("really", "rly"),
    ("something", "smth"),
    ("okay", "k"),
    ("later", "l8r"),
    ("with", "w/"),
    ("anyone", "any1"),
    ("and", "n"),
    ("weekend", "wkend"),
    ("back", "bk"),
];

const GREETINGS: [&str; 8] = ["hey", "hiya", "yo", "hi all", "morning", "oi", "heya", "hello hello"];
const SIGN_OFFS: [&str; 8] = ["x", "xx", "ta", "cheers", "ttyl", "laters", "- me", "mwah"];
const MARKS: [&str; 10] = [":)", ":-)", ":D", "^^", "<3", ":/", ";)", ":P", "\\o/", "o_O"];

/// Which letters a persona raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Casing {
    /// None.
    Lower,
    /// The first of a message, and the pronoun "I".
    Sentence,
    /// None, but for now and then a whole word.
    Loud,
}

/// The habits of one persona; percentages are of its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Habits {
    /// Which letters are raised.
    pub casing: Casing,
    /// Written before some messages, where there is one.
    pub greeting: Option<&'static str>,
    /// Written after some messages, where there is one.
    pub sign_off: Option<&'static str>,
    /// A face or a heart in plain characters, where there is one.
    pub mark: Option<&'static str>,
    /// Words that this persona shortens, with what it writes for them.
    pub shortened: Vec<(&'static str, &'static str)>,
    /// Whether "don't" is written "dont".
    pub drops_apostrophes: bool,
    /// How often a word is mistyped, in percent.
    pub typo_percent: usize,
    /// The most thoughts in one message: 1, 2 or 3.
    pub most_thoughts: usize,
    /// What stands between two thoughts.
    pub separator: &'static str,
}

impl Habits {
    /// The habits of somebody.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let some = |dice: &mut Dice, percent, items: &[&'static str]| {
            let item = dice.pick(items);
            dice.chance(percent).then_some(item)
        };
        let casing = match dice.below(10) {
            0..7 => Casing::Lower,
            7 | 8 => Casing::Sentence,
            _ => Casing::Loud,
        };
        let shortens_percent = [0, 25, 60][dice.below(3)];
        Self {
            casing,
            greeting: some(dice, 55, &GREETINGS),
            sign_off: some(dice, 45, &SIGN_OFFS),
            mark: some(dice, 65, &MARKS),
            shortened: SHORTER.into_iter().filter(|_| dice.chance(shortens_percent)).collect(),
            drops_apostrophes: dice.chance(60),
            typo_percent: [0, 2, 6, 15][dice.below(4)],
            most_thoughts: [1, 2, 2, 3, 3][dice.below(5)],
            separator: dice.pick(&[", ", " ", "... ", " - ", ". "]),
        }
    }

    /// `thoughts` as this persona would send them, in one line.
    pub(super) fn apply(&self, thoughts: &[String], dice: &mut Dice) -> String {
        let mut text = self.join(thoughts);
        if let Some(greeting) = self.greeting.filter(|_| dice.chance(25)) {
            text = format!("{greeting} {text}");
        }
        if let Some(mark) = self.mark.filter(|_| dice.chance(30)) {
            text = format!("{text} {mark}");
        }
        if let Some(sign_off) = self.sign_off.filter(|_| dice.chance(25)) {
            text = format!("{text} {sign_off}");
        }
        let words: Vec<_> = text.split(' ').map(|word| self.shorten(word)).collect();
        let mut text = words.join(" ");
        if self.drops_apostrophes {
            text = text.replace('\'', "");
        }
        if dice.chance(self.typo_percent) {
            text = on_some_word(&text, dice, mistype);
        }
        match self.casing {
            Casing::Sentence => capitalized(&raise_i(&text)),
            Casing::Loud if dice.chance(20) => on_some_word(&text, dice, |word, _| word.to_uppercase()),
            Casing::Lower | Casing::Loud => text,
        }
    }

    /// The thoughts in one line; after a question mark a blank is enough.
    fn join(&self, thoughts: &[String]) -> String {
        let mut text = String::new();
        for thought in thoughts {
            if text.ends_with(['?', '!']) {
                text.push(' ');
            } else if !text.is_empty() {
                text.push_str(self.separator);
            }
            text.push_str(thought);
        }
        text
    }

    /// The word as this persona writes it, with its punctuation kept.
    fn shorten(&self, word: &str) -> String {
        let core = word.trim_end_matches(|letter: char| !letter.is_alphanumeric());
        self.shortened
            .iter()
            .find(|(long, _)| *long == core)
            .map_or_else(|| word.to_owned(), |(_, short)| format!("{short}{}", &word[core.len()..]))
    }
}

/// Raises the pronoun in "i", "i'm", "i'll", "i've" and "i'd", with or without
/// the apostrophe.
fn raise_i(text: &str) -> String {
    let words: Vec<_> = text
        .split(' ')
        .map(|word| match word.trim_end_matches([',', '.', '?', '!']) {
            "i" | "i'm" | "i'll" | "i've" | "i'd" | "im" | "ive" => capitalized(word),
            _ => word.to_owned(),
        })
        .collect();
    words.join(" ")
}

/// `text` with one of its longer words changed.
fn on_some_word(text: &str, dice: &mut Dice, change: fn(&str, &mut Dice) -> String) -> String {
    let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
    let is_long = |word: &String| word.len() > 3 && word.chars().all(|letter| letter.is_ascii_alphabetic());
    let long = words.iter().filter(|word| is_long(word)).count();
    let chosen = dice.below(long);
    if let Some(word) = words.iter_mut().filter(|word| is_long(word)).nth(chosen) {
        *word = change(word, dice);
    }
    words.join(" ")
}

/// Swaps two letters, leaves one out or doubles one; never the first.
fn mistype(word: &str, dice: &mut Dice) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = dice.between(1, letters.len().saturating_sub(2).max(1));
    if at + 1 < letters.len() {
        match dice.below(3) {
            0 => letters.swap(at, at + 1),
            1 => drop(letters.remove(at)),
            _ => letters.insert(at, letters[at]),
        }
    }
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::dice::Domain;
    use super::*;

    fn plain() -> Habits {
        Habits {
            casing: Casing::Lower,
            greeting: None,
            sign_off: None,
            mark: None,
            shortened: vec![],
            drops_apostrophes: false,
            typo_percent: 0,
            most_thoughts: 1,
            separator: ", ",
        }
    }

    fn apply(habits: &Habits, text: &str) -> String {
        let mut dice = Dice::new(Domain::Messages, 1, 1);
        habits.apply(&[text.to_owned()], &mut dice)
    }

    #[test]
    fn a_plain_writer_changes_nothing() {
        assert_eq!(apply(&plain(), "don't wait, i'm late"), "don't wait, i'm late");
    }

    #[test]
    fn a_shortened_word_keeps_its_punctuation() {
        let habits = Habits { shortened: SHORTER.to_vec(), ..plain() };
        assert_eq!(apply(&habits, "are you ok tomorrow?"), "r u ok tmrw?");
    }

    #[test]
    fn sentence_case_raises_the_first_letter_and_the_pronoun() {
        let habits = Habits { casing: Casing::Sentence, drops_apostrophes: true, ..plain() };
        assert_eq!(apply(&habits, "can't, i'm out"), "Cant, Im out");
    }

    #[test]
    fn a_question_mark_needs_no_comma_after_it() {
        let thoughts = ["where r u?", "brb", "ok"].map(str::to_owned);
        assert_eq!(plain().join(&thoughts), "where r u? brb, ok");
    }

    #[test]
    fn a_typo_changes_one_word_only() {
        let habits = Habits { typo_percent: 100, ..plain() };
        let text = "still waiting behind the station";
        let typed = apply(&habits, text);
        let differ = typed.split(' ').zip(text.split(' ')).filter(|(a, b)| a != b);
        assert!(differ.count() <= 1, "{typed}");
    }
}
