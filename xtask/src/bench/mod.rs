//! stub
#[derive(Debug, clap::Args)]
pub struct Arguments {}
pub fn run(_: &Arguments, _: &crate::process::Signals) -> anyhow::Result<()> {
    anyhow::bail!("to come")
}
