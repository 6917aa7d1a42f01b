//! The executable as the image has it: linked to nothing. `make e2e` builds it so, and runs it in an empty root.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    zoneward::cli::run(zoneward::cli::Arguments::of_process()).await
}
