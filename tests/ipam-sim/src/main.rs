//! `ipam-sim`: see [`ipam_sim::cli`].

fn main() -> anyhow::Result<std::process::ExitCode> {
    ipam_sim::cli::main()
}
