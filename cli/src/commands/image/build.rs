//! `banger image build`

use crate::context::Context;
use crate::error::Outcome;
use crate::text;
use banger_core::protocol::Call;
use banger_core::protocol::image::{Image, ImageBuild};
use banger_core::{ImageName, escape};
use clap::Args;

/// Build an image, where it is not complete and up to date
///
/// `banger vm run` and `banger vm create` do so by themselves.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger image build")]
pub struct Build {
    /// Which [default: base]
    image: Option<ImageName>,
    /// Build it even where it is complete and up to date
    #[arg(long)]
    force: bool,
}

impl Build {
    pub fn run(self, context: &Context) -> Outcome {
        let request = ImageBuild {
            name: self.image,
            force: self.force,
        };
        context.answer(Call::ImageBuild(request), |image: &Image| {
            format!(
                "image {}: {}, {}, {}\n",
                image.name,
                escape::text(image.base.as_bytes()),
                text::plural(image.packages, "package"),
                text::bytes(image.disk_bytes),
            )
        })
    }
}
