//! The suite of real callers: container runtimes and tools of others, installed here in the versions that the tests know.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::builds::{self, Product};
use crate::context::Context;
use crate::run::{self, Deadline};
use crate::setup;
use crate::steps::{self, Step};

/// The executable of the suite.
const SUITE: &str = "vpc-runtimes";
/// Where Go's own installer puts it, which is in nobody's search path by itself.
const GO: &str = "/usr/local/go/bin/go";
/// grpcurl and all it needs, on two busy cores.
const INSTALL: Duration = Duration::from_secs(8 * 60);

/// A program in Go that Debian has not.
#[derive(Debug)]
struct Tool {
    name: &'static str,
    module: &'static str,
    version: &'static str,
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "cnitool",
        module: "github.com/containernetworking/cni/cnitool",
        version: "v1.3.0",
    },
    Tool {
        name: "grpcurl",
        module: "github.com/fullstorydev/grpcurl/cmd/grpcurl",
        version: "v1.9.4",
    },
];

/// The suite as a step of the tests.
pub(crate) fn step() -> Step {
    Step::as_root("runtimes", 15, |context, deadline| suite(context, &[], deadline))
}

/// `cargo xtask runtimes`; words choose scenarios by name.
pub(crate) fn by_hand(context: &Context, words: &[String]) -> Result<ExitCode> {
    ensure!(setup::is_root()?, "container runtimes need root: run it with sudo");
    setup::programs(context)?;
    let words = words.to_vec();
    let step = Step::as_root("runtimes", 90, move |context, deadline| {
        suite(context, &words, deadline)
    });
    steps::report(context, vec![step])
}

fn suite(context: &Context, words: &[String], deadline: Deadline) -> Result<()> {
    let product = Product::build(context, deadline)?;
    let target = Context::static_target();
    let selection = ["-p", "pause", "--bins", "--profile", "plugin", "--target", &target];
    let pause = builds::build(context, &selection, deadline)?;
    let pause = pause.get("pause").context("the build made no executable pause")?;
    // The daemon lies in a directory of the target directory named for its profile.
    let tools = product
        .daemon
        .ancestors()
        .nth(2)
        .context("a target directory")?
        .join("tools");
    let mut command = context.program(product.executable(SUITE)?);
    command.arg("--plugin").arg(&product.plugin);
    command.arg("--daemon").arg(&product.daemon);
    command.arg("--pause").arg(pause);
    for tool in &TOOLS {
        command
            .arg(format!("--{}", tool.name))
            .arg(install(context, tool, &tools, deadline)?);
    }
    command.args(words);
    run::check(&mut command, deadline)
}

/// The program in this version; a directory for each version says whether it is there.
fn install(context: &Context, tool: &Tool, tools: &Path, deadline: Deadline) -> Result<PathBuf> {
    let directory = tools.join(format!("{}-{}", tool.name, tool.version));
    let program = directory.join(tool.name);
    if program.is_file() {
        return Ok(program);
    }
    println!("installing {} {}", tool.name, tool.version);
    // Beside its place first: what is cut off in the middle must not count as there.
    let unfinished = directory.with_extension("unfinished");
    let mut command = context.program(go(context)?);
    command
        .args(["install", &format!("{}@{}", tool.module, tool.version)])
        .env("CGO_ENABLED", "0")
        .env("GOBIN", &unfinished);
    run::check(&mut command, deadline.sooner(INSTALL))?;
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let made = unfinished.join(tool.name);
    fs::rename(&made, &program).with_context(|| format!("go install made no {}", made.display()))?;
    Ok(program)
}

fn go(context: &Context) -> Result<PathBuf> {
    let usual = Some(PathBuf::from(GO)).filter(|program| program.is_file());
    context.find("go").or(usual).context(
        "the suite needs Go 1.24 or newer for cnitool and grpcurl: https://go.dev/dl (golang-go of Debian 12 is too old)",
    )
}
