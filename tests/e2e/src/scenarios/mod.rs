//! The end-to-end scenarios, by name. Each runs in a sandbox of its own.
