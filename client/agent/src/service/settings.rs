//! The configuration that is written where there is none: the sample with a few answers in it, so that every key is there
//! with what it means.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use session::conditions::Condition;
use shell::home;
use toml::Value;

use super::{ServiceError, text};
use crate::config::SAMPLE;

/// What a new configuration says otherwise than the sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The folder of keys, state and ledger.
    pub state_dir: PathBuf,
    /// The folder of the base.
    pub base: PathBuf,
    /// What is trained on.
    pub data: Vec<PathBuf>,
    /// What is taken to hold where the machine cannot tell.
    pub assume: BTreeSet<Condition>,
}

/// The sample with these answers. Fails where a path has no place in it.
pub fn filled(answers: &Answers) -> Result<String, ServiceError> {
    let one = |path: &Path| text(path).map(|text| Value::String(text.to_owned()));
    let data: Vec<Value> = answers.data.iter().map(|path| one(path)).collect::<Result<_, _>>()?;
    let assume = answers.assume.iter().map(|condition| Value::String(word(*condition)));
    let values = [
        ("state_dir", one(&answers.state_dir)?),
        ("base", one(&answers.base)?),
        ("data", Value::Array(data)),
        ("assume", Value::Array(assume.collect())),
    ];
    let line = |line: &str| {
        let (key, _) = line.split_once(" = ")?;
        let (_, value) = values.iter().find(|(name, _)| *name == key)?;
        Some(format!("{key} = {value}"))
    };
    let lines: Vec<String> = SAMPLE.lines().map(|old| line(old).unwrap_or_else(|| old.to_owned())).collect();
    Ok(lines.join("\n") + "\n")
}

/// A path of a configuration that is below the home folder of whoever reads it, as it is written; none where there is none.
pub fn below_home(config: &str) -> Option<PathBuf> {
    let table: toml::Table = config.parse().ok()?;
    let named = ["state_dir", "base", "further_bases", "data"].into_iter().filter_map(|key| table.get(key));
    let one = |value: &Value| value.as_str().map(PathBuf::from);
    let each = |value: &Value| {
        let listed = value.as_array().into_iter().flatten().filter_map(one);
        one(value).into_iter().chain(listed).collect::<Vec<_>>()
    };
    named.flat_map(each).find(|path| home::is_below_home(path))
}

/// The word for a condition in a configuration.
pub fn word(condition: Condition) -> String {
    let value = serde_json::to_value(condition).ok();
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// The condition that a word stands for. Fails with those that there are.
pub fn condition(word: &str) -> Result<Condition, String> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn answers() -> Answers {
        Answers {
            state_dir: "/srv/état".into(),
            base: "/srv/base".into(),
            data: vec!["/home/alex/my notes".into(), "/home/alex/100 %".into()],
            assume: BTreeSet::from([Condition::Idle, Condition::Mains]),
        }
    }

    #[test]
    fn what_is_filled_in_is_read_and_all_else_is_the_sample() {
        let text = filled(&answers()).unwrap();
        let config = Config::parse(&text, Path::new("agent.toml")).unwrap();
        let mut expected = Config::parse(SAMPLE, Path::new("agent.toml")).unwrap();
        let Answers { state_dir, base, data, assume } = answers();
        (expected.state_dir, expected.base, expected.data) = (state_dir, base, data);
        expected.conditions.assume = assume;
        assert_eq!(config, expected);
        assert_eq!(text.lines().count(), SAMPLE.lines().count());
    }

    #[test]
    fn a_path_below_somebody_s_home_is_found_wherever_it_stands() {
        for text in
            ["state_dir = '~/x'", "base = '~/x'", "further_bases = ['/a', '~/x']", "data = ['/a', '~/x']"]
        {
            assert_eq!(below_home(text), Some(PathBuf::from("~/x")), "{text}");
        }
        assert_eq!(below_home(SAMPLE), None);
        assert_eq!(below_home("data = ['/srv/~x']\ncoordinator = '~'"), None);
    }

    #[test]
    fn a_word_and_its_condition_are_each_other_s() {
        for one in Condition::ALL {
            assert_eq!(condition(&word(one)), Ok(one));
        }
        let message = condition("warm").unwrap_err();
        assert!(message.contains("warm") && message.contains("mains"), "{message}");
    }
}
