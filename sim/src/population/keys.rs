//! The keys of scenario files. Their one list is `sim/scenarios/population.toml`, in which each has its meaning and its default.

use proto::shown::shown;
use toml::{Table, Value};

/// A scenario with every key.
pub const KEYS: &str = include_str!("../../scenarios/population.toml");

/// A key that is none, or a list that cannot be run through.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such key.
    #[error("unknown key {}; the nearest that there is is {nearest}", shown(key))]
    Unknown {
        /// Which.
        key: String,
        /// What may be meant.
        nearest: String,
    },
    /// A table stands where a value belongs, or the other way round.
    #[error("{0} is a table of keys, and a value stands there")]
    NoTable(String),
    /// A list has nothing in it.
    #[error("{0} is an empty list: name at least one value")]
    Empty(String),
    /// A list has a value twice.
    #[error("{key} has {value} twice: each run would be there twice")]
    Twice {
        /// Of which key.
        key: String,
        /// Which value.
        value: String,
    },
    /// Runs of these could not be compared.
    #[error("{key} has a list, and runs that differ in it cannot be compared: {why}; name one value")]
    NotCompared {
        /// Which key.
        key: String,
        /// Why they cannot.
        why: &'static str,
    },
    /// The lists make too many runs.
    #[error("{} = {found} runs, and a sweep has at most {most}: shorten a list", lists.join(" × "))]
    TooMany {
        /// Each list with its length.
        lists: Vec<String>,
        /// Runs.
        found: usize,
        /// The most.
        most: usize,
    },
}

/// The values of a table by their whole names.
pub(super) fn values(table: &Table) -> Vec<(String, &Value)> {
    fn of_one<'a>((name, value): (&String, &'a Value)) -> Vec<(String, &'a Value)> {
        match value {
            Value::Table(inner) => {
                inner.iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect()
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => vec![(name.clone(), value)],
        }
    }
    table.iter().flat_map(of_one).collect()
}

/// The whole names of a table's keys.
pub(super) fn names(table: &Table) -> Vec<String> {
    values(table).into_iter().map(|(name, _)| name).collect()
}

/// The sample, those keys too that have no default and stand in it behind the mark of a comment.
pub(super) fn sample() -> Table {
    let whole: String = KEYS
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split(' ').nth(1) == Some("=") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    // A test reads it.
    whole.parse().unwrap_or_default()
}

/// Fails at the first key that there is not, and names the nearest that there is.
pub(super) fn check_known(table: &Table) -> Result<(), KeyError> {
    let sample = sample();
    let known = names(&sample);
    for (name, value) in table {
        if sample.get(name).is_some_and(Value::is_table) && !value.is_table() {
            return Err(KeyError::NoTable(name.clone()));
        }
    }
    let tables: Vec<&String> =
        sample.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| name).collect();
    let empty = table.iter().filter(|(_, value)| value.as_table().is_some_and(Table::is_empty));
    let unknown_table = empty.map(|(name, _)| name).find(|name| !tables.contains(name));
    let unknown = names(table).into_iter().find(|name| !known.contains(name));
    match unknown.or_else(|| unknown_table.cloned()) {
        None => Ok(()),
        Some(key) => Err(KeyError::Unknown { nearest: nearest(&key, &known), key }),
    }
}

/// The known key that is most like it: as a whole, or by what stands behind the table's name.
fn nearest(key: &str, known: &[String]) -> String {
    let own = key.rsplit('.').next().unwrap_or(key);
    let far = |name: &String| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let whole = strsim::damerau_levenshtein(key, name);
        // In another table: only where as a whole nothing is as near.
        (whole.min(strsim::damerau_levenshtein(own, last)), whole)
    };
    known.iter().min_by_key(|name| far(name)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_with_the_nearest() {
        let told = |text: &str| check_known(&text.parse().unwrap()).unwrap_err().to_string();
        for (text, key, nearest) in [
            ("[task]\ncohorts = 3", "task.cohorts", "task.cohort"),
            ("rank = 3", "rank", "model.rank"),
            ("[privacy]\nnoise_multiplyer = 3", "privacy.noise_multiplyer", "privacy.noise_multiplier"),
            ("[population]\nversions = 3", "population.versions", "task.versions"),
            ("[networks]\nspread = 3", "networks.spread", "network.spread"),
        ] {
            assert_eq!(told(text), format!("unknown key {key}; the nearest that there is is {nearest}"));
        }
        assert_eq!(told("task = 3"), "task is a table of keys, and a value stands there");
        assert!(told("[things]").starts_with("unknown key things"));
        assert!(check_known(&KEYS.parse().unwrap()).is_ok() && check_known(&sample()).is_ok());
    }
}
