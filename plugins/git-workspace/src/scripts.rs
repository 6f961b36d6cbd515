//! The guest scripts with their arguments.

use crate::contract::{ExportFormat, ExportRequest, ReceiveRequest};
use banger_plugin::{Refusal, Script};

/// A script's text: the parts that it is made of, one after the other.
macro_rules! body {
    ($($part:literal),+) => {
        concat!($(include_str!(concat!("../scripts/", $part))),+)
    };
}

/// Fetches the user's snapshot and makes the working copy equal to it.
pub fn receive(request: &ReceiveRequest) -> Result<Script, Refusal> {
    let digits = match request.object_format.as_str() {
        "sha1" => 40,
        "sha256" => 64,
        other => {
            return Err(Refusal::new(format!(
                "there is no object format `{}`",
                other.escape_default()
            )));
        }
    };
    let exported = request.exported.as_deref();
    for id in std::iter::once(request.snapshot.as_str()).chain(exported) {
        check_id(id)?;
        if id.len() != digits {
            return Err(Refusal::new(format!(
                "{id} is not of the object format {}",
                request.object_format
            )));
        }
    }
    let depth = match request.depth {
        Some(0) => return Err(Refusal::new("a depth of 0 commits brings nothing")),
        // The snapshot is a commit of its own, on top.
        Some(depth) => depth.saturating_add(1).to_string(),
        None => String::new(),
    };
    let branch = request.branch.as_deref().unwrap_or_default();
    for text in [branch, &request.origin] {
        if text.contains(['\0', '\n']) {
            return Err(Refusal::new(format!(
                "`{}` is not one line",
                text.escape_default()
            )));
        }
    }
    Ok(Script::new(body!(
        "repository.sh",
        "snapshot.sh",
        "place.sh",
        "unexported.sh",
        "receive.sh"
    ))
    .arg(absolute(&request.path)?)
    .arg(request.snapshot.as_str())
    .arg(request.object_format.as_str())
    .arg(depth)
    .arg(branch)
    .arg(request.origin.as_str())
    .arg(if request.overwrite {
        "overwrite"
    } else {
        "keep"
    })
    .arg(exported.unwrap_or_default()))
}

/// Tells the state; [`crate::report`] reads what it prints.
pub fn inspect(path: &str, base: Option<&str>) -> Result<Script, Refusal> {
    Ok(Script::new(body!(
        "repository.sh",
        "snapshot.sh",
        "compare.sh",
        "inspect.sh"
    ))
    .arg(absolute(path)?)
    .arg(checked_base(base)?))
}

/// Prints the same, then the work in a format.
pub fn export(request: &ExportRequest) -> Result<Script, Refusal> {
    Ok(Script::new(body!(
        "repository.sh",
        "snapshot.sh",
        "compare.sh",
        "export.sh"
    ))
    .arg(absolute(&request.path)?)
    .arg(checked_base(request.base.as_deref())?)
    .arg(match request.format {
        ExportFormat::Patch => "patch",
        ExportFormat::Mbox => "mbox",
        ExportFormat::Bundle => "bundle",
    }))
}

fn checked_base(base: Option<&str>) -> Result<&str, Refusal> {
    match base {
        Some(base) if base.is_empty() || base.contains('\0') => {
            Err(Refusal::new("the base is empty"))
        }
        base => Ok(base.unwrap_or_default()),
    }
}

/// The path, if it is absolute and not the root.
fn absolute(path: &str) -> Result<&str, Refusal> {
    if path.starts_with('/') && !path.trim_matches('/').is_empty() && !path.contains('\0') {
        Ok(path.trim_end_matches('/'))
    } else {
        Err(Refusal::new(format!(
            "`{}` is no absolute path below /",
            path.escape_default()
        )))
    }
}

fn check_id(id: &str) -> Result<(), Refusal> {
    if matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(Refusal::new(format!(
            "`{}` is no full id",
            id.escape_default()
        )))
    }
}
