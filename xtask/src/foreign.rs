//! Foreign clients against `vpc-sim`: boto3 and awscli for the EC2 API, kubectl and client-go for the Kubernetes API.
//!
//! Owns the Python environment and Go's caches, which lie under the target directory; the environment is made anew only when its
//! requirements change. The suites themselves start and end the simulators they talk to. Needs no root, but for installing
//! `python3-venv` where Debian leaves it out. Invariant: a suite that cannot run fails, and says what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::builds;
use crate::cli::Lanes;
use crate::context::Context;
use crate::run::{self, Deadline};
use crate::setup;
use crate::steps::Step;

/// boto3 and awscli.
const EC2: &str = "tests/foreign/ec2";
/// kubectl.
const KUBE: &str = "tests/foreign/kube";
/// The program with client-go's informers.
const INFORMER: &str = "tests/foreign/informer";
/// Where Go is when no search path leads to it.
const GO: &str = "/usr/local/go/bin/go";
/// What the suites need, with versions and hashes.
const REQUIREMENTS: &str = "tests/foreign/ec2/requirements.txt";
/// The environment, below the target directory.
const VENV: &str = "tools/foreign-venv";
/// Copy of the requirements that an environment was made from, written when it was complete.
const STAMP: &str = "made-from.txt";
/// Whether an interpreter is new enough for what the requirements name.
const IS_NEW_ENOUGH: &str = "import sys; sys.exit(sys.version_info < (3, 11))";

/// The step of `cargo xtask test`. Most of the time is pip's, once.
pub(crate) fn step() -> Step {
    Step::new("foreign", 10, all)
}

/// `cargo xtask foreign`.
pub(crate) fn steps(lanes: Lanes) -> Vec<Step> {
    let mut steps = vec![step()];
    if lanes == Lanes::Slow {
        steps.push(informers());
    }
    steps
}

/// A failure in one suite does not keep the other from running.
fn all(context: &Context, deadline: Deadline) -> Result<()> {
    let built = builds::build(context, &["-p", "vpc-sim", "--bins"], deadline)?;
    let simulator = built.get("vpc-sim").context("the build made no executable vpc-sim")?;
    let venv = venv(context, simulator, deadline)?;
    let ec2 = run::check(&mut pytest(context, &venv, simulator, EC2), deadline);
    let kube = match context.find("kubectl") {
        Some(kubectl) => {
            let mut suite = pytest(context, &venv, simulator, KUBE);
            run::check(suite.arg("--kubectl").arg(kubectl), deadline)
        }
        None => Err(anyhow!(
            "kubectl is not installed: nobody foreign judged the Kubernetes API"
        )),
    };
    match (ec2, kube) {
        (Err(first), Err(second)) => bail!("{first:#}; {second:#}"),
        (first, second) => first.and(second),
    }
}

fn pytest(context: &Context, venv: &Path, simulator: &Path, suite: &str) -> Command {
    let mut pytest = context.program(venv.join("bin/python"));
    pytest
        .args(["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", suite])
        .arg("--vpc-sim")
        .arg(simulator)
        .arg("--basetemp")
        .arg(venv.with_file_name("foreign-tmp"))
        // Nothing is written into the repository.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    pytest
}

/// client-go's informers. A step of the slow lane: the first build of client-go takes minutes of processor time.
pub(crate) fn informers() -> Step {
    Step::new("informers", 20, |context, deadline| {
        let built = builds::build(context, &["-p", "vpc-sim", "--bins"], deadline)?;
        let simulator = built.get("vpc-sim").context("the build made no executable vpc-sim")?;
        let venv = venv(context, simulator, deadline)?;
        let go = context
            .find("go")
            .or_else(|| Some(PathBuf::from(GO)).filter(|go| go.is_file()))
            .with_context(|| format!("the informers need Go, in the search path or as {GO}"))?;
        let tools = venv.parent().unwrap_or(&venv);
        let informer = tools.join("informer");
        let mut build = context.program(go);
        build
            .args(["build", "-o"])
            .arg(&informer)
            .arg(".")
            .current_dir(context.root.join(INFORMER))
            .env("GOCACHE", tools.join("go-build"))
            .env("GOMODCACHE", tools.join("go-modules"))
            .env("GOFLAGS", "-modcacherw");
        run::check(&mut build, deadline)?;
        let mut suite = pytest(context, &venv, simulator, KUBE);
        run::check(suite.arg("--informer").arg(informer), deadline)
    })
}

/// The environment, complete. The built simulator tells where the target directory is.
fn venv(context: &Context, simulator: &Path, deadline: Deadline) -> Result<PathBuf> {
    let target = simulator
        .ancestors()
        .nth(2)
        .with_context(|| format!("{} lies in no target directory", simulator.display()))?;
    let venv = target.join(VENV);
    let wanted = fs::read(context.root.join(REQUIREMENTS)).with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    if fs::read(venv.join(STAMP)).is_ok_and(|made_from| made_from == wanted) {
        return Ok(venv);
    }
    println!("making a Python environment in {}", venv.display());
    let mut make = context.program(interpreter(context, deadline)?);
    make.args(["-m", "venv", "--clear"]).arg(&venv);
    run::check(&mut make, deadline)?;
    let mut install = context.program(venv.join("bin/python"));
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--require-hashes", "--only-binary", ":all:", "-r", REQUIREMENTS]);
    run::check(&mut install, deadline).context("the Python packages cannot be installed")?;
    fs::write(venv.join(STAMP), wanted).with_context(|| format!("cannot write into {}", venv.display()))?;
    Ok(venv)
}

/// A Python that can make environments.
fn interpreter(context: &Context, deadline: Deadline) -> Result<PathBuf> {
    let python = context.find("python3").context("python3 is not in the search path")?;
    let runs = |program: &str| -> Result<bool> {
        let mut command = context.program(&python);
        command.args(["-c", program]);
        Ok(run::status(&mut command, deadline)?.success())
    };
    ensure!(runs(IS_NEW_ENOUGH)?, "{} is older than Python 3.11", python.display());
    // Debian's python3 has the module venv, but not what it needs to make an environment with pip in it.
    if !runs("import ensurepip")? {
        setup::install(context, "Python's module ensurepip", &["python3-venv"])?;
        if !runs("import ensurepip")? {
            bail!("{} still cannot make environments with pip", python.display());
        }
    }
    Ok(python)
}
