//! Compiles the vendored `onnx.proto` with protox, so no system `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    let descriptors = protox::compile(["proto/onnx.proto"], ["proto"])?;
    // ONNX's comments hold indented pseudo-code that rustdoc would run as tests.
    let mut config = prost_build::Config::new();
    config.disable_comments(["."]);
    config.compile_fds(descriptors)?;
    Ok(())
}
