//! The committed types of the wire are those that `nightshift.proto` says.
//!
//! `NIGHTSHIFT_GENERATE=1 cargo test -p nightshift-proto --test generated` writes them.

use std::fs;
use std::path::Path;

#[test]
fn the_committed_types_are_those_of_the_proto_file() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile([package.join("nightshift.proto")], [package]).unwrap();
    let stubs = r#"#[cfg(feature = "grpc")]"#;
    tonic_prost_build::configure()
        .client_mod_attribute(".", stubs)
        .server_mod_attribute(".", stubs)
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let generated = fs::read_to_string(out.path().join("nightshift.v1.rs")).unwrap();
    let committed = package.join("src/wire/generated.rs");
    if std::env::var_os("NIGHTSHIFT_GENERATE").is_some() {
        fs::write(&committed, &generated).unwrap();
    }
    let found = fs::read_to_string(&committed).unwrap_or_default();
    assert!(found == generated, "run NIGHTSHIFT_GENERATE=1 cargo test -p nightshift-proto --test generated");
}
