//! Secure aggregation: many masked integer vectors become one sum.
