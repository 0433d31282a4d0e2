//! Suites that need more than one package; this library holds what `fuzz/` and its replay share, and the quick device of the
//! suites that kill and cut.
//!
//! It deliberately says nothing that one package can test by itself: such tests stand beside the code. The suites are
//! below `tests/tests`: `machines` has both sides' machines against a reference model, `proof` worlds in which everything goes
//! wrong and no invariant may, `attacks` a coordinator that lies, `network` and `kill` processes, `year` and `day` a
//! coordinator that runs for long, `door` a host program, `architecture` who may name whom. Start at `machines`.

pub mod books;
pub mod fuzz;
pub mod one_hot;
