//! Products of packed factors with AVX-512 or AVX2: of f32, and of 16-bit integers.
//!
//! Both factors are cut along the inner dimension into blocks of at most [`BLOCK`] numbers, and laid out so that a
//! tile of [`TALL`] × [`WIDE`] results reads both from front to back and stays in registers.
//!
//! As integers each row of a weight has one scale, for both directions, and at most 12 bits and a sign; each row of
//! a block of the other factor has one too, and up to 15 bits. `vpdpwssd` multiplies 32 pairs an instruction and
//! adds them exactly in 32 bits, twice the numbers of an f32 instruction, on CPUs with bf16 products and without; its
//! factors have more bits than bf16. Scales are chosen so that no sum can overflow. `vpdpbusd` does the same with 64
//! pairs of bytes, of which one has no sign: 128 is added to the weights, and what that adds to a sum is taken away
//! where the sum begins.

mod ahead;
mod avx2;
mod layout;
mod left;
mod right;
mod tile;

pub(crate) use layout::{Lines, Span, TALL, WIDE};
pub(crate) use left::{Group, Left};
pub(crate) use right::{Held, Right, Source, scale_of};
pub(crate) use tile::{Block, BlockPosition, multiply};
