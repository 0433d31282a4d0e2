//! The keys and values of a GGUF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::error::BaseError;

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    /// A list of something else.
    Skipped,
}

/// What a file says of itself.
#[derive(Debug)]
pub(super) struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), values: BTreeMap::new() }
    }

    /// Adds a value; whether there was one.
    pub(super) fn insert(&mut self, key: String, value: Value) -> bool {
        self.values.insert(key, value).is_some()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, BaseError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "is not a text")),
        }
    }

    /// A whole number that is not negative.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, BaseError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => u64::try_from(*number)
                .map(Some)
                .map_err(|_| self.wrong(key, format!("= {number} is out of range"))),
            Some(_) => Err(self.wrong(key, "is not a whole number")),
        }
    }

    /// A number with a fraction.
    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, BaseError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(_) => Err(self.wrong(key, "is not a floating-point number")),
        }
    }

    /// Yes or no.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, BaseError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "is not a truth value")),
        }
    }

    /// Texts.
    pub(super) fn texts(&self, key: &str) -> Result<&[String], BaseError> {
        match self.values.get(key) {
            None => Err(self.wrong(key, "is missing")),
            Some(Value::Texts(texts)) => Ok(texts),
            Some(_) => Err(self.wrong(key, "is not a list of texts")),
        }
    }

    /// Whole numbers.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<&[i64]>, BaseError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Integers(numbers)) => Ok(Some(numbers)),
            Some(_) => Err(self.wrong(key, "is not a list of whole numbers")),
        }
    }

    /// Numbers with a fraction.
    pub(super) fn floats(&self, key: &str) -> Result<&[f32], BaseError> {
        match self.values.get(key) {
            None => Err(self.wrong(key, "is missing")),
            Some(Value::Floats(numbers)) => Ok(numbers),
            Some(_) => Err(self.wrong(key, "is not a list of floating-point numbers")),
        }
    }

    /// A whole number, or the one that all of a list are.
    pub(super) fn same(&self, key: &str) -> Result<Option<u64>, BaseError> {
        let Some(Value::Integers(numbers)) = self.values.get(key) else { return self.number(key) };
        match numbers.split_first() {
            Some((first, rest)) if rest.iter().all(|number| number == first) => u64::try_from(*first)
                .map(Some)
                .map_err(|_| self.wrong(key, format!("= {first} is out of range"))),
            Some(_) | None => Err(self.wrong(key, "is not the same for all blocks, which is not supported")),
        }
    }

    /// A value that is not what it should be.
    pub(super) fn wrong(&self, key: &str, reason: impl Into<String>) -> BaseError {
        BaseError::Metadata { path: self.path.clone(), key: key.to_owned(), reason: reason.into() }
    }
}
