//! `aws-cni`: reads the environment and standard input once, runs one call, prints its answer.

use std::io::{Read, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use cni_plugin::Outcome;
use cni_spec::CniError;

/// musl's allocator maps and unmaps memory dozens of times in a call this short; this one takes 64 KiB and keeps them.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// No configuration is longer: Kubernetes limits a pod's annotations to 256 KiB, which escaping may multiply.
const STDIN_MAX: u64 = 4 << 20;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    let outcome = cni_plugin::run(
        |name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()),
        read_stdin,
    );
    match outcome {
        Outcome::Silent => ExitCode::SUCCESS,
        Outcome::Answer(text) => print(&text),
        Outcome::About(text) => {
            // A person started the program; there is nobody to tell when even this fails.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::SUCCESS
        }
        Outcome::Failure(error) => {
            print(&error.to_json());
            ExitCode::FAILURE
        }
    }
}

fn read_stdin() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(STDIN_MAX + 1).read_to_end(&mut text)? as u64;
    if read > STDIN_MAX {
        return Err(std::io::Error::other(format!("longer than {STDIN_MAX} bytes")));
    }
    Ok(text)
}

/// An answer that cannot be delivered is a failure: the runtime must not believe in a pod it was not told about.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A runtime shows the error object to people; a back trace on standard error reaches nobody.
#[expect(
    clippy::exit,
    reason = "the process must not go on, and must not abort without an answer"
)]
fn report_panic(info: &PanicHookInfo<'_>) {
    print(&CniError::internal(format!("aws-cni failed by a bug: {info}")).to_json());
    std::process::exit(1);
}
