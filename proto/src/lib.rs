//! The words that both sides use, and their bytes on the wire.
