//! System programs that tests judge our work by. Nothing that we ship needs them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::run::{self, Deadline};

/// A program and the Debian package that brings it.
const NEEDED: [(&str, &str); 6] = [
    ("nft", "nftables"),
    ("iptables-nft", "iptables"),
    ("iptables-legacy", "iptables"),
    ("ip", "iproute2"),
    ("strace", "strace"),
    ("python3", "python3"),
];

/// What steps need that run as root only: see [`Step::as_root`](crate::steps::Step::as_root).
const NEEDED_AS_ROOT: [(&str, &str); 4] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("podman", "podman"),
    // No program for people, so in no search path.
    ("/usr/lib/cni/loopback", "containernetworking-plugins"),
];

/// One run of apt-get.
const APT: Duration = Duration::from_secs(5 * 60);

/// Installs what is missing when we may, else says what to install.
pub(crate) fn programs(context: &Context) -> Result<()> {
    let as_root: &[(&str, &str)] = if is_root()? { &NEEDED_AS_ROOT } else { &[] };
    let missing: Vec<_> = NEEDED
        .iter()
        .chain(as_root)
        .filter(|(program, _)| context.find(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    install(context, &programs.join(", "), &packages)
}

/// Installs packages when we may, else says who needs them for what.
pub(crate) fn install(context: &Context, needed: &str, packages: &[&str]) -> Result<()> {
    if !is_root()? || context.find("apt-get").is_none() {
        bail!(
            "the tests need {needed}; on Debian and Ubuntu: sudo apt-get install {}",
            packages.join(" ")
        );
    }
    println!("installing {}", packages.join(" "));
    apt(context, &["update", "-qq"])?;
    let mut install = vec!["install", "-qq", "-y", "--no-install-recommends"];
    install.extend(packages);
    apt(context, &install)
}

fn apt(context: &Context, arguments: &[&str]) -> Result<()> {
    let mut command = context.program("apt-get");
    // A new machine often upgrades itself meanwhile, and holds the lock.
    command.args(["-o", "DPkg::Lock::Timeout=180"]);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    run::check(&mut command, Deadline::after(APT))
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> Result<bool> {
    let own = fs::metadata("/proc/self").context("cannot read /proc/self")?;
    Ok(own.uid() == 0)
}
