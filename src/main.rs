//! Parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    zoneward::cli::run(zoneward::cli::Arguments::parse()).await
}
