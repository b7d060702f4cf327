//! `vpc-floor`: the least that an ADD, a DEL or a health probe can cost.
//!
//! `vpc-floor add|del|check SOCKET [NAMESPACE NAME CONTAINER NETNS VETH]`

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use bench_floor::pod::{self, Pod};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when even this fails.
            let _ = writeln!(io::stderr(), "vpc-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().unwrap_or_default();
    let (verb, socket) = (word(), word());
    let socket = Path::new(&socket);
    let pod = Pod {
        namespace: word(),
        name: word(),
        container_id: word(),
        netns: word(),
        host_veth: word(),
    };
    match verb.as_str() {
        "add" => {
            let granted = pod::add(socket, &pod)?;
            io::stdout().write_all(format!("{} {}\n", granted.address, granted.table).as_bytes())
        }
        "del" => pod::del(socket, &pod),
        "check" => pod::check(socket),
        _ => Err(io::Error::other("expected add, del or check")),
    }
}
