//! Compiles the two proto files without an installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["rpc.proto", "agent.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // `connect` would pull in a transport; the callers bring their own channel over the Unix socket.
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
