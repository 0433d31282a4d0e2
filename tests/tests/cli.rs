//! What the programs print for whoever asks for help, or errs: kept word by word, so that a change of it is seen.
//!
//! A case is a file in `tests/tests/cli`. To take what is printed now:
//!
//! ```text
//! TRYCMD=overwrite cargo test -p nightshift-tests --test cli
//! ```
//! and look at the difference before it is committed.

use trycmd::TestCases;
use trycmd::schema::Bin;

#[test]
fn help_and_errors_are_the_words_that_are_kept() {
    TestCases::new()
        .register_bin("nightshift", Bin::Path(env!("CARGO_BIN_EXE_nightshift-under-test").into()))
        .register_bin("nightshift-agent", Bin::Path(env!("CARGO_BIN_EXE_agent-under-test").into()))
        // Nothing of whoever runs the tests is read.
        .env("HOME", "/nonexistent")
        .env("XDG_CONFIG_HOME", "/nonexistent/config")
        .env("XDG_STATE_HOME", "/nonexistent/state")
        .env("XDG_CACHE_HOME", "/nonexistent/cache")
        .env("XDG_DATA_HOME", "/nonexistent/data")
        .case("tests/cli/*.md");
}
