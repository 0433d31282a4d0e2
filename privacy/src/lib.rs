//! Differential privacy: the distributed Skellam mechanism and its accountant.
