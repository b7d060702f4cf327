//! The only process of a pod in tests: keeps the sandbox alive, does nothing, needs no file.

fn main() {
    loop {
        // A thread may be unparked by nobody, which the standard library does not exclude.
        std::thread::park();
    }
}
