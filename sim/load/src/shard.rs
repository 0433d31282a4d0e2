//! One of several processes that make one load together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most processes that make one load.
pub const MOST_SHARDS: u32 = 1000;

/// Which process this is, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its number, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// The process of this number; fails where there is none.
    pub fn new(index: u32, count: u32) -> Result<Self, String> {
        if !(1..=MOST_SHARDS).contains(&count) {
            return Err(format!("a load has 1 to {MOST_SHARDS} shards, got {count}"));
        }
        if index >= count {
            return Err(format!(
                "shards are counted from 0: of {count} the last is {}, got {index}",
                count - 1
            ));
        }
        Ok(Self { index, count })
    }

    /// The number of this process as Kubernetes says it to the pods of an Indexed Job, of so many.
    pub fn of_job(completion_index: Option<&str>, count: u32) -> Result<Self, String> {
        let Some(text) = completion_index else {
            return Err(
                "--shards needs JOB_COMPLETION_INDEX, which an Indexed Job of Kubernetes sets; elsewhere say --shard \
                 INDEX/COUNT"
                    .to_owned(),
            );
        };
        let index =
            text.parse().map_err(|_| format!("JOB_COMPLETION_INDEX is {text:?}, which is no index"))?;
        Self::new(index, count).map_err(|why| format!("JOB_COMPLETION_INDEX: {why}"))
    }

    /// Whether a device, or an arrival, of this number is this process's: every `count`th is.
    pub fn has(self, number: u32) -> bool {
        number % self.count == self.index
    }

    /// Those of so many that are this process's.
    pub fn of(self, all: u32) -> impl Iterator<Item = u32> {
        (0..all).filter(move |number| self.has(*number))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok();
        let parts = text.split_once('/').and_then(|(index, count)| Some((number(index)?, number(count)?)));
        let (index, count) =
            parts.ok_or_else(|| format!("expected INDEX/COUNT such as 3/10, got {text:?}"))?;
        Self::new(index, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_of_one_shard() {
        let shards: Vec<Shard> = (0..3).map(|index| Shard::new(index, 3).unwrap()).collect();
        let mut all: Vec<u32> = shards.iter().flat_map(|shard| shard.of(10)).collect();
        assert_eq!(shards[1].of(10).collect::<Vec<_>>(), [1, 4, 7]);
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn what_names_no_shard_is_refused_with_what_is_right() {
        assert_eq!("3/10".parse(), Ok(Shard { index: 3, count: 10 }));
        for (text, words) in [
            ("10/10", "of 10 the last is 9, got 10"),
            ("0/0", "1 to 1000 shards, got 0"),
            ("0/1001", "got 1001"),
            ("3", "INDEX/COUNT such as 3/10"),
            ("-1/2", "INDEX/COUNT"),
        ] {
            let said = text.parse::<Shard>().unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_pod_knows_its_shard_by_its_index() {
        assert_eq!(Shard::of_job(Some("2"), 4), Ok(Shard { index: 2, count: 4 }));
        assert!(Shard::of_job(None, 4).unwrap_err().contains("--shard INDEX/COUNT"));
        assert!(Shard::of_job(Some("x"), 4).unwrap_err().contains("\"x\""));
        assert!(Shard::of_job(Some("4"), 4).unwrap_err().contains("the last is 3"));
    }
}
