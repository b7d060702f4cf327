//! The pool as its shell sees it: events in, actions out, with a node that answers as told.

mod adds;
mod dels;
mod enis;
mod files;
mod node;
mod restarts;
