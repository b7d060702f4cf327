//! Compiles the proto file without an installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["cri.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // `connect` would pull in a transport; the caller brings its own channel over the Unix socket.
        .build_transport(false)
        .build_server(false)
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
