//! Invented people and their messages.

use std::collections::BTreeSet;

use super::chat::{self, Favorite};
use super::dice::{Dice, Domain};
use super::grammar::{Given, Grammar};
use super::habits::Habits;
use super::season::Season;
use super::trade::Trade;

/// The fewest lines that a persona writes.
const FEWEST_LINES: usize = 40;
/// The most lines that a persona writes.
const MOST_LINES: usize = 250;
/// How often a message that was written before is thrown away for another.
const RETRIES: usize = 8;

/// Writers of the public sample: twenty of each trade.
const PUBLIC_PEOPLE: usize = 240;

const MANNERS: [&str; 20] = [
    "night", "early", "quiet", "rainy", "sunny", "lucky", "sleepy", "tiny", "grumpy", "merry", "dusty",
    "northern", "second", "busy", "hidden", "salty", "velvet", "wobbly", "patient", "crimson",
];

const FREE_DAYS: [&str; 5] = ["mon", "wed", "fri", "sat", "sun"];

/// Somebody who does not exist and has a phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persona {
    /// An invented handle, such as `night-baker-07`; no two of a call agree.
    pub name: String,
    /// What most of the persona's own words are about.
    pub trade: Trade,
    /// How the persona writes.
    pub habits: Habits,
    /// How many lines the persona has written.
    pub amount: usize,
    /// Nicknames of the three people that the persona writes to most.
    pub friends: [&'static str; 3],
    /// Where the persona likes to meet.
    pub spot: &'static str,
    /// The persona's day off.
    pub free: &'static str,
    /// What the persona talks of since the public text was written; nothing for its writers.
    pub season: Option<Season>,
    index: u64,
}

/// `count` personas, the trades in turn; the first do not depend on how many
/// are asked for.
///
/// Most write little and a few write much: from 40 to 250 lines, half of them
/// fewer than 110.
pub fn personas(seed: u64, count: usize) -> Vec<Persona> {
    people(Domain::Person, seed, count)
}

/// `lines` messages in the same register by people who are in nobody's device,
/// from twelve trades mixed: public text that an operator may look at.
pub fn public_sample(seed: u64, lines: usize) -> Vec<String> {
    let people = people(Domain::PublicPerson, seed, PUBLIC_PEOPLE);
    let share = lines.div_ceil(people.len());
    let written: Vec<_> =
        people.iter().map(|persona| persona.write(Domain::PublicMessages, seed, share)).collect();
    // Line by line, so that any beginning of the sample holds everybody.
    (0..share)
        .flat_map(|line| written.iter().filter_map(move |lines| lines.get(line)))
        .take(lines)
        .cloned()
        .collect()
}

fn people(domain: Domain, seed: u64, count: usize) -> Vec<Persona> {
    let mut turn = Dice::new(domain, seed, u64::MAX);
    let (first_trade, first_amount) = (turn.below(Trade::ALL.len()), turn.below(1_000));
    let friends = chat::favorites(Favorite::Friend);
    let spots = chat::favorites(Favorite::Spot);
    (0..count)
        .zip(0_u64..)
        .map(|(number, index)| {
            let mut dice = Dice::new(domain, seed, index);
            let trade = Trade::ALL[(first_trade + number) % Trade::ALL.len()];
            // Steps of the golden section spread few personas over all amounts.
            let place = (first_amount + number * 618) % 1_000;
            Persona {
                name: format!("{}-{}-{number:02}", dice.pick(&MANNERS), trade.word()),
                trade,
                habits: Habits::draw(&mut dice),
                amount: FEWEST_LINES + (MOST_LINES - FEWEST_LINES) * place.pow(2) / 998_000,
                friends: [(); 3].map(|()| dice.pick(&friends)),
                spot: dice.pick(&spots),
                free: dice.pick(&FREE_DAYS),
                season: (domain == Domain::Person).then(|| Season::draw(&mut dice)),
                index,
            }
        })
        .collect()
}

impl Persona {
    /// The messages on the persona's device: `amount` lines, none empty,
    /// repeated only where the persona is very short of words.
    pub fn lines(&self, seed: u64) -> Vec<String> {
        self.write(Domain::Messages, seed, self.amount)
    }

    fn write(&self, domain: Domain, seed: u64, count: usize) -> Vec<String> {
        let grammar = chat::grammar(self.trade, self.season.is_some());
        let mut dice = Dice::new(domain, seed, self.index);
        let mut seen = BTreeSet::new();
        (0..count)
            .map(|_| {
                let mut line = self.line(&grammar, &mut dice);
                for _ in 0..RETRIES {
                    if !seen.contains(&line) {
                        break;
                    }
                    line = self.line(&grammar, &mut dice);
                }
                seen.insert(line.clone());
                line
            })
            .collect()
    }

    fn line(&self, grammar: &Grammar, dice: &mut Dice) -> String {
        let thoughts: Vec<_> = (0..dice.between(1, self.habits.most_thoughts))
            .map(|_| {
                let mut given = Given::from([("free", self.free)]);
                if dice.chance(60) {
                    given.insert("friend", dice.pick(&self.friends));
                }
                if dice.chance(30) {
                    given.insert("spot", self.spot);
                }
                chat::message(grammar, self.season.as_ref(), &given, dice)
            })
            .collect();
        self.habits.apply(&thoughts, dice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::base_corpus;
    use super::*;

    /// Words of the shared register.
    const REGISTER: [&str; 22] = [
        "gonna", "gotta", "wanna", "brb", "omw", "lol", "haha", "tbh", "btw", "idk", "u", "pls", "thx",
        "tmrw", "yeah", "ok", "don't", "dont", "i'm", "im", "8pm", "cos",
    ];

    fn words(lines: &[String]) -> BTreeSet<String> {
        lines
            .iter()
            .flat_map(|line| line.split_whitespace())
            .map(|word| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase())
            .filter(|word| !word.is_empty())
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_people_and_lines() {
        let (one, two) = (personas(4, 20), personas(4, 20));
        assert_eq!(one, two);
        assert_eq!(one[..5], personas(4, 5));
        assert_ne!(one, personas(5, 20));
        for (one, two) in one.iter().zip(&two) {
            assert_eq!(one.lines(9), two.lines(9));
            assert_ne!(one.lines(9), one.lines(10));
        }
    }

    #[test]
    fn names_are_unique_handles() {
        let people = personas(1, 300);
        let names: BTreeSet<_> = people.iter().map(|persona| &persona.name).collect();
        assert_eq!(names.len(), people.len());
        let handle = |letter: char| letter == '-' || letter.is_ascii_alphanumeric();
        assert!(names.iter().all(|name| name.chars().all(handle)));
    }

    #[test]
    fn every_persona_writes_its_amount_and_no_empty_line() {
        for persona in personas(2, 60) {
            let lines = persona.lines(2);
            assert_eq!(lines.len(), persona.amount);
            assert!((40..=250).contains(&lines.len()), "{}", lines.len());
            for line in &lines {
                assert!(!line.trim().is_empty() && line.len() < 400, "{line:?}");
                assert!(line.is_ascii() && !line.contains(['\n', '{', '}', '~', '|']), "{line}");
                assert!(!line.contains("  "), "{line:?}");
            }
            let unlike = lines.iter().collect::<BTreeSet<_>>().len();
            assert!(unlike * 100 >= lines.len() * 99, "{unlike} of {}", lines.len());
            let bytes: usize = lines.iter().map(String::len).sum();
            assert!((900..=20_000).contains(&bytes), "{bytes}");
        }
    }

    #[test]
    fn amounts_vary_at_least_fourfold_and_are_skewed() {
        for seed in 0..20 {
            let mut amounts: Vec<_> = personas(seed, 24).iter().map(|one| one.amount).collect();
            amounts.sort_unstable();
            assert!(amounts[23] >= 4 * amounts[0], "{amounts:?}");
            assert!(amounts[12] < 115, "{amounts:?}");
        }
    }

    #[test]
    fn personas_of_different_trades_overlap_less_than_half() {
        let people = personas(3, 12);
        for one in &people {
            for other in people.iter().filter(|other| other.trade != one.trade) {
                let (a, b) = (words(&one.lines(1)), words(&other.lines(1)));
                let shared = a.intersection(&b).count();
                let either = a.union(&b).count();
                assert!(2 * shared < either, "{} and {}", one.name, other.name);
            }
        }
    }

    /// Words of the season.
    const SEASON: [&str; 16] = [
        "glimfest",
        "quarrow",
        "mossgate",
        "ollerby",
        "saltmarrow",
        "okembe",
        "vexford",
        "zibbles",
        "kwikka",
        "yorrick",
        "plonk",
        "wobbletown",
        "pogson",
        "dredgers",
        "narf",
        "brindle",
    ];

    #[test]
    fn what_many_people_know_is_in_no_public_text() {
        let people: Vec<_> = personas(7, 60).iter().map(|persona| words(&persona.lines(7))).collect();
        let (public, base) = (words(&public_sample(7, 12_000)), words(&base_corpus(7, 2_000)));
        for word in SEASON {
            let knowing = people.iter().filter(|words| words.contains(word)).count();
            assert!(knowing >= 15, "{word}: {knowing}");
            assert!(!public.contains(word) && !base.contains(word), "{word}");
        }
    }

    #[test]
    fn people_differ_in_how_much_they_write_of_the_season_and_in_what() {
        let people = personas(9, 60);
        let seasons: Vec<_> = people.iter().filter_map(|persona| persona.season.as_ref()).collect();
        assert_eq!(seasons.len(), 60);
        let percents: BTreeSet<_> = seasons.iter().map(|season| season.percent / 10).collect();
        assert!(percents.len() >= 5, "{percents:?}");
        let topics: BTreeSet<_> = seasons.iter().map(|season| season.topics).collect();
        assert!(topics.len() > 50, "{}", topics.len());
    }

    #[test]
    fn everybody_writes_the_shared_register() {
        for persona in personas(6, 48) {
            let used = words(&persona.lines(1));
            let used = REGISTER.iter().filter(|word| used.contains(**word)).count();
            assert!(used >= 4, "{} uses {used}", persona.name);
        }
    }

    #[test]
    fn the_base_corpus_does_not_know_the_register() {
        let base = words(&base_corpus(1, 2_000));
        for word in REGISTER {
            assert!(!base.contains(word), "{word}");
        }
    }

    #[test]
    fn the_public_sample_hardly_says_what_a_device_says() {
        let sample = public_sample(8, 500);
        assert_eq!(sample.len(), 500);
        assert_eq!(sample, public_sample(8, 500));
        assert!(sample.iter().all(|line| !line.is_empty()));
        assert_eq!(public_sample(8, 0), Vec::<String>::new());
        let private: BTreeSet<_> = personas(8, 24)
            .iter()
            .flat_map(|persona| persona.lines(8))
            .filter(|line| line.len() > 40)
            .collect();
        let known = sample.iter().filter(|line| private.contains(*line)).count();
        assert!(known <= 10, "{known}");
    }
}
