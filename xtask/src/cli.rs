//! Names, options and help of the commands. No behaviour.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Which suites run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// Those that every change must pass.
    Merge,
    /// Also those that take long.
    Slow,
}

/// What `lint` does beyond its own checks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extras {
    /// Install cargo-deny when it is missing.
    pub(crate) install: bool,
    /// Compare the dependencies with the advisory database, which is fetched from github.com.
    pub(crate) advisories: bool,
}

/// The command line.
pub(crate) fn command() -> Command {
    Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .about("Everything one does in this repository")
        .disable_help_subcommand(true)
        .subcommand(
            passed_on("demo", "A VPC on this machine, pods on two nodes, every pair pinged")
                .after_help("--keep leaves everything up, to look around. Other arguments go to the demo as well."),
        )
        .subcommand(Command::new("test").about("All tests, with what they need").arg(slow()))
        .subcommand(
            Command::new("e2e")
                .about("The end-to-end suite, against our binaries or others")
                .arg(path("plugin", "CNI plugin to test instead of aws-cni"))
                .arg(path("daemon", "daemon to test instead of ipamd")),
        )
        .subcommand(
            Command::new("foreign")
                .about("boto3, awscli and kubectl against the simulated VPC")
                .arg(slow()),
        )
        .subcommand(
            passed_on("bench", "What our binaries cost, next to the least that is possible and to a plugin in Go").after_help(
                "--quick takes fewer samples, --markdown prints the tables for docs/performance.md; --help of vpc-bench has more.",
            ),
        )
        .subcommand(
            passed_on(
                "runtimes",
                "containerd, podman, cnitool and grpcurl call plugin and daemon (as root)",
            )
            .after_help("Words choose scenarios by their names."),
        )
        .subcommand(
            passed_on(
                "sim",
                "The address pool in virtual time: --seeds N [--steps M] [--seed S]",
            )
            .after_help(
                "The last line is `N seeds, M steps each, K violations`. --goals [--slow]: the pool's policy beside the reference's formulas; \
                 --grid [--exhaustive]: every combination of targets; --table: the table of docs/pool.md, --write puts it there.",
            ),
        )
        .subcommand(passed_on(
            "mutants",
            "Deliberate defects of the pool that the simulation must catch",
        ))
        .subcommands(long_suites())
        .subcommand(extra(
            Command::new("lint").about("Format, clippy, tidy, licences, documentation"),
        ))
        .subcommand(Command::new("docs").about("rustdoc of all crates, warnings denied"))
        .subcommand(Command::new("tidy").about("Rules of the repository that no other tool checks"))
        .subcommand(Command::new("gen-limits").about("Write the table of instance limits and its provenance"))
        .subcommand(Command::new("gen-docs").about("Write the table of variables in docs/configuration.md"))
        .subcommand(extra(
            Command::new("ci")
                .about("Everything a merge needs: lint, test")
                .arg(slow()),
        ))
}

/// Suites of their own, whose scenarios words select by name.
fn long_suites() -> [Command; 4] {
    [
        passed_on(
            "fuzz",
            "Bytes that nobody should send, for everything that reads bytes of others: [--seconds N] [--seed S]",
        )
        .after_help("Words are names of targets. --reproduce FILE feeds one file; --help of vpc-fuzz has more."),
        passed_on(
            "matrix",
            "By which ENI and from which address packets leave, under every combination of the variables that decide it",
        )
        .after_help("Words select scenarios by their names; --list shows them."),
        passed_on(
            "storm",
            "Disorderly callers and killed programs: [--minutes N] [--seed S] [--slow]",
        )
        .after_help("Words select storms by their names; --list shows them."),
        Command::new("upgrade").about("From the reference to us and back, under a thousand connections"),
    ]
}

/// Values of a repeated argument.
pub(crate) fn texts(arguments: &ArgMatches, name: &str) -> Vec<String> {
    arguments
        .get_many::<String>(name)
        .map(|values| values.cloned().collect())
        .unwrap_or_default()
}

/// The lanes that `--slow` chooses.
pub(crate) fn lanes(arguments: &ArgMatches) -> Lanes {
    if arguments.get_flag("slow") {
        Lanes::Slow
    } else {
        Lanes::Merge
    }
}

/// The options of `lint`.
pub(crate) fn extras(arguments: &ArgMatches) -> Extras {
    Extras {
        install: arguments.get_flag("install"),
        advisories: arguments.get_flag("advisories"),
    }
}

fn passed_on(name: &'static str, about: &'static str) -> Command {
    let rest = Arg::new("args")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_name("ARGS");
    Command::new(name).about(about).arg(rest)
}

fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("PATH").help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn slow() -> Arg {
    flag(
        "slow",
        "Also the slow lanes: the simulation with 10,000 seeds, storms with all variants, informers of client-go",
    )
}

fn extra(command: Command) -> Command {
    command
        .arg(flag("install", "Install cargo-deny if it is missing (takes minutes)"))
        .arg(flag("advisories", "Also ask the advisory database on github.com"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        assert!(command().get_subcommands().count() >= 11);
    }

    #[test]
    fn options_of_the_demo_are_passed_on() {
        let matches = command().get_matches_from(["xtask", "demo", "--keep", "x"]);
        let (_, demo) = matches.subcommand().unwrap();
        assert_eq!(texts(demo, "args"), ["--keep", "x"]);
    }
}
