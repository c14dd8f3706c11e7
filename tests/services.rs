//! Tests that need PostgreSQL. One binary, so that its clusters start once; see tests/README.md.

mod cluster;
mod datanommer;
mod harness;
mod pg;
mod scene;
mod store;
