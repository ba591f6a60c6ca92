//! Compiles the `.proto` files without a system `protoc`.

use std::{error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = ["enrollment", "node", "operator"].map(|f| root.join(format!("sapwood/v1/{f}.proto")));
    let descriptors = protox::compile(files, [root])?;
    // Channels are made by the callers, and a constructor `connect` would clash with the method of that name.
    // Model and update chunks are shared with the transport, not copied.
    tonic_prost_build::configure().build_transport(false).bytes(".sapwood.v1").compile_fds(descriptors)?;
    Ok(())
}
