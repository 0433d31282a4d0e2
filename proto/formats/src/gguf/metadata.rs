//! The metadata of a GGUF file: keys and values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::FormatError;

/// A value.
#[derive(Debug)]
pub(crate) enum Value {
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

/// The metadata of a file. Each getter returns an error where the key has a value of another type.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), values: BTreeMap::new() }
    }

    /// Adds a value. Returns whether the key had one already.
    pub(crate) fn insert(&mut self, key: String, value: Value) -> bool {
        self.values.insert(key, value).is_some()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, FormatError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "is not a text")),
        }
    }

    /// A whole number that is not negative.
    pub fn number(&self, key: &str) -> Result<Option<u64>, FormatError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => u64::try_from(*number)
                .map(Some)
                .map_err(|_| self.wrong(key, format!("= {number} is out of range"))),
            Some(_) => Err(self.wrong(key, "is not a whole number")),
        }
    }

    /// A floating-point number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, FormatError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(_) => Err(self.wrong(key, "is not a floating-point number")),
        }
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FormatError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "is not a truth value")),
        }
    }

    /// A list of texts; an error too where the key is missing.
    pub fn texts(&self, key: &str) -> Result<&[String], FormatError> {
        match self.values.get(key) {
            None => Err(self.wrong(key, "is missing")),
            Some(Value::Texts(texts)) => Ok(texts),
            Some(_) => Err(self.wrong(key, "is not a list of texts")),
        }
    }

    /// A list of whole numbers of 32 bits.
    pub fn numbers(&self, key: &str) -> Result<Option<&[i64]>, FormatError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Integers(numbers)) => Ok(Some(numbers)),
            Some(_) => Err(self.wrong(key, "is not a list of whole numbers")),
        }
    }

    /// A list of floating-point numbers; an error too where the key is missing.
    pub fn floats(&self, key: &str) -> Result<&[f32], FormatError> {
        match self.values.get(key) {
            None => Err(self.wrong(key, "is missing")),
            Some(Value::Floats(numbers)) => Ok(numbers),
            Some(_) => Err(self.wrong(key, "is not a list of floating-point numbers")),
        }
    }

    /// A whole number that is not negative, or the one that all of a list are: converters write a list where blocks may differ.
    pub fn same(&self, key: &str) -> Result<Option<u64>, FormatError> {
        let Some(Value::Integers(numbers)) = self.values.get(key) else { return self.number(key) };
        match numbers.split_first() {
            Some((first, rest)) if rest.iter().all(|number| number == first) => u64::try_from(*first)
                .map(Some)
                .map_err(|_| self.wrong(key, format!("= {first} is out of range"))),
            Some(_) | None => Err(self.wrong(key, "is not the same for all blocks, which is not supported")),
        }
    }

    /// The error of a value that is not what it should be: the file, the key and `reason`.
    pub fn wrong(&self, key: &str, reason: impl Into<String>) -> FormatError {
        FormatError::Metadata { path: self.path.clone(), key: key.to_owned(), reason: reason.into() }
    }
}
