//! Memory that is used again.

/// Memory of exactly `len` numbers; what is in them is not looked at.
pub(crate) fn resized(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    memory.resize(len, 0.0);
    memory
}

/// Memory of `len` numbers that never becomes shorter, so that nothing is cleared again.
pub(crate) fn at_least(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    memory.resize(memory.len().max(len), 0.0);
    &mut memory[..len]
}
