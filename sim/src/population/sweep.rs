//! Lists of values in a scenario file: a run for each of their combinations.

use std::path::Path;

use toml::{Table, Value};

use super::keys::{self, KeyError};
use super::scenario::{ObjectiveName, Scenario, ScenarioError};

/// Most runs of a sweep.
pub const MOST_RUNS: usize = 100;

/// Most letters of the name of a run's folder, each of one byte.
const MOST_NAME: usize = 80;

/// All runs of a scenario file: one, or one for each combination of the values in its lists.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The keys that have lists, with as many values; none where there is one run.
    pub lists: Vec<(String, usize)>,
    /// The runs; the last list's values change from one to the next.
    pub runs: Vec<One>,
}

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct One {
    /// Its folder below that of the sweep; empty where it is the only one.
    pub name: String,
    /// What it is of.
    pub scenario: Scenario,
    /// As a file says it.
    pub table: Table,
}

impl Sweep {
    /// The runs of a file.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        Self::of(&text.parse()?)
    }

    /// The runs of the table of a file.
    pub fn of(table: &Table) -> Result<Self, ScenarioError> {
        keys::check_known(table)?;
        let lists = lists(table)?;
        let lengths: Vec<(String, usize)> =
            lists.iter().map(|(key, values)| (key.clone(), values.len())).collect();
        let count = lengths.iter().fold(1_usize, |count, (_, len)| count.saturating_mul(*len));
        if count > MOST_RUNS {
            let lists = lengths.iter().map(|(key, len)| format!("{len} of {key}")).collect();
            return Err(KeyError::TooMany { lists, found: count, most: MOST_RUNS }.into());
        }
        let mut runs = Vec::with_capacity(count);
        for number in 0..count {
            let (mut one, mut rest, mut words) = (table.clone(), number, Vec::new());
            for (key, values) in lists.iter().rev() {
                let value = values[rest % values.len()].clone();
                rest /= values.len();
                words.push(format!("{}={}", key.rsplit('.').next().unwrap_or(key), folder_word(key, &value)));
                set(&mut one, key, value);
            }
            words.reverse();
            let name = if lists.is_empty() {
                String::new()
            } else {
                // The number alone tells runs apart.
                let mut name = format!("{:03}-{}", number + 1, words.join("-"));
                name.truncate(MOST_NAME);
                name.truncate(name.trim_end_matches(|end: char| !end.is_ascii_alphanumeric()).len());
                name
            };
            let scenario = Scenario::of(&one)?;
            runs.push(One { name, scenario, table: one });
        }
        let is_engine = runs.iter().any(|run| run.scenario.task.objective == ObjectiveName::Engine);
        if is_engine && let Some((key, _)) = lengths.iter().find(|(key, _)| key == "population.devices") {
            let why = "with the engine each would be measured on text of other people";
            return Err(KeyError::NotCompared { key: key.clone(), why }.into());
        }
        Ok(Self { lists: lengths, runs })
    }
}

/// Sets a value of a table by its whole name.
pub fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((name, key)) => {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                inner.insert(key.to_owned(), value);
            }
        }
    }
}

/// The keys that have a list, with its values. Where a value is a list itself, only a list of lists is run through.
fn lists(table: &Table) -> Result<Vec<(String, Vec<Value>)>, KeyError> {
    let sample = keys::sample();
    let is_list_itself: Vec<String> =
        keys::values(&sample).into_iter().filter(|(_, value)| value.is_array()).map(|(key, _)| key).collect();
    let mut found = Vec::new();
    for (key, value) in keys::values(table) {
        let Some(values) = value.as_array() else { continue };
        if is_list_itself.contains(&key) && !values.first().is_some_and(Value::is_array) {
            continue;
        }
        if values.is_empty() {
            return Err(KeyError::Empty(key));
        }
        let twice = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value));
        if let Some((_, value)) = twice {
            return Err(KeyError::Twice { key, value: word(value) });
        }
        let why = match key.as_str() {
            "name" => Some("it is what people call all of them"),
            "task.objective" => Some("each objective has a loss of its own"),
            "model.base" => Some("each base has a loss of its own"),
            "model.data" => Some("each would be measured on other text"),
            "model.sequence_len" => Some("losses are measured on sequences of that length"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(KeyError::NotCompared { key, why });
        }
        found.push((key, values.clone()));
    }
    Ok(found)
}

/// A value as a part of a folder's name. Of a file it is the last part: where it lies is another place on another machine.
fn folder_word(key: &str, value: &Value) -> String {
    let file = match (key, value) {
        ("presence.trace", Value::String(path)) => Path::new(path).file_name().and_then(|name| name.to_str()),
        _ => None,
    };
    file.map_or_else(|| word(value), |name| word(&Value::String(name.to_owned())))
}

/// A value with letters that any folder's name may have.
fn word(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(word).collect::<Vec<_>>().join("+"),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => {
            value.to_string()
        }
    };
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._+-".contains(letter);
    text.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Sweep::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn each_combination_of_the_lists_is_a_run() {
        let text =
            "seed = [1, 2]\n[task]\ncohort = [8, 16, 32]\nversions = 4\n[presence]\nzones = [0.0, 8.0]\n";
        let sweep = Sweep::parse(text).unwrap();
        assert_eq!(sweep.lists, [("seed".to_owned(), 2), ("task.cohort".to_owned(), 3)]);
        let runs: Vec<_> = sweep
            .runs
            .iter()
            .map(|run| (run.name.as_str(), run.scenario.seed, run.scenario.task.cohort))
            .collect();
        assert_eq!(runs[0], ("001-seed=1-cohort=8", 1, 8));
        assert_eq!(runs[1], ("002-seed=1-cohort=16", 1, 16));
        assert_eq!((runs[5], runs.len()), (("006-seed=2-cohort=32", 2, 32), 6));
        assert!(sweep.runs.iter().all(|run| run.scenario.task.versions == 4));
        assert!(sweep.runs.iter().all(|run| run.scenario.presence.zones == [0.0, 8.0]));
        let one = Sweep::parse("seed = 3").unwrap();
        assert_eq!((one.runs.len(), one.runs[0].name.as_str(), one.lists.len()), (1, "", 0));
        // A list of lists.
        let zones = Sweep::parse("presence.zones = [[0.0], [0.0, 8.0]]").unwrap();
        assert_eq!(zones.runs[1].name, "002-zones=0.0+8.0");
    }

    #[test]
    fn the_name_of_a_run_fits_any_file_system_and_is_the_same_in_any_place() {
        let many = vec!["0.25"; 120].join(", ");
        let sweep = Sweep::parse(&format!("presence.zones = [[{many}], [{many}, 1.0]]")).unwrap();
        let names: Vec<&str> = sweep.runs.iter().map(|run| run.name.as_str()).collect();
        assert!(names.iter().all(|name| (70..=MOST_NAME).contains(&name.len())), "{names:?}");
        assert!(
            names[0].starts_with("001-zones=0.25+0.25") && names[1].starts_with("002-zones="),
            "{names:?}"
        );
        for place in ["/a", "/a/very/long/way/down"] {
            let text = format!(
                "presence.model = \"trace\"\npresence.trace = [\"{place}/x.csv\", \"{place}/y/x.csv\"]"
            );
            let sweep = Sweep::parse(&text).unwrap();
            let names: Vec<&str> = sweep.runs.iter().map(|run| run.name.as_str()).collect();
            assert_eq!(names, ["001-trace=x.csv", "002-trace=x.csv"]);
        }
    }

    #[test]
    fn lists_that_cannot_be_run_through_are_refused_with_the_numbers() {
        let many = (0..30).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!("seed = [{many}]\n[task]\ncohort = [8, 16, 32, 64]\n");
        assert_eq!(
            refused(&text),
            "30 of seed × 4 of task.cohort = 120 runs, and a sweep has at most 100: shorten a list"
        );
        assert_eq!(refused("seed = []"), "seed is an empty list: name at least one value");
        assert_eq!(refused("seed = [1, 2, 1]"), "seed has 1 twice: each run would be there twice");
        assert!(refused("task.objective = [\"none\", \"quadratic\"]").contains("cannot be compared"));
        assert!(refused("task.cohorts = [1, 2]").starts_with("unknown key task.cohorts"));
        // One bad value among good ones.
        assert!(refused("task.patience_hours = [48, 0]").starts_with("task.patience_hours is 0"));
        let engine = "task.objective = \"engine\"\nmodel.base = \"b\"\nmodel.data = \"d\"\n";
        let devices = format!("{engine}population.devices = [10, 20]");
        assert!(refused(&devices).contains("text of other people"));
        assert_eq!(Sweep::parse(&format!("{engine}model.rank = [1, 2]")).unwrap().runs.len(), 2);
    }
}
