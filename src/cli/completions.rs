//! `zoneward completions`: for bash, zsh, fish.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Outcome, render};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "zoneward", &mut script);
    render::line(String::from_utf8(script)?.trim_end());
    Ok(Outcome::Done)
}
