//! What a text that is read on needs of what was read before.

/// Keys and values of what was read, block by block.
#[derive(Debug, Default)]
pub(crate) struct KvCache {
    pub(crate) blocks: Vec<LayerKv>,
}

/// Keys, turned, and values of one block.
#[derive(Debug, Default)]
pub(crate) struct LayerKv {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Which rows' logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogitsFor {
    All,
    Last,
}
