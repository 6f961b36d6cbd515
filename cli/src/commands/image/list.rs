//! `banger image list`

use crate::context::{Context, NONE};
use crate::error::Outcome;
use crate::table::Table;
use crate::text;
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::image::ImageList;
use clap::Args;

/// List the images that are complete
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger image list")]
pub struct List {}

impl List {
    pub fn run(self, context: &Context) -> Outcome {
        let reply = context.call::<ImageList>(Call::ImageListCall(NONE))?;
        context.write(&reply, |reply| {
            let mut table = Table::new(["NAME", "BASE", "PACKAGES", "SIZE", "AGE"]);
            for image in &reply.images {
                table.row([
                    image.name.to_string(),
                    escape::text(image.base.as_bytes()),
                    image.packages.to_string(),
                    text::bytes(image.disk_bytes),
                    text::age(image.built_at_ms),
                ]);
            }
            table.render(context.output.style)
        })?;
        if reply.value.images.is_empty() {
            context.output.hint("no image yet: `banger image build`");
        }
        Ok(0)
    }
}
