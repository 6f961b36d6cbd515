//! `banger vm workspace export`

use super::left_behind;
use super::patch::{PatchFile, PatchOutput};
use crate::client::{Client, Reply};
use crate::context::Context;
use crate::error::Outcome;
use crate::stream::{self, Ended, Input, OnSignal, Sink};
use crate::{text, value};
use banger_core::protocol::machine::{Vm, VmRef};
use banger_core::protocol::workspace::{
    self, DEFAULT_GUEST_PATH, ExportFormat, ExportReply, Prepared,
};
use banger_core::protocol::{Call, Stream};
use banger_core::workspace::{Change, ChangeKind};
use banger_core::{Failure, GuestPath, Kind, escape};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Bring work back as a patch, as mails or as a bundle
///
/// It holds everything that differs from the base: commits, changes that are not committed and
/// untracked files. `git apply` takes a patch; `git am` takes an mbox, with commits and authors; a
/// bundle has the commits as they are, for `git fetch FILE refs/banger/work`. What is not committed
/// is one more commit in these two. The machine's working copy, its index and its commits stay as
/// they are.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  banger vm workspace export my-vm --output work.patch
  banger vm workspace export my-vm | git apply --3way
  banger vm workspace export my-vm --format mbox | git am --keep-non-patch --keep-cr --empty=keep
  banger vm workspace export my-vm --stat")]
pub struct Export {
    /// The machine's name or id
    vm: String,
    /// The commit or ref in the machine that the work is from [default: the commit that was put
    /// in]
    #[arg(long, value_name = "REF")]
    base_commit: Option<String>,
    /// The form of the work
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write it to this file, whole or not at all [default: standard output]
    #[arg(long, short, value_name = "FILE", conflicts_with = "stat")]
    output: Option<PathBuf>,
    /// Where the working copy is in the machine [default: /root/repo]
    #[arg(long, value_name = "PATH",
        value_parser = OsStringValueParser::new().try_map(value::guest_path))]
    guest_path: Option<GuestPath>,
    /// List what differs, and write no patch
    #[arg(long)]
    stat: bool,
    /// The most that the machine may send, such as 512M or 4G [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = value::mebibytes)]
    limit: Option<u64>,
}

/// The form of exported work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// One binary patch
    #[default]
    Patch,
    /// A mail for each commit
    Mbox,
    /// The commits as they are
    Bundle,
}

impl Export {
    pub fn run(self, context: &Context) -> Outcome {
        if context.output.json && self.output.is_none() && !self.stat {
            let message = "--json needs --output or --stat, since the patch is no JSON";
            return Err(Failure::new(Kind::Usage, message).into());
        }
        if self.format == Format::Bundle
            && self.output.is_none()
            && !self.stat
            && context.output.to_terminal
        {
            let message = "a bundle is not for a terminal";
            return Err(Failure::new(Kind::Usage, message)
                .hint("name a file with --output")
                .into());
        }
        // Before the guest is asked: a directory that can't be written is known soon.
        let file = self.output.as_deref().map(PatchFile::create).transpose()?;
        let mut client = context.client()?;
        let mut uncommitted = 0;
        let (base_commit, guest_path) = match self.base_commit {
            Some(base) => (base, self.guest_path),
            None => {
                let recorded = recorded(&mut client, &self.vm, self.guest_path.as_ref())?;
                uncommitted = recorded.files_laid_over + recorded.files_deleted;
                (recorded.head_commit, Some(recorded.guest_path))
            }
        };
        let (vm, top) = (self.vm.clone(), guest_path.clone());
        let mut reply = client.call::<ExportReply>(Call::WorkspaceExport(workspace::Export {
            vm: self.vm,
            guest_path,
            base_commit: Some(base_commit),
            format: match self.format {
                Format::Patch => ExportFormat::Patch,
                Format::Mbox => ExportFormat::Mbox,
                Format::Bundle => ExportFormat::Bundle,
            },
            limit_bytes: self.limit.map(value::bytes),
        }))?;
        if self.stat {
            if context.output.json {
                context.output.print_json(&without_stream(&mut reply))?;
            } else {
                let value = &reply.value;
                context.output.print(&changes(&value.changes, value.more))?;
                context.output.remark(&summary(value));
            }
            return Ok(0);
        }
        let length = match (file, self.output) {
            (Some(mut file), Some(path)) => {
                receive(context, &reply.value.patch, Input::Receipt, &mut file)?;
                if context.output.json {
                    let mut json = without_stream(&mut reply);
                    add(
                        &mut json,
                        "output",
                        escape::text(path.as_os_str().as_encoded_bytes()).into(),
                    );
                    add(&mut json, "bytes", file.length.into());
                    context.output.print_json(&json)?;
                }
                context
                    .output
                    .remark(&written(&path, file.length, self.format));
                file.length
            }
            _ => {
                let mut output = PatchOutput::new();
                receive(context, &reply.value.patch, Input::Receipt, &mut output)?;
                output.length
            }
        };
        context.output.remark(&summary(&reply.value));
        let top = top
            .as_ref()
            .map_or(DEFAULT_GUEST_PATH.as_bytes(), GuestPath::as_bytes);
        let value = &reply.value;
        for line in left_behind(&vm, top, &value.base_commit, &value.submodules) {
            context.output.hint(&line);
        }
        if uncommitted > 0 && length > 0 {
            context.output.hint(&format!(
                "{} went in uncommitted and are in the patch too: it applies to a clean checkout \
                 of the base, such as `git worktree add ../review {}`",
                text::plural(uncommitted, "file"),
                text::short_commit(&reply.value.base_commit),
            ));
        }
        Ok(0)
    }
}

/// What was put in at this place. Without one it is the usual place, or the only one: an adopted
/// host may have another home.
fn recorded(
    client: &mut Client,
    vm: &str,
    guest_path: Option<&GuestPath>,
) -> Result<Prepared, Failure> {
    let machine = client
        .call::<Vm>(Call::VmGet(VmRef { vm: vm.to_owned() }))?
        .value;
    let wanted = guest_path.map_or(DEFAULT_GUEST_PATH.as_bytes(), GuestPath::as_bytes);
    let mut workspaces = machine.workspaces;
    let found = workspaces
        .iter()
        .position(|workspace| workspace.guest_path.as_bytes() == wanted)
        .or((guest_path.is_none() && workspaces.len() == 1).then_some(0));
    match found {
        Some(found) => Ok(workspaces.swap_remove(found)),
        None => Err(Failure::new(
            Kind::NotFound,
            format!(
                "no working copy was put into `{}` at `{}`",
                machine.name,
                escape::text(wanted)
            ),
        )
        .hint(format!(
            "`banger vm show {}` lists what was; --guest-path names another place, \
             --base-commit a base in a repository that banger did not put there",
            machine.name
        ))),
    }
}

/// Takes a stream that must be whole.
pub fn receive(
    context: &Context,
    patch: &Stream,
    input: Input,
    sink: &mut dyn Sink,
) -> Result<(), crate::error::CommandError> {
    let signals = context.signals()?;
    match stream::run(patch, input, OnSignal::Leave, &signals, sink)? {
        Ended::Exit(0) => Ok(()),
        Ended::Exit(code) => Err(Failure::new(
            Kind::Guest,
            format!("the patch is not whole: making it ended with exit code {code}"),
        )
        .into()),
        Ended::Left => Err(Failure::new(Kind::Cancelled, "cancelled").into()),
    }
}

/// The reply without what is of use to nobody any more.
fn without_stream(reply: &mut Reply<ExportReply>) -> serde_json::Value {
    let mut json = reply.json.take();
    if let Some(object) = json.as_object_mut() {
        object.remove("patch");
    }
    json
}

fn add(json: &mut serde_json::Value, key: &str, value: serde_json::Value) {
    if let Some(object) = json.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn written(path: &Path, length: u64, format: Format) -> String {
    let shown = text::quote(path.as_os_str().as_encoded_bytes());
    let next = match format {
        _ if length == 0 => return format!("{shown}: empty, since nothing differs"),
        Format::Patch => format!("`git apply {shown}` applies it"),
        Format::Mbox => {
            format!("`git am --keep-non-patch --keep-cr --empty=keep {shown}` applies it")
        }
        Format::Bundle => {
            format!("`git fetch {shown} refs/banger/work:refs/heads/NAME` makes a branch of it")
        }
    };
    format!("{shown}: {}; {next}", text::bytes(length))
}

fn summary(reply: &ExportReply) -> String {
    let commit = |id: &Option<String>| id.as_deref().map_or("none".into(), text::short_commit);
    format!(
        "base {}, head {}, {}, {}",
        text::short_commit(&reply.base_commit),
        commit(&reply.head_commit),
        text::plural(reply.commits.into(), "commit"),
        files(&reply.changes, reply.more),
    )
}

/// How many files differ.
pub fn files(changes: &[Change], more: bool) -> String {
    let count = text::plural(changes.len() as u64, "file");
    if more {
        format!("more than {count}")
    } else {
        count
    }
}

/// What differs, a line a file.
pub fn changes(changes: &[Change], more: bool) -> String {
    let line = |change: &Change| {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'M',
            ChangeKind::Deleted => 'D',
            ChangeKind::Renamed => 'R',
            ChangeKind::TypeChanged => 'T',
        };
        match &change.old_path {
            Some(old) => format!("{letter}  {old} -> {}\n", change.path),
            None => format!("{letter}  {}\n", change.path),
        }
    };
    let mut text: String = changes.iter().map(line).collect();
    if more {
        text += "…  and more\n";
    }
    text
}
