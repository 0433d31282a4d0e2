//! Messages: the shared register and what a trade adds to it.

use super::dice::Dice;
use super::grammar::{Given, Grammar};
use super::season::{self, Season};
use super::trade::Trade;

const SHARED: &str = include_str!("chat.grammar");
const TRADES: &str = include_str!("trades.grammar");

/// Of a hundred messages, those that are about the trade and nothing else.
const OF_TRADE_PERCENT: usize = 22;

/// The shared register, with the words of one trade in its slots; `now` with what the season brought.
pub(super) fn grammar(trade: Trade, now: bool) -> Grammar {
    let mut grammar = Grammar::parse(SHARED);
    grammar.adopt(&Grammar::parse(TRADES), trade.word());
    if now {
        season::add(&mut grammar);
    }
    grammar
}

/// One message, in lower case and without habits; where there is a season, some are about it.
pub(super) fn message(
    grammar: &Grammar,
    season: Option<&Season>,
    given: &Given<'_>,
    dice: &mut Dice,
) -> String {
    if let Some(rule) = season.and_then(|season| season.rule(dice)) {
        return grammar.write(&rule, given, dice);
    }
    let rule = match dice.below(100) {
        roll if roll >= OF_TRADE_PERCENT => "message",
        roll if roll % 4 == 0 => "ask",
        _ => "remark",
    };
    grammar.write(rule, given, dice)
}

/// The nicknames that a persona's friends may have, and the spots that it may
/// prefer.
pub(super) fn favorites(rule: Favorite) -> Vec<&'static str> {
    let rule = match rule {
        Favorite::Friend => "friend",
        Favorite::Spot => "spot",
    };
    Grammar::parse(SHARED).choices(rule).to_vec()
}

/// What a persona has favourites of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Favorite {
    /// Nicknames.
    Friend,
    /// Meeting places.
    Spot,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::grammar::tests::open_slots;
    use super::*;

    #[test]
    fn every_slot_has_a_filling_in_every_trade() {
        for trade in Trade::ALL {
            for now in [false, true] {
                let open = open_slots(&grammar(trade, now), &["free"]);
                assert_eq!(open, Vec::<String>::new(), "{trade:?}");
            }
        }
    }

    #[test]
    fn trades_have_their_own_words() {
        let words = |trade: Trade| -> BTreeSet<&str> {
            let trades = Grammar::parse(TRADES);
            let rules = ["thing", "stuff", "doing", "did", "remark", "ask"];
            let names = rules.map(|rule| format!("{}.{rule}", trade.word()));
            names
                .iter()
                .flat_map(|name| trades.choices(name).to_vec())
                .flat_map(|choice| choice.split(|letter: char| !letter.is_alphabetic()))
                .filter(|word| word.len() > 3)
                .collect()
        };
        for one in Trade::ALL {
            assert!(words(one).len() > 65, "{one:?}: {}", words(one).len());
            for other in Trade::ALL.into_iter().filter(|other| *other != one) {
                let shared = words(one).intersection(&words(other)).count();
                let share = shared as f64 / words(one).len() as f64;
                assert!(share < 0.2, "{one:?} and {other:?} share {share}");
            }
        }
    }
}
