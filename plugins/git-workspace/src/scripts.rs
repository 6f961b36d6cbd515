//! The guest scripts with their arguments.

use crate::contract::{ExportFormat, ExportRequest, LayOverRequest, ReceiveRequest, Source};
use banger_plugin::{Refusal, Script};

/// A script's text: the parts that it is made of, one after the other.
macro_rules! body {
    ($($part:literal),+) => {
        concat!($(include_str!(concat!("../scripts/", $part))),+)
    };
}

/// Makes the repository and fetches into it.
pub fn receive(request: &ReceiveRequest) -> Result<Script, Refusal> {
    let source = &request.source;
    check_source(source)?;
    let or_empty = |value: &Option<String>| value.clone().unwrap_or_default();
    let depth = match request.depth {
        Some(0) => return Err(Refusal::new("a depth of 0 commits brings nothing")),
        Some(depth) => depth.to_string(),
        None => String::new(),
    };
    Ok(Script::new(body!("repository.sh", "receive.sh"))
        .arg(absolute(&request.path)?)
        .arg(source.head.as_str())
        .arg(or_empty(&source.branch))
        .arg(source.object_format.as_str())
        .arg(or_empty(&source.user_name))
        .arg(or_empty(&source.user_email))
        .arg(depth)
        .arg(if request.overwrite {
            "overwrite"
        } else {
            "keep"
        }))
}

/// Makes the working tree equal to the user's.
pub fn lay_over(request: &LayOverRequest) -> Result<Script, Refusal> {
    check_commit(&request.head)?;
    let mut deleted = Vec::new();
    for path in &request.deleted {
        if !is_inside(path) {
            return Err(Refusal::new(format!(
                "`{}` is no path inside the repository",
                path.escape_ascii()
            )));
        }
        deleted.extend_from_slice(path);
        deleted.push(0);
    }
    Ok(Script::new(body!("repository.sh", "lay-over.sh"))
        .arg(absolute(&request.path)?)
        .arg(request.head.as_str())
        .number(deleted.len() as u64)
        .stdin(&deleted))
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

fn check_commit(id: &str) -> Result<(), Refusal> {
    if matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(Refusal::new(format!(
            "`{}` is no full commit id",
            id.escape_default()
        )))
    }
}

fn check_source(source: &Source) -> Result<(), Refusal> {
    check_commit(&source.head)?;
    let digits = match source.object_format.as_str() {
        "sha1" => 40,
        "sha256" => 64,
        other => {
            return Err(Refusal::new(format!(
                "there is no object format `{}`",
                other.escape_default()
            )));
        }
    };
    if source.head.len() != digits {
        return Err(Refusal::new(format!(
            "the commit {} is not of the object format {}",
            source.head, source.object_format
        )));
    }
    let texts = [&source.branch, &source.user_name, &source.user_email];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(Refusal::new("a fact of the repository holds a NUL byte"));
    }
    Ok(())
}

/// Whether a path, relative to the top, stays inside the working tree and out of `.git`.
fn is_inside(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    !path.is_empty()
        && !path.contains(&0)
        && !path.starts_with(b".git/")
        && path != b".git"
        && parts.all(|part| !part.is_empty() && part != b"." && part != b"..")
}
