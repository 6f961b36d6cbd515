//! `banger plugin list`

use crate::context::{Context, NONE};
use crate::error::Outcome;
use crate::table::Table;
use banger_core::escape;
use banger_core::protocol::Call;
use banger_core::protocol::plugin::{Plugin, PluginList, PluginOrigin};
use clap::Args;

/// List the plugins
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger plugin list")]
pub struct List {}

impl List {
    pub fn run(self, context: &Context) -> Outcome {
        let reply = context.call::<PluginList>(Call::PluginListCall(NONE))?;
        context.write(&reply, |reply| {
            let mut table = Table::new(["NAME", "VERSION", "ORIGIN", "STATUS", "PROVIDES"]);
            for plugin in &reply.plugins {
                table.row([
                    escape::text(plugin.name.as_bytes()),
                    escape::text(plugin.version.as_bytes()),
                    origin(&plugin.origin),
                    status(plugin).into(),
                    escape::text(plugin.provides.join(", ").as_bytes()),
                ]);
            }
            table.render(context.output.style)
        })?;
        if reply.value.plugins.is_empty() {
            context
                .output
                .hint("no plugins: this banger was built without any");
        }
        Ok(0)
    }
}

fn origin(origin: &PluginOrigin) -> String {
    match origin {
        PluginOrigin::Embedded => "embedded".into(),
        PluginOrigin::File { path } => escape::text(path.as_bytes()),
    }
}

fn status(plugin: &Plugin) -> &'static str {
    match (&plugin.error, plugin.overrides) {
        (Some(_), _) => "refused",
        (None, true) => "overrides",
        (None, false) => "ok",
    }
}
