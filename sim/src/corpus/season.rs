//! What people began to talk of after the public text was written: new names, places and words, of which many
//! people write, each about some.

use super::dice::Dice;
use super::grammar::Grammar;

const RULES: &str = include_str!("season.grammar");

/// The rule of each topic's messages.
const TOPICS: [&str; 10] =
    ["glimfest", "tram", "show", "rovers", "snack", "storm", "plonk", "song", "vote", "game"];

/// The least share of somebody's thoughts that is about the topics, in percent.
const LEAST_PERCENT: usize = 25;
/// The largest share.
const MOST_PERCENT: usize = 75;

/// What one person makes of the season.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Season {
    /// What the person talks of; the first is drawn most.
    pub topics: [&'static str; 4],
    /// Share of the person's thoughts that is about them, in percent.
    pub percent: usize,
}

impl Season {
    /// The season of somebody.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let mut left = TOPICS.to_vec();
        let topics = [(); 4].map(|()| left.swap_remove(dice.below(left.len())));
        Self { topics, percent: dice.between(LEAST_PERCENT, MOST_PERCENT) }
    }

    /// The rule of the next thought, where it is about one of the topics.
    pub(super) fn rule(&self, dice: &mut Dice) -> Option<String> {
        dice.chance(self.percent).then(|| {
            let place = dice.below(self.topics.len()).min(dice.below(self.topics.len()));
            format!("{}.say", self.topics[place])
        })
    }
}

/// Adds the season's words and messages to the shared register.
pub(super) fn add(grammar: &mut Grammar) {
    let season = Grammar::parse(RULES);
    grammar.adopt(&season, "word");
    grammar.take(season);
}
