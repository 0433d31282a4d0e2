//! Makes the base.
