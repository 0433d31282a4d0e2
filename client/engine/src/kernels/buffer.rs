//! Scratch buffers that are reused between calls.

/// Resizes a scratch buffer to `len`; its contents are unspecified.
pub(crate) fn resized(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    memory.resize(len, 0.0);
    memory
}

/// The first `len` elements of a scratch buffer, which grows but never shrinks, so that nothing is zeroed twice; their
/// contents are unspecified.
pub(crate) fn at_least(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    memory.resize(memory.len().max(len), 0.0);
    &mut memory[..len]
}
