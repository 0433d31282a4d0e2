//! The header of a GGUF file, as far as a plan must know it.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// The largest header that is read.
const HEADER_LIMIT_BYTES: u64 = 64 << 20;

/// More tensors than a decoder has.
const TENSOR_LIMIT: u64 = 1 << 16;

/// More dimensions than a tensor has.
const DIMENSION_LIMIT: u32 = 4;

/// Names of a block's linear layers in a GGUF file, and in a Hugging Face folder.
const NAMES: [(&str, &str); 7] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// A header that cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Damaged(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Damaged("it ends within its header".to_owned());
        }
        Self::Read(error)
    }
}

/// The blocks of a decoder, and the shapes of its linear layers' weights by their Hugging Face names.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) layers: usize,
    pub(super) shapes: BTreeMap<String, Vec<u64>>,
}

/// Reads a header from the first byte on.
pub(super) fn read(source: &mut impl Read) -> Result<Header, Fault> {
    let mut reader = Reader { source, left: HEADER_LIMIT_BYTES };
    if reader.array()? != *b"GGUF" {
        return Err(Fault::Damaged("it does not begin with `GGUF`".to_owned()));
    }
    let version = reader.u32()?;
    if !matches!(version, 2 | 3) {
        return Err(Fault::Damaged(format!("its version is {version}; 2 and 3 can be read, little-endian")));
    }
    let (tensors, pairs) = (reader.u64()?, reader.u64()?);
    if tensors > TENSOR_LIMIT {
        return Err(Fault::Damaged(format!(
            "it would have {tensors} tensors, at most {TENSOR_LIMIT} are read"
        )));
    }
    let mut layers = BTreeMap::new();
    let mut architecture = None;
    for _ in 0..pairs {
        let (key, kind) = (reader.text()?, reader.u32()?);
        match kind {
            8 if key == "general.architecture" => architecture = Some(reader.text()?),
            4 | 5 if key.ends_with(".block_count") => {
                layers.insert(key, u64::from(reader.u32()?));
            }
            10 | 11 if key.ends_with(".block_count") => {
                layers.insert(key, reader.u64()?);
            }
            _ => reader.skip_value(kind)?,
        }
    }
    let key = format!("{}.block_count", architecture.unwrap_or_default());
    let layers = layers.get(&key).and_then(|layers| usize::try_from(*layers).ok());
    let layers = layers.ok_or_else(|| Fault::Damaged(format!("it has no number `{key}`")))?;
    let mut shapes = BTreeMap::new();
    for _ in 0..tensors {
        let (name, dimensions) = (reader.text()?, reader.u32()?);
        if dimensions > DIMENSION_LIMIT {
            return Err(Fault::Damaged(format!("its tensor `{name}` would have {dimensions} dimensions")));
        }
        let mut shape = (0..dimensions).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        // The innermost comes first.
        shape.reverse();
        // Its type, and its place.
        reader.skip(4 + 8)?;
        shapes.extend(long(&name).map(|name| (name, shape)));
    }
    Ok(Header { layers, shapes })
}

/// The name that a linear layer's weight has in a Hugging Face folder.
fn long(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let module = rest.strip_suffix(".weight")?;
    let (_, long) = NAMES.into_iter().find(|(short, _)| *short == module)?;
    Some(format!("model.layers.{layer}.{long}.weight"))
}

struct Reader<'a, R> {
    source: &'a mut R,
    left: u64,
}

impl<R: Read> Reader<'_, R> {
    fn skip_value(&mut self, kind: u32) -> Result<(), Fault> {
        match kind {
            8 => self.text().map(drop),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if kind == 8 {
                    return (0..count).try_for_each(|_| self.text().map(drop));
                }
                let bytes = size(kind)?.checked_mul(count);
                self.skip(
                    bytes.ok_or_else(|| Fault::Damaged(format!("a list of it would have {count} values")))?,
                )
            }
            other => self.skip(size(other)?),
        }
    }

    fn text(&mut self) -> Result<String, Fault> {
        let len = self.u64()?;
        let mut bytes = Vec::new();
        self.spend(len)?;
        let found = self.source.by_ref().take(len).read_to_end(&mut bytes)?;
        if found as u64 != len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        String::from_utf8(bytes).map_err(|_| Fault::Damaged("a text in its header is not UTF-8".to_owned()))
    }

    fn skip(&mut self, count: u64) -> Result<(), Fault> {
        self.spend(count)?;
        let found = io::copy(&mut self.source.by_ref().take(count), &mut io::sink())?;
        if found == count { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.spend(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn spend(&mut self, count: u64) -> Result<(), Fault> {
        let left = self.left.checked_sub(count);
        self.left = left
            .ok_or_else(|| Fault::Damaged(format!("its header has more than {HEADER_LIMIT_BYTES} bytes")))?;
        Ok(())
    }
}

/// Bytes of a value that is neither a text nor a list.
fn size(kind: u32) -> Result<u64, Fault> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(Fault::Damaged(format!("a value of it is of the unknown type {kind}"))),
    }
}
