use super::Outcome;
use crate::telemetry::LogFormat;
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}
impl Arguments {
    pub(super) fn log_format(&self) -> LogFormat {
        LogFormat::Text
    }
}
pub(super) async fn run(_: Arguments) -> anyhow::Result<Outcome> {
    Ok(Outcome::Done)
}
