//! An S3 server for tests and the demo: in memory, on the loopback interface, and as strict as AWS.
//!
//! HTTP, signatures and XML are the `s3s` crate's; the rules are here. Each rule names its source, where "S3 API" is
//! the *Amazon S3 API Reference* and "S3 guide" the *Amazon S3 User Guide*. Where a flag bends a rule, it does as some
//! other server does, so that a client's probing can be tested. What is not written here is answered with 501
//! NotImplemented; nothing that a client asks for is silently ignored.
//!
//! The first line on standard output is `listening on http://ADDRESS:PORT`.

mod access;
mod arguments;
mod attributes;
mod backend;
mod checksums;
mod conditions;
mod listing;
mod objects;
mod service;
mod uploads;
mod urls;

use std::io::{self, Read, Write};
use std::process;
use std::thread;

use anyhow::Context;
use clap::Parser;

use crate::arguments::Arguments;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let address = arguments.listen;
    anyhow::ensure!(address.ip().is_loopback(), "{address} is not on the loopback interface: this server is for tests");
    if arguments.until_stdin_closes {
        thread::spawn(|| {
            // Whatever ends the input, an error too, ends the server.
            let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
            process::exit(0);
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .context("start the asynchronous runtime")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr().context("ask for the listener's address")?;
        let service = service::Service::new(&arguments)?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "listening on http://{address}").context("say where it listens")?;
        stdout.flush().context("say where it listens")?;
        drop(stdout);
        service.serve(listener).await
    })
}
