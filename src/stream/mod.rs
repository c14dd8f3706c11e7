//! Full dumps and other streams: whole objects below `full/`, to and from the store without a local copy.
//!
//! [`put`](mod@put) streams a command's output into one object and records full dumps in the head; [`child`] is that
//! command as a process; [`get`](mod@get) is the inverse.

pub mod child;
pub mod get;
pub mod put;

pub use get::{GetReport, Proof, get};
pub use put::{Input, PutReport, Request, Subject, put};
