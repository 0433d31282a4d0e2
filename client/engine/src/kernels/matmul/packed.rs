//! Packing and micro-kernels for AVX-512 and AVX2, of f32 and of 16-bit and 8-bit integers.
//!
//! Both factors are split along the inner dimension into blocks of at most 320 values (640 of 8 bits), and packed so
//! that a tile of [`TALL`] × [`WIDE`] results reads both sequentially and, with AVX-512, stays in registers. Start with
//! [`multiply`]; [`Left`] and [`Right`] are the packed factors.
//!
//! Integers are quantized symmetrically. Each row of a weight has one scale, in the forward and the backward pass, and
//! 16-bit weights use 12 bits and a sign. Each row of a block of the left factor has one scale and up to 15 bits and a
//! sign. Scales are chosen so that no 32-bit sum can overflow, and all sums are exact.
//!
//! `vpdpwssd` multiplies and accumulates 32 pairs an instruction, twice as many as f32, also on CPUs without bf16
//! products, and its factors have more bits than bf16. `vpdpbusd` does the same with 64 pairs of bytes, of which one
//! factor is unsigned: weights are offset by 128, and each sum starts at −128 · (sum of the left row) to compensate.

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
