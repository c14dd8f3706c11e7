//! Tests that need PostgreSQL. One binary, so that its clusters start once; see tests/README.md.

mod cluster;
mod datanommer;
mod faults;
mod harness;
mod in_process;
mod pg;
mod readme;
mod requests;
mod scene;
mod store;
