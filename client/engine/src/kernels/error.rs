//! What a kernel refuses.

/// Matrices or vectors whose shapes do not fit one another, or numbers that cannot be computed with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShapeError(String);

impl ShapeError {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an error is given by value where another is made of it"
    )]
    pub(crate) fn new(what: impl ToString) -> Self {
        Self(what.to_string())
    }
}

/// Of kernels, layers and the passes over our own decoder.
pub(crate) type Result<T> = std::result::Result<T, ShapeError>;

/// Returns a [`ShapeError`] of these words.
macro_rules! bail {
    ($($words:tt)*) => {
        return Err($crate::kernels::error::ShapeError::new(format!($($words)*)))
    };
}
pub(crate) use bail;
