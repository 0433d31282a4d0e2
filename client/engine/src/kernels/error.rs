//! The error of kernels and layers.

/// Shapes that do not match, or values that cannot be used: a weight that is not finite, a token not in the vocabulary.
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

/// The result of kernels, layers and the passes over the CPU decoder.
pub(crate) type Result<T> = std::result::Result<T, ShapeError>;

/// Returns a [`ShapeError`] from the enclosing function, with a message formatted as by `format!`.
macro_rules! bail {
    ($($words:tt)*) => {
        return Err($crate::kernels::error::ShapeError::new(format!($($words)*)))
    };
}
pub(crate) use bail;
