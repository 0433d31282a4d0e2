//! The header of a GGUF file: metadata, and the names, shapes, types and positions of the tensors.
//!
//! Every count and length in it is held against a limit, or against the file's length, before memory is allocated.

use std::collections::BTreeMap;
use std::path::Path;

use super::metadata::{Metadata, Value};
use crate::dtype::{FileDtype, TensorHeader};
use crate::error::FormatError;
use crate::file::OpenedFile;

/// The largest header that is read.
const MOST_HEADER_BYTES: u64 = 64 << 20;

/// More keys than a converter writes.
const MOST_PAIRS: u64 = 1 << 12;

/// More texts than a list of tokens or of merges has.
const MOST_TEXTS: u64 = 1 << 21;

/// More tensors than a decoder of the most blocks has.
const MOST_TENSORS: u64 = 1 << 16;

/// More dimensions than a tensor has.
const MOST_DIMENSIONS: u32 = 4;

/// Where a file does not say to what its tensors' places are rounded up.
const ALIGNMENT: u64 = 32;

/// A GGUF file of which the header was read.
#[derive(Debug)]
pub struct GgufHeader {
    /// The file, read up to the end of its header.
    pub opened: OpenedFile,
    /// What it says of itself.
    pub metadata: Metadata,
    /// The tensors, by the names that they have in the file.
    pub tensors: BTreeMap<String, TensorHeader>,
}

impl GgufHeader {
    /// Opens a file and reads its header.
    ///
    /// Returns an error where the file cannot be read, is not GGUF of version 2 or 3, or has a header of more than 64 MiB,
    /// 65,536 tensors, 4,096 keys or 2,097,152 texts in a list; where the header is longer than the file or says something
    /// twice; where it is one part of several; and where a tensor is not whole blocks of its type or does not end within the file.
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        let mut reader = Reader { opened: OpenedFile::new(path)? };
        reader.opened.refuse_pointer()?;
        let (metadata, tensors) = reader.header()?;
        refuse_part(&metadata)?;
        Ok(Self { opened: reader.opened, metadata, tensors })
    }
}

/// Returns an error for one of several files, of which only the first says what the model is.
fn refuse_part(metadata: &Metadata) -> Result<(), FormatError> {
    let Some(count) = metadata.number("split.count")?.filter(|count| *count > 1) else { return Ok(()) };
    let part = match metadata.number("split.no")? {
        Some(number) => format!(": this is part {} of {count}", number.saturating_add(1)),
        None => String::new(),
    };
    let reason = format!(
        "= {count} is not supported{part}; make one file of the {count} first, by llama-gguf-split --merge FIRST OUT"
    );
    Err(metadata.wrong("split.count", reason))
}

/// Reads the header, from the first byte on.
struct Reader {
    opened: OpenedFile,
}

impl Reader {
    fn header(&mut self) -> Result<(Metadata, BTreeMap<String, TensorHeader>), FormatError> {
        if self.take(4)? != b"GGUF" {
            return Err(self.damaged("it does not begin with `GGUF`".to_owned()));
        }
        let version = self.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(self.damaged(format!("its version is {version}; 2 and 3 can be read, little-endian")));
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        if tensors > MOST_TENSORS {
            return Err(
                self.damaged(format!("it would have {tensors} tensors, at most {MOST_TENSORS} are read"))
            );
        }
        if pairs > MOST_PAIRS {
            return Err(self.damaged(format!("it would have {pairs} keys, at most {MOST_PAIRS} are read")));
        }
        let mut metadata = Metadata::new(self.opened.path());
        for _ in 0..pairs {
            let key = self.string("a key")?;
            let kind = self.u32()?;
            let value = self.value(&key, kind)?;
            if metadata.insert(key.clone(), value) {
                return Err(self.damaged(format!("it has the key `{key}` twice")));
            }
        }
        let alignment = metadata.number("general.alignment")?.unwrap_or(ALIGNMENT);
        let mut infos = BTreeMap::new();
        for _ in 0..tensors {
            let name = self.string("a tensor's name")?;
            let info = self.info(&name)?;
            if infos.insert(name.clone(), info).is_some() {
                return Err(self.damaged(format!("it has the tensor `{name}` twice")));
            }
        }
        let data = self.opened.position().checked_next_multiple_of(alignment);
        let data = data.ok_or_else(|| self.damaged(format!("its alignment is {alignment}")))?;
        for (name, info) in &mut infos {
            info.start = self.place(name, info, data)?;
        }
        Ok((metadata, infos))
    }

    /// What follows a tensor's name; its position counts from the beginning of the data.
    fn info(&mut self, name: &str) -> Result<TensorHeader, FormatError> {
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(self.damaged(format!("its tensor `{name}` would have {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.u64()?);
        }
        shape.reverse();
        Ok(TensorHeader { shape, dtype: FileDtype::from_gguf(self.u32()?), start: self.u64()? })
    }

    /// The offset of a tensor's first byte in the file, if it is whole and ends within the file. Those of other types are
    /// never read.
    fn place(&self, name: &str, info: &TensorHeader, data: u64) -> Result<u64, FormatError> {
        if let FileDtype::Other(_) = info.dtype {
            return Ok(u64::MAX);
        }
        let count = info.shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size));
        let bytes = match (count, info.shape.last()) {
            // A row is whole blocks.
            (Some(count), Some(&columns)) if info.dtype.bytes(columns).is_some() => info.dtype.bytes(count),
            _ => None,
        };
        let place = data.checked_add(info.start).zip(bytes);
        match place.and_then(|(start, bytes)| Some((start, start.checked_add(bytes)?))) {
            Some((start, end)) if end <= self.opened.len() => Ok(start),
            _ => Err(self.damaged(format!(
                "its tensor `{name}` of {:?} does not fit the file's {} bytes",
                info.shape,
                self.opened.len()
            ))),
        }
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, FormatError> {
        Ok(match kind {
            0 => Value::Integer(i128::from(u8::from_le_bytes(self.array()?))),
            1 => Value::Integer(i128::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Integer(i128::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Integer(i128::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Integer(i128::from(self.u32()?)),
            5 => Value::Integer(i128::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::Text(self.string(key)?),
            9 => self.list(key)?,
            10 => Value::Integer(i128::from(self.u64()?)),
            11 => Value::Integer(i128::from(i64::from_le_bytes(self.array()?))),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.damaged(format!("the value of `{key}` is of the unknown type {kind}"))),
        })
    }

    /// A list; what no list that we need is made of is skipped.
    fn list(&mut self, key: &str) -> Result<Value, FormatError> {
        let (kind, count) = (self.u32()?, self.u64()?);
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            // The length of a text.
            8 | 10..=12 => 8,
            _ => return Err(self.damaged(format!("`{key}` is a list of the unknown type {kind}"))),
        };
        let left = self.opened.len() - self.opened.position();
        let Some(bytes) = count.checked_mul(size).filter(|bytes| *bytes <= left) else {
            return Err(self.damaged(format!("its list `{key}` would have {count} values")));
        };
        if kind == 8 {
            if count > MOST_TEXTS {
                return Err(self
                    .damaged(format!("its list `{key}` has {count} texts, at most {MOST_TEXTS} are read")));
            }
            let texts = (0..count).map(|_| self.string(key)).collect::<Result<_, _>>()?;
            return Ok(Value::Texts(texts));
        }
        let bytes = self.take(bytes)?;
        let words = bytes.as_chunks().0.iter();
        Ok(match kind {
            4 => Value::Integers(words.map(|x| i64::from(u32::from_le_bytes(*x))).collect()),
            5 => Value::Integers(words.map(|x| i64::from(i32::from_le_bytes(*x))).collect()),
            6 => Value::Floats(words.map(|x| f32::from_le_bytes(*x)).collect()),
            _ => Value::Skipped,
        })
    }

    fn string(&mut self, what: &str) -> Result<String, FormatError> {
        let len = self.u64()?;
        let text = self.take(len)?.to_vec();
        String::from_utf8(text)
            .map_err(|_| self.damaged(format!("a text in its header ({what}) is not UTF-8")))
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    fn take(&mut self, count: u64) -> Result<&[u8], FormatError> {
        if count > MOST_HEADER_BYTES - self.opened.position().min(MOST_HEADER_BYTES) {
            return Err(self.damaged(format!("its header has more than {MOST_HEADER_BYTES} bytes")));
        }
        self.opened.take(count)
    }

    fn damaged(&self, reason: String) -> FormatError {
        FormatError::damaged(self.opened.path(), reason)
    }
}
