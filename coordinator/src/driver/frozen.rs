//! Frozen factors that an operator made, against the plan that names them.

use proto::adapter::{AdapterError, Factors};
use proto::ids::Digest;
use proto::plan::{Plan, vector_from_bytes};

/// Frozen factors that are not the plan's.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// The plan draws its factors from a seed.
    #[error("the plan draws its frozen factors from a seed, but {0} bytes of factors came with it")]
    NotWanted(usize),
    /// Other factors than the plan names.
    #[error("the plan names frozen factors {expected}, those that came hash to {found}")]
    Digest {
        /// What the plan names.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The bytes are not whole numbers.
    #[error("frozen factors are little-endian f32, 4 bytes each; found {0} bytes")]
    Bytes(usize),
    /// The numbers are not factors of the plan's adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

/// Checks an operator's factors against a plan, and gives their hash and their numbers where the plan names some.
pub fn check_frozen(plan: &Plan, frozen: &[u8]) -> Result<Option<(Digest, Vec<f32>)>, FrozenError> {
    let Factors::Given(expected) = plan.adapter.factors else {
        let none = frozen.is_empty();
        return if none { Ok(None) } else { Err(FrozenError::NotWanted(frozen.len())) };
    };
    let found = Digest::of(frozen);
    if found != expected {
        return Err(FrozenError::Digest { expected, found });
    }
    let factors = vector_from_bytes(frozen).ok_or(FrozenError::Bytes(frozen.len()))?;
    plan.adapter.check_given(&factors)?;
    Ok(Some((found, factors)))
}
