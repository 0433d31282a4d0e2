//! A grammar of slots, kept as text next to the code.
//!
//! A rule is a line `name: choice | choice`; a line that begins with a blank
//! goes on with the rule above; `#` begins a comment line. In a choice:
//!
//! | written | becomes |
//! | --- | --- |
//! | `{name}` | a value given by the caller, else a choice of the rule `name` |
//! | `{name+s}` | the same with its last word in the plural |
//! | `{2-40}` | a number from 2 to 40 |
//! | `a~word` | `a word` or `an word`, as the word's first letter asks |
//!
//! A slot that nothing fills becomes empty; tests hold that there is none.

use std::collections::BTreeMap;

use super::dice::Dice;

/// Slots nest no deeper than this; what lies below becomes empty.
const DEEPEST: u32 = 12;

/// Values that the caller fixes for some slots.
pub(super) type Given<'a> = BTreeMap<&'a str, &'a str>;

/// Rules by name.
#[derive(Debug)]
pub(super) struct Grammar(BTreeMap<&'static str, Vec<&'static str>>);

impl Grammar {
    /// Reads rules; a rule that is given twice gets the choices of both.
    pub(super) fn parse(text: &'static str) -> Self {
        let mut rules = BTreeMap::<_, Vec<_>>::new();
        let mut name = "";
        for line in text.lines() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let mut choices = line;
            if !line.starts_with(' ')
                && let Some((head, tail)) = line.split_once(':')
            {
                name = head;
                choices = tail;
            }
            let choices = choices.trim();
            // A bar at the edge of a line separates lines; it is no empty choice.
            let choices = choices.strip_prefix('|').unwrap_or(choices);
            let choices = choices.strip_suffix('|').unwrap_or(choices);
            rules.entry(name).or_default().extend(choices.split('|').map(str::trim));
        }
        Self(rules)
    }

    /// Takes over the rules of `other` that are named `prefix.rule`, as `rule`.
    pub(super) fn adopt(&mut self, other: &Self, prefix: &str) {
        for (name, choices) in &other.0 {
            if let Some((head, rule)) = name.split_once('.')
                && head == prefix
            {
                self.0.entry(rule).or_default().extend(choices);
            }
        }
    }

    /// Takes over all rules of `other` by their own names.
    pub(super) fn take(&mut self, other: Self) {
        for (name, choices) in other.0 {
            self.0.entry(name).or_default().extend(choices);
        }
    }

    /// The choices of a rule; none where there is no such rule.
    pub(super) fn choices(&self, rule: &str) -> &[&'static str] {
        self.0.get(rule).map_or(&[], Vec::as_slice)
    }

    /// A text made from `rule`.
    pub(super) fn write(&self, rule: &str, given: &Given<'_>, dice: &mut Dice) -> String {
        let template = dice.pick(self.choices(rule));
        self.fill(template, given, dice)
    }

    /// `template` with its slots filled.
    pub(super) fn fill(&self, template: &str, given: &Given<'_>, dice: &mut Dice) -> String {
        let mut text = String::new();
        self.expand(template, given, dice, 0, &mut text);
        polish(&text)
    }

    fn expand(&self, template: &str, given: &Given<'_>, dice: &mut Dice, depth: u32, text: &mut String) {
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let (slot, after) = after.split_once('}').unwrap_or((after, ""));
            rest = after;
            if let Some((low, high)) = range(slot) {
                text.push_str(&dice.between(low, high).to_string());
                continue;
            }
            let (name, plural) = slot.strip_suffix("+s").map_or((slot, false), |name| (name, true));
            if let Some(value) = given.get(name) {
                text.push_str(value);
            } else if depth < DEEPEST {
                let choice = dice.pick(self.choices(name));
                self.expand(choice, given, dice, depth + 1, text);
            }
            if plural {
                make_plural(text);
            }
        }
        text.push_str(rest);
    }
}

/// `2-40` as a range of numbers.
fn range(slot: &str) -> Option<(usize, usize)> {
    let (low, high) = slot.split_once('-')?;
    Some((low.parse().ok()?, high.parse().ok()?))
}

/// Puts the last word of `text` into the plural, by the regular rules.
fn make_plural(text: &mut String) {
    let consonant_y = text.strip_suffix('y').is_some_and(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
    if consonant_y {
        text.pop();
        text.push_str("ies");
    } else if ["s", "x", "z", "ch", "sh"].iter().any(|end| text.ends_with(end)) {
        text.push_str("es");
    } else {
        text.push('s');
    }
}

/// Chooses between `a` and `an`, and removes blanks that empty slots left.
fn polish(text: &str) -> String {
    let mut polished = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied().unwrap_or(' ');
        match letter {
            '~' if "aeiouAEIOU".contains(next) => polished.push_str("n "),
            '~' => polished.push(' '),
            ' ' if polished.is_empty() || " .,;:!?".contains(next) => {}
            _ => polished.push(letter),
        }
    }
    polished.truncate(polished.trim_end().len());
    polished
}

/// `text` with its first letter, if any, in upper case.
pub(super) fn capitalized(text: &str) -> String {
    let Some(at) = text.find(|letter: char| letter.is_ascii_alphanumeric()) else {
        return text.to_owned();
    };
    let (before, word) = text.split_at(at);
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        format!("{before}{}{}", first.to_ascii_uppercase(), letters.as_str())
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::dice::Domain;
    use super::*;

    /// The slots of `grammar` that neither a rule nor one of `given` fills.
    pub(in super::super) fn open_slots(grammar: &Grammar, given: &[&str]) -> Vec<String> {
        let mut open = vec![];
        for template in grammar.0.values().flatten() {
            for slot in template.split('{').skip(1) {
                let slot = slot.split('}').next().unwrap();
                let name = slot.strip_suffix("+s").unwrap_or(slot);
                if range(slot).is_none() && grammar.choices(name).is_empty() && !given.contains(&name) {
                    open.push(format!("{{{slot}}} in {template:?}"));
                }
            }
        }
        open
    }

    fn fill(template: &str) -> String {
        let grammar = Grammar::parse("# none\nbird: owl\nberry: red\n  berry\nnone:\nloop: x{loop}");
        let given = Given::from([("who", "Tavi")]);
        grammar.fill(template, &given, &mut Dice::new(Domain::Base, 0, 0))
    }

    #[test]
    fn articles_follow_the_word_that_was_chosen() {
        assert_eq!(fill("a~{bird} and a~{who}"), "an owl and a Tavi");
    }

    #[test]
    fn plurals_follow_the_spelling() {
        let plural = |word: &str| {
            let mut text = word.to_owned();
            make_plural(&mut text);
            text
        };
        assert_eq!(plural("key"), "keys");
        assert_eq!(plural("berry"), "berries");
        assert_eq!(plural("wet brush"), "wet brushes");
        assert_eq!(fill("{bird+s}"), "owls");
    }

    #[test]
    fn an_empty_slot_leaves_no_gap() {
        assert_eq!(fill("{none} so {none} it is {none}."), "so it is.");
    }

    #[test]
    fn a_rule_that_names_itself_comes_to_an_end() {
        assert!(fill("{loop}").len() < 20);
    }

    #[test]
    fn a_number_stays_in_its_range() {
        for _ in 0..50 {
            let number: u32 = fill("{3-5}").parse().unwrap();
            assert!((3..=5).contains(&number));
        }
    }

    #[test]
    fn the_first_letter_is_raised_after_a_quotation_mark() {
        assert_eq!(capitalized("\"no,\" she said"), "\"No,\" she said");
        assert_eq!(capitalized("..."), "...");
    }
}
