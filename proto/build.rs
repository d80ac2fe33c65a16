//! Compiles the .proto files without protoc: protox parses them, tonic-prost-build generates.

use std::path::Path;

const FILES: &[&str] = &[
    "common.proto",
    "metad.proto",
    "metad_log.proto",
    "containerd.proto",
    "containerd_log.proto",
    "blockd.proto",
    "raft.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = Path::new("proto");
    for file in FILES {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(FILES, [dir])?;
    tonic_prost_build::configure()
        // Payloads stay in the buffer they arrived in.
        .bytes(".ozone.blockd.v1")
        .bytes(".ozone.raft.v1")
        .bytes(".ozone.v1.Location.token")
        .include_file("wire.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
