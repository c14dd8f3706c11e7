//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use crate::checksums::Algorithm;

/// An S3 server in memory, for tests
#[derive(Parser)]
#[command(name = "strict-s3")]
pub(crate) struct Arguments {
    /// A bucket that exists; may be repeated
    #[arg(long = "bucket", value_name = "NAME", required = true)]
    pub(crate) buckets: Vec<String>,
    /// A loopback address; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Objects of somebody else that each bucket holds from the start
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) foreign_objects: usize,
    #[command(flatten)]
    pub(crate) keys: Keys,
    /// Refuse signatures made for another region
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// A KMS key that exists; may be repeated
    #[arg(long = "kms-key", value_name = "ID")]
    pub(crate) kms_keys: Vec<String>,
    /// End when standard input ends, and so with the process that holds its other end
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
    /// Append a line `OPERATION key status` for every request before it is answered
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) dialect: Dialect,
}

/// Who may ask. The environment keeps secrets out of the list of processes.
#[derive(Args)]
pub(crate) struct Keys {
    /// The access key that may do everything
    #[arg(long, value_name = "KEY", env = "STRICT_S3_ACCESS_KEY")]
    pub(crate) access_key: String,
    /// Its secret
    #[arg(long, value_name = "SECRET", env = "STRICT_S3_SECRET_KEY", hide_env_values = true)]
    pub(crate) secret_key: String,
    /// An access key that may only read
    #[arg(long, value_name = "KEY", env = "STRICT_S3_READER_ACCESS_KEY", requires = "reader_secret_key")]
    pub(crate) reader_access_key: Option<String>,
    /// Its secret
    #[arg(
        long,
        value_name = "SECRET",
        env = "STRICT_S3_READER_SECRET_KEY",
        hide_env_values = true,
        requires = "reader_access_key"
    )]
    pub(crate) reader_secret_key: Option<String>,
}

/// Limits; the defaults are AWS's. Source: S3 guide, "Amazon S3 multipart upload limits".
#[derive(Args, Clone, Debug)]
pub(crate) struct Limits {
    /// Part numbers go from 1 to this
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) max_parts: i32,
    /// What every part but the last must hold
    #[arg(long, value_name = "BYTES", default_value_t = 5 << 20)]
    pub(crate) min_part_bytes: usize,
    /// Refuse parts of different sizes, the last one aside, as Cloudflare R2 does
    #[arg(long)]
    pub(crate) equal_parts: bool,
    /// What one page of a listing holds at most
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(crate) page_entries: usize,
}

/// Where other servers differ from AWS.
#[derive(Args, Clone, Debug)]
pub(crate) struct Dialect {
    /// Write whatever If-None-Match says, as Garage does
    #[arg(long)]
    pub(crate) ignore_if_none_match: bool,
    /// Write whatever If-Match says
    #[arg(long)]
    pub(crate) ignore_if_match: bool,
    /// Find that If-Match never holds, as Ceph does of ETags in quotes
    #[arg(long)]
    pub(crate) never_match: bool,
    /// Ignore both when a multipart upload is completed, as Ceph does
    #[arg(long)]
    pub(crate) ignore_conditions_on_complete: bool,
    /// Judge conditions, then wait, then write: of two racing writers both win, as with s3s-fs
    #[arg(long)]
    pub(crate) racy_conditions: bool,
    /// Answer 501 NotImplemented to a conditional write
    #[arg(long)]
    pub(crate) refuse_conditions: bool,
    /// A checksum that is not taken; may be repeated
    #[arg(long = "reject-checksum", value_name = "ALGORITHM")]
    pub(crate) rejected_checksums: Vec<Algorithm>,
    /// How it is rejected
    #[arg(long, value_name = "CODE", default_value = "not-implemented")]
    pub(crate) reject_with: Rejection,
    /// Answer 501 NotImplemented to DeleteObjects
    #[arg(long)]
    pub(crate) delete_singly: bool,
    /// Take checksums in the trailer of an aws-chunked body, which several servers refuse
    #[arg(long)]
    pub(crate) accept_trailers: bool,
}

/// The error code for a checksum that is not taken.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Rejection {
    /// 501, as Cloudflare R2
    NotImplemented,
    /// 400
    InvalidRequest,
}
