//! An image of one program, made without any other program: a docker archive, which containerd and podman both load.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Full name, as in the archive; tools abbreviate it to [`SHORT_NAME`].
pub const NAME: &str = "docker.io/local/pause:1";
/// What runtimes are configured with.
pub const SHORT_NAME: &str = "local/pause:1";
/// Where the program is inside.
const PROGRAM: &str = "pause";

/// Unit of the tar format.
const BLOCK: usize = 512;

/// Writes an archive whose image runs this statically linked program.
pub fn write(program: &Path, archive: &Path) -> Result<()> {
    let program = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let layer = tar(&[(PROGRAM, 0o755, &program)])?;
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": {"Cmd": [format!("/{PROGRAM}")]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    });
    let config = config.to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest: Value = json!([{"Config": config_name, "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    let whole = tar(&[
        ("manifest.json", 0o644, manifest.to_string().as_bytes()),
        (&config_name, 0o644, config.as_bytes()),
        ("layer.tar", 0o644, &layer),
    ])?;
    std::fs::write(archive, whole).with_context(|| format!("cannot write {}", archive.display()))
}

/// In the words of image formats.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Regular files of root, from 1970.
fn tar(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (name, mode, content) in files {
        archive.extend(header(name, *mode, content.len())?);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end it.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

/// A `ustar` header: numbers are octal text, and the checksum counts its own field as blanks.
fn header(name: &str, mode: u32, size: usize) -> Result<[u8; BLOCK]> {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &str| -> Result<()> {
        let field = header.get_mut(at..at + text.len()).context("a field of a tar header")?;
        field.copy_from_slice(text.as_bytes());
        Ok(())
    };
    anyhow::ensure!(name.len() < 100, "{name}: too long for a tar header");
    put(0, name)?;
    put(
        100,
        &format!("{mode:07o}\0{:07o}\0{:07o}\0{size:011o}\0{:011o}\0        0", 0, 0, 0),
    )?;
    put(257, "ustar\x0000")?;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_header_holds_name_size_and_a_checksum_over_itself() {
        let header = header("layer.tar", 0o644, 1_000).unwrap();
        assert_eq!(&header[..10], b"layer.tar\0");
        assert_eq!(&header[124..136], b"00000001750\0");
        let blank: u32 = header[..148].iter().chain(&header[156..]).map(|b| u32::from(*b)).sum();
        let told = std::str::from_utf8(&header[148..154]).unwrap();
        assert_eq!(u32::from_str_radix(told, 8).unwrap(), blank + 8 * u32::from(b' '));
        assert_eq!(&header[156..158], b"0\0");
    }

    #[test]
    fn an_archive_is_whole_blocks() {
        let archive = tar(&[("a", 0o644, b"x"), ("b", 0o644, &[1; BLOCK])]).unwrap();
        assert_eq!(archive.len(), 6 * BLOCK);
    }
}
