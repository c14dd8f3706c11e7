//! Tests that need PostgreSQL. One binary, so that its clusters start once; see tests/README.md.

mod cluster;
mod datanommer;
mod export;
mod export_content;
mod export_crashes;
mod export_locks;
mod export_refusals;
mod export_tables;
mod export_windows;
mod faults;
mod harness;
mod in_process;
mod pg;
mod proxy;
mod published;
mod readme;
mod requests;
mod scene;
mod store;
mod wire;
