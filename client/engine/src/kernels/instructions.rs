//! Detection of the vector instruction sets that there are kernels for.

use std::env;
use std::ffi::OsStr;
#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

/// Environment variable with the widest instruction set to use, to test the kernels of other CPUs.
const LIMIT: &str = "NIGHTSHIFT_VECTORS";

/// Vector instruction sets; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vectors {
    /// The baseline of the target architecture.
    Base,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI: dot products of 8-bit and 16-bit integers.
    Vnni,
}

impl Vectors {
    const NAMES: [(&str, Self); 4] =
        [("base", Self::Base), ("avx2", Self::Avx2), ("avx512", Self::Avx512), ("avx512vnni", Self::Vnni)];

    /// The widest set of this CPU.
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
}

/// The widest set that this CPU has and `NIGHTSHIFT_VECTORS` allows; an unknown name sets no limit.
#[cfg(target_arch = "x86_64")]
pub(crate) fn vectors() -> Vectors {
    static FOUND: OnceLock<Vectors> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let most = limit(env::var_os(LIMIT).as_deref()).ok().flatten().unwrap_or(Vectors::Vnni);
        Vectors::of_cpu().min(most)
    })
}

/// `NIGHTSHIFT_VECTORS` is not the name of an instruction set.
#[derive(Debug, thiserror::Error)]
#[error("{LIMIT} is {found}: expected base, avx2, avx512 or avx512vnni")]
pub struct VectorsError {
    found: String,
}

/// The instruction set called `name`, `None` if it is unset or empty; fails if the name is unknown.
fn limit(name: Option<&OsStr>) -> Result<Option<Vectors>, VectorsError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let found = Vectors::NAMES.iter().find(|(known, _)| name == *known);
    let error = || VectorsError { found: name.display().to_string() };
    found.map(|(_, vectors)| Some(*vectors)).ok_or_else(error)
}

/// Returns an error if `NIGHTSHIFT_VECTORS` is not a known instruction set; the message lists the valid names.
///
/// The variable limits the kernels of this crate to `base`, `avx2`, `avx512` or `avx512vnni`, so that those of other
/// CPUs can be tested. A CPU without the named set uses the widest that it has.
pub fn check_vectors() -> Result<(), VectorsError> {
    limit(env::var_os(LIMIT).as_deref()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_known_name_and_nothing_is_none() {
        for (name, vectors) in Vectors::NAMES {
            assert_eq!(limit(Some(OsStr::new(name))).unwrap(), Some(vectors));
        }
        assert!(limit(None).unwrap().is_none() && limit(Some(OsStr::new(""))).unwrap().is_none());
        let message = limit(Some(OsStr::new("avx3"))).unwrap_err().to_string();
        assert!(message.contains("NIGHTSHIFT_VECTORS is avx3: expected base"), "{message}");
    }

    /// With a misspelled limit, every other test would silently run with the widest set.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn these_tests_use_what_they_are_told_to() {
        let most = limit(env::var_os(LIMIT).as_deref()).unwrap().unwrap_or(Vectors::Vnni);
        assert_eq!(vectors(), Vectors::of_cpu().min(most));
    }
}
