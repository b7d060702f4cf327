//! `vpc-launch`: reads a job list from standard input, runs it, answers on standard output.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use bench_floor::launch;

fn main() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when even this fails.
            let _ = writeln!(io::stderr(), "vpc-launch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let list = launch::parse_list(&text).map_err(io::Error::other)?;
    drop(text);
    let (runs, total) = launch::run(&list)?;
    let mut answer: String = runs.iter().map(launch::line).collect();
    answer.push_str(&format!("total {}\n", total.as_nanos()));
    io::stdout().write_all(answer.as_bytes())
}
