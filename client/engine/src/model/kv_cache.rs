//! What a text that is read on needs of what was read before.

/// Keys and values of what was read, block by block.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) blocks: Vec<Past>,
}

/// Keys, turned, and values of one block.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Which rows' logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    Last,
}
