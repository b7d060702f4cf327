//! Runs each test in a process of its own, with a time limit.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use vpc_fabric::{Entry, Sandbox, SandboxConfig, sandbox};

/// Hard limit of one test; the longest takes two seconds.
const TEST_LIMIT: Duration = Duration::from_secs(60);
/// Tests at a time: most of their time is waiting for silence.
const PARALLEL: usize = 4;
/// "nobody": owns nothing that a test could need.
const UNPRIVILEGED: u32 = 65_534;

/// A test that runs inside a sandbox.
pub(crate) struct InsideTest {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Sandbox),
}

/// A test that runs outside and looks at what sandboxes leave. It starts them by [`helper`].
pub(crate) struct OutsideTest {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Mode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Root,
    Unprivileged,
}

impl Mode {
    fn all() -> Vec<Self> {
        if geteuid().is_root() {
            vec![Self::Root, Self::Unprivileged]
        } else {
            vec![Self::Unprivileged]
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Unprivileged => "unprivileged",
        }
    }

    fn parse(word: &str) -> Self {
        if word == "root" { Self::Root } else { Self::Unprivileged }
    }
}

pub(crate) fn main(inside: &[InsideTest], outside: &[OutsideTest]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--inside", name, mode] => run_inside(inside, name, Mode::parse(mode)),
        ["--outside", name, mode] => run_outside(outside, name, Mode::parse(mode)),
        ["--helper", name, mode, rest @ ..] => crate::lifetime::helper_main(name, Mode::parse(mode), rest),
        words => run_all(inside, outside, words),
    }
}

/// This test program, told to do something else.
pub(crate) fn helper(name: &str, mode: Mode) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.args(["--helper", name, mode.word()]);
    command
}

/// Gives up root for good, as a login of another user would.
pub(crate) fn become_mode(mode: Mode) {
    if mode == Mode::Unprivileged && geteuid().is_root() {
        setgroups(&[]).expect("root may drop groups");
        setgid(Gid::from_raw(UNPRIVILEGED)).expect("root may change its gid");
        setuid(Uid::from_raw(UNPRIVILEGED)).expect("root may change its uid");
        // Changing the uid makes /proc/self root's, which an ordinary login does not have.
        prctl::set_dumpable(true).expect("always permitted");
    }
}

fn run_inside(tests: &[InsideTest], name: &str, mode: Mode) -> ExitCode {
    let test = tests
        .iter()
        .find(|test| test.name == name)
        .expect("the runner names existing tests");
    become_mode(mode);
    match sandbox::enter(&SandboxConfig::default()).expect("a sandbox can be made") {
        Entry::Ended(status) => ExitCode::from(status),
        Entry::Inside(sandbox) => {
            (test.run)(&sandbox);
            ExitCode::SUCCESS
        }
    }
}

fn run_outside(tests: &[OutsideTest], name: &str, mode: Mode) -> ExitCode {
    (tests
        .iter()
        .find(|test| test.name == name)
        .expect("the runner names existing tests")
        .run)(mode);
    ExitCode::SUCCESS
}

fn run_all(inside: &[InsideTest], outside: &[OutsideTest], words: &[&str]) -> ExitCode {
    let selection = Selection::parse(words);
    let inside = inside.iter().map(|test| ("--inside", test.name));
    let all: Vec<_> = inside
        .chain(outside.iter().map(|test| ("--outside", test.name)))
        .collect();
    let all: Vec<_> = all.into_iter().filter(|(_, name)| selection.takes(name)).collect();
    if words.contains(&"--list") {
        all.iter().for_each(|(_, name)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let runs: Vec<_> = Mode::all()
        .into_iter()
        .flat_map(|mode| all.iter().map(move |test| (*test, mode)))
        .collect();
    let queue = Mutex::new(runs.iter());
    let failures = AtomicUsize::new(0);
    let take = || queue.lock().expect("no worker panics with the lock").next();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(((side, name), mode)) = take() {
                    failures.fetch_add(usize::from(!run_one(side, name, *mode)), Ordering::Relaxed);
                }
            });
        }
    });
    let failures = failures.into_inner();
    println!("\n{} tests as {:?}, {failures} failures", all.len(), Mode::all());
    ExitCode::from(u8::from(failures > 0))
}

/// Which tests the command line asks for.
struct Selection<'a> {
    wanted: Vec<&'a str>,
    skipped: Vec<&'a str>,
}

impl<'a> Selection<'a> {
    fn parse(words: &[&'a str]) -> Self {
        let mut selection = Self {
            wanted: Vec::new(),
            skipped: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--skip" => selection.skipped.extend(words.next()),
                option if option.starts_with('-') => {}
                name => selection.wanted.push(name),
            }
        }
        selection
    }

    fn takes(&self, name: &str) -> bool {
        let wanted = self.wanted.is_empty() || self.wanted.iter().any(|word| name.contains(word));
        wanted && !self.skipped.iter().any(|word| name.contains(word))
    }
}

fn run_one(side: &str, name: &str, mode: Mode) -> bool {
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command
        .args([side, name, mode.word()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("this program can be started again");
    let (status, output) = wait_with_limit(child);
    let good = status.is_some_and(|status| status.success());
    let verdict = if good { "ok" } else { "FAILED" };
    println!(
        "test {name} ({}) ... {verdict} in {} ms",
        mode.word(),
        start.elapsed().as_millis()
    );
    if !good {
        let how = status.map_or_else(|| format!("no end within {TEST_LIMIT:?}"), |status| status.to_string());
        println!("--- {how}\n{output}---");
        std::io::stdout().flush().expect("stdout is open");
    }
    good
}

/// `None` if the time limit passed. All output, both streams.
fn wait_with_limit(mut child: Child) -> (Option<ExitStatus>, String) {
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (done, ended) = channel();
    std::thread::scope(|scope| {
        let out = scope.spawn(move || read_all(&mut stdout));
        let err = scope.spawn(move || read_all(&mut stderr));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pids are positive"));
        let guard = scope.spawn(move || {
            let in_time = ended.recv_timeout(TEST_LIMIT).is_ok();
            if !in_time {
                // The end of the supervisor ends its sandbox.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            in_time
        });
        let status = child.wait().expect("a child can be waited for");
        let _ = done.send(());
        let in_time = guard.join().expect("the guard does not panic");
        let text = out.join().expect("no panic") + &err.join().expect("no panic");
        (in_time.then_some(status), text)
    })
}

fn read_all(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Polls a condition until it holds; panics with `what` after `limit`.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    let (_never, tick) = channel::<()>();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        let _ = tick.recv_timeout(Duration::from_millis(5));
    }
}
