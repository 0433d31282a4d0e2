//! The key/value cache of incremental decoding.

/// Keys and values of the tokens so far, block by block.
#[derive(Debug, Default)]
pub(crate) struct KvCache {
    pub(crate) blocks: Vec<LayerKv>,
}

/// Keys after RoPE and values of one block: (tokens, kv heads · head dim) each.
#[derive(Debug, Default)]
pub(crate) struct LayerKv {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Which tokens' logits to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogitsFor {
    All,
    Last,
}
