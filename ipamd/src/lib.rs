//! The daemon's library part: everything but `main`, so that tests can use it.
//!
//! Owns the I/O around `ipam-core`: one owner task holds the core, executors do what it asks, servers pass requests on.
//! Invariant: no decision about addresses is made here.

pub mod aborts;
pub mod audit;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_plane;
pub mod exec;
pub mod files;
pub mod log;
pub mod metadata;
pub mod monitor;
pub mod observe;
pub mod owner;
pub mod paths;
pub mod repair;
pub mod run;
pub mod serve;
pub mod takeover;
