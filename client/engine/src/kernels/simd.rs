//! SIMD without intrinsics: loops that the compiler vectorizes, for each instruction set.
//!
//! The order of summation is fixed, so that these loops are bit-identical on every CPU and for any number of threads.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into `vectorized` is not compiled for the CPU's vector instructions"
)]

/// Compiles a function for several instruction sets and calls the widest that the CPU has.
///
/// All give the same bits, because the compiler never contracts a multiplication and an addition into an FMA.
macro_rules! vectorized {
    ($(#[$note:meta])* $visible:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$note])*
        $visible fn $name($($argument: $type),*) $(-> $result)? {
            // A function, not a closure: a closure of more than a few lines is compiled only once, for the baseline
            // instruction set.
            #[inline(always)]
            fn work($($argument: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                fn widest($($argument: $type),*) $(-> $result)? {
                    work($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn wide($($argument: $type),*) $(-> $result)? {
                    work($($argument),*)
                }
                #[expect(unsafe_code, reason = "called only where the CPU has the instructions")]
                // SAFETY: `vectors` found the instruction set on this CPU.
                match $crate::kernels::instructions::vectors() {
                    $crate::kernels::instructions::Vectors::Vnni | $crate::kernels::instructions::Vectors::Avx512 => {
                        return unsafe { widest($($argument),*) };
                    }
                    $crate::kernels::instructions::Vectors::Avx2 => return unsafe { wide($($argument),*) },
                    $crate::kernels::instructions::Vectors::Base => {}
                }
            }
            work($($argument),*)
        }
    };
}
pub(crate) use vectorized;

/// `e^x` within two units in the last place for |x| ≤ 87; `x` is clamped to −87 … 88. Branch-free, so that loops of it
/// vectorize.
///
/// `e^x = 2^n · e^r` with `n = round(x / ln 2)`; `e^r` is a Taylor polynomial on |r| ≤ ln 2 / 2.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 as a sum of two constants, the first of few bits, so that `n` times it is exact (Cody and Waite).
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.388_888_9e-3 + r * 1.984_127e-4;
    let p = 8.333_334e-3 + r * p;
    let p = 4.166_666_8e-2 + r * p;
    let p = 1.666_666_7e-1 + r * p;
    let p = 0.5 + r * p;
    let p = 1.0 + r * (1.0 + r * p);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of `value` over the elements of slices of one length, in sixteen lanes: it vectorizes, and its order does
/// not depend on the CPU.
#[inline(always)]
pub(crate) fn sum<const N: usize>(slices: [&[f32]; N], value: impl Fn([f32; N]) -> f32) -> f32 {
    let chunks = slices.map(|slice| slice.as_chunks::<16>());
    let full = chunks.iter().map(|(full, _)| full.len()).min().unwrap_or(0);
    let full_ones: [&[[f32; 16]]; N] = std::array::from_fn(|s| &chunks[s].0[..full]);
    let mut lanes = [0.0f32; 16];
    for chunk in 0..full {
        let here = full_ones.map(|slice| &slice[chunk]);
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += value(std::array::from_fn(|s| here[s][lane]));
        }
    }
    let rest = chunks.iter().map(|(_, rest)| rest.len()).min().unwrap_or(0);
    let rest: f32 = (0..rest).map(|i| value(std::array::from_fn(|s| chunks[s].1[i]))).sum();
    in_pairs(lanes, |x, y| x + y) + rest
}

/// Replaces every `x` with `e^(x − most)` and returns their sum, in sixteen lanes as in [`sum`].
#[inline(always)]
pub(crate) fn exp_all(x: &mut [f32], most: f32) -> f32 {
    let (full, rest) = x.as_chunks_mut::<16>();
    let mut lanes = [0.0f32; 16];
    for some in full {
        for (x, total) in some.iter_mut().zip(&mut lanes) {
            *x = exp(*x - most);
            *total += *x;
        }
    }
    let mut total = 0.0;
    for x in rest {
        *x = exp(*x - most);
        total += *x;
    }
    in_pairs(lanes, |x, y| x + y) + total
}

/// Reduces sixteen lanes to one value, the upper half onto the lower one each time.
#[inline(always)]
fn in_pairs(mut lanes: [f32; 16], both: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = both(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

vectorized! {
    /// Whether every value is finite.
    pub(crate) fn all_finite(values: &[f32]) -> bool {
        sum([values], |[x]| x * 0.0) == 0.0
    }
}

vectorized! {
    /// The largest absolute value; NaNs are ignored.
    pub(crate) fn largest_of(values: &[f32]) -> f32 {
        largest(values)
    }
}

/// The largest absolute value, in sixteen lanes as in [`sum`]; NaNs are ignored.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (full, rest) = values.as_chunks::<16>();
    for some in full {
        for (lane, x) in lanes.iter_mut().zip(some) {
            *lane = if x.abs() > *lane { x.abs() } else { *lane };
        }
    }
    rest.iter().fold(in_pairs(lanes, f32::max), |most, x| most.max(x.abs()))
}

/// The largest value, in sixteen lanes as in [`sum`]; NaNs are ignored.
#[inline(always)]
pub(crate) fn most(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (full, rest) = values.as_chunks::<16>();
    for some in full {
        for (lane, x) in lanes.iter_mut().zip(some) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let most = in_pairs(lanes, f32::max);
    rest.iter().fold(most, |most, x| most.max(*x))
}
