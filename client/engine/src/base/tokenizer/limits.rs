//! Limits that several parts of a tokenizer have.

/// The most letters that a step may take away, and of a word that is looked for whole.
pub(super) const MOST_LETTERS: u64 = 1000;

/// Fails where there are more of something than are read.
pub(super) fn at_most(name: &str, what: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most { Err(format!("{name} has {count} {what}, at most {most} are read")) } else { Ok(()) }
}
