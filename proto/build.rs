//! Compiles `nightshift.proto` in pure Rust; no `protoc` needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=nightshift.proto");
    let descriptors = protox::compile(["nightshift.proto"], ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
