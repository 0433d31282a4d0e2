//! Compiles `nightshift.proto` in pure Rust; no `protoc` needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=nightshift.proto");
    let descriptors = protox::compile(["nightshift.proto"], ["."])?;
    let stubs = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure().build_client(stubs).build_server(stubs).compile_fds(descriptors)?;
    Ok(())
}
