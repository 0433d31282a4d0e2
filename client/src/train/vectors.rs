//! The CPU's vector instructions, as far as kernels are made for them.

use std::env;
use std::sync::OnceLock;

/// Names a set of which no wider one is used, to try the kernels of other CPUs.
const LIMIT: &str = "NIGHTSHIFT_VECTORS";

/// Sets of vector instructions, each with all of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vectors {
    /// What every CPU of its kind has.
    Base,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// VNNI too: sums of products of short integers.
    Vnni,
}

impl Vectors {
    const NAMES: [(&str, Self); 4] =
        [("base", Self::Base), ("avx2", Self::Avx2), ("avx512", Self::Avx512), ("avx512vnni", Self::Vnni)];

    /// Those of this CPU.
    #[cfg(target_arch = "x86_64")]
    fn of_cpu() -> Self {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            return Self::Base;
        }
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match wide {
            true if is_x86_feature_detected!("avx512vnni") => Self::Vnni,
            true => Self::Avx512,
            false => Self::Avx2,
        }
    }

    /// Those of this CPU.
    #[cfg(not(target_arch = "x86_64"))]
    fn of_cpu() -> Self {
        Self::Base
    }
}

/// The widest set that this CPU has, and that `NIGHTSHIFT_VECTORS` allows.
pub(crate) fn vectors() -> Vectors {
    static FOUND: OnceLock<Vectors> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let most = limit().ok().flatten().unwrap_or(Vectors::Vnni);
        Vectors::of_cpu().min(most)
    })
}

/// The limit in the environment; fails where it is no set's name.
fn limit() -> Result<Option<Vectors>, String> {
    let Some(name) = env::var_os(LIMIT) else { return Ok(None) };
    let found = Vectors::NAMES.iter().find(|(known, _)| name == *known);
    found.map(|(_, vectors)| Some(*vectors)).ok_or_else(|| {
        let known = Vectors::NAMES.map(|(name, _)| name).join(", ");
        format!("{LIMIT} is {}: expected one of {known}, or nothing", name.display())
    })
}

/// Fails, with what to do, where the environment asks for vector instructions that are none.
///
/// `NIGHTSHIFT_VECTORS` holds our kernels to `base`, `avx2`, `avx512` or `avx512vnni`, so that those of other CPUs can
/// be tried; a CPU that has fewer uses what it has.
pub fn check_vectors() -> Result<(), String> {
    limit().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_set_has_what_a_narrower_one_has() {
        assert!(Vectors::NAMES.windows(2).all(|pair| pair[0].1 < pair[1].1));
        assert!(vectors() <= Vectors::of_cpu());
    }
}
