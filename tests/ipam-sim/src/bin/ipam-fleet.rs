//! `ipam-fleet`: see [`ipam_sim::fleet::cli`].

fn main() -> anyhow::Result<std::process::ExitCode> {
    ipam_sim::fleet::cli::main()
}
