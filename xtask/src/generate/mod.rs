//! Files that are made from others: what each should contain, and the commands that write it.

pub(crate) mod docs;
pub(crate) mod limits;
