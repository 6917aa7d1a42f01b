//! Parse, dispatch, exit code.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    zoneward::cli::run(zoneward::cli::Arguments::of_process()).await
}
