//! Results on standard output, errors and logs on standard error: the only place that prints.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::Context;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::cli::{Global, LogFormat};
use crate::error::{Class, Failure, class_of, describe};

/// Sends log lines to standard error, as verbose as asked. `RUST_LOG` overrides.
pub fn init_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        // What the search for credentials and regions tries in vain, and what the certificate verifier says, is told by
        // the error if it matters.
        (true, _) => "error,aws_config=off,rustls_platform_verifier=off",
        (false, 0) => {
            "pgslice=info,warn,aws_config=off,aws_runtime=error,aws_smithy_runtime=error,rustls_platform_verifier=off"
        }
        (false, 1) => "pgslice=debug,info,rustls_platform_verifier=off",
        // Below info these show requests, signatures and session tokens.
        (false, _) => {
            "trace,aws_config=info,aws_runtime=info,aws_sdk_s3=info,aws_sdk_sso=info,aws_sdk_ssooidc=info,aws_sdk_sts=info,\
             aws_sigv4=info,aws_smithy_http_client=info,aws_smithy_runtime=info,aws_smithy_runtime_api=info,h2=info,\
             hyper=info,hyper_util=info,reqwest=info,rustls=info"
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process is refused; the first one stays.
    let _ = match global.log_format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => {
            builder.without_time().with_target(global.verbose > 0).with_ansi(std::io::stderr().is_terminal()).try_init()
        }
    };
}

/// Prints a result: as one JSON document, or as lines for people unless they asked for quiet.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away (`| head`) is not an error.
pub fn print(global: &Global, document: &impl Serialize, lines: &[String]) -> anyhow::Result<()> {
    if global.quiet && !global.json {
        return Ok(());
    }
    let mut text = if global.json { serde_json::to_string_pretty(document)? } else { lines.join("\n") };
    if text.is_empty() {
        return Ok(());
    }
    text.push('\n');
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Standard output, for bytes that are no text.
///
/// # Errors
/// Class Usage when it is a terminal; the system's.
pub fn data_output() -> anyhow::Result<File> {
    let output = std::io::stdout();
    if output.is_terminal() {
        return Err(Failure::new(Class::Usage, "standard output is a terminal, and the object is not text")
            .next("write it to a file or a program: pgslice get KEY > FILE")
            .into());
    }
    Ok(File::from(output.as_fd().try_clone_to_owned().context("cannot write to standard output")?))
}

/// Prints an error for people or, with `--log-format json`, as one JSON line.
pub fn print_error(global: &Global, error: &anyhow::Error) {
    let text = match global.log_format {
        LogFormat::Text => format!("pgslice: {}", describe(error)),
        LogFormat::Json => serde_json::json!({
            "level": "ERROR",
            "message": describe(error),
            "exit_code": class_of(error).exit_code(),
        })
        .to_string(),
    };
    // Nothing is left to tell it to if standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
