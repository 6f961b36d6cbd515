//! `banger plugin show`

use crate::context::Context;
use crate::error::Outcome;
use crate::{table, text};
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::plugin::{Plugin, PluginOrigin, PluginRef};
use clap::Args;

/// Show a plugin
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger plugin show git")]
pub struct Show {
    /// Its name
    plugin: String,
}

impl Show {
    pub fn run(self, context: &Context) -> Outcome {
        let request = PluginRef { name: self.plugin };
        context.answer(Call::PluginGet(request), |plugin: &Plugin| {
            let safe = |text: &str| escape::text(text.as_bytes());
            let origin = match &plugin.origin {
                PluginOrigin::Embedded => "embedded".to_owned(),
                PluginOrigin::File { path } if plugin.overrides => {
                    format!("{}, in place of the embedded one", safe(path))
                }
                PluginOrigin::File { path } => safe(path),
            };
            let error = plugin.error.as_ref();
            table::pairs(
                &[
                    ("name", safe(&plugin.name)),
                    ("version", safe(&plugin.version)),
                    ("summary", safe(&plugin.summary)),
                    ("homepage", safe(&plugin.homepage)),
                    ("origin", origin),
                    ("interfaces", safe(&plugin.interfaces.join(", "))),
                    ("provides", safe(&plugin.provides.join(", "))),
                    ("size", text::bytes(plugin.bytes)),
                    ("sha256", safe(&plugin.sha256)),
                    ("error", error.map_or(String::new(), |e| safe(&e.message))),
                    ("hint", error.map_or(String::new(), |e| safe(&e.hint))),
                ],
                context.output.style,
            )
        })
    }
}
