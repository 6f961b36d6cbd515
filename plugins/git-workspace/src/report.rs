//! Reads what the function `report` of `compare.sh` printed. The guest may have printed anything.

use crate::contract::{Change, ChangeKind, Output, Status, Submodule};
use banger_plugin::Refusal;

/// The working copy's state.
///
/// # Errors
/// The script failed, or the output is not, to the byte, what it prints.
pub fn read(output: &Output) -> Result<Status, Refusal> {
    if output.exit_code != 0 {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = stderr.trim();
        return Err(Refusal::new(if said.is_empty() {
            format!(
                "the working copy could not be inspected (exit code {})",
                output.exit_code
            )
        } else {
            said.to_owned()
        }));
    }
    parse(&output.stdout).ok_or_else(|| {
        Refusal::new("the guest's report on the working copy is damaged")
            .hint("it may be too long; export the patch instead")
    })
}

fn parse(stdout: &[u8]) -> Option<Status> {
    let mut fields = stdout.strip_suffix(b"\0")?.split(|byte| *byte == 0);
    if fields.next()? != b"banger-git-2" {
        return None;
    }
    let head = text(fields.next()?)?;
    let branch = text(fields.next()?)?;
    let base = text(fields.next()?)?;
    let tree = text(fields.next()?)?;
    let commits = text(fields.next()?)?;
    let more = match fields.next()? {
        b"all" => false,
        b"cut" => true,
        _ => return None,
    };
    let ids = is_id(base) && is_id(tree) && (is_id(head) || head.is_empty());
    if !ids || !is_number(commits) {
        return None;
    }
    let mut changes = Vec::new();
    loop {
        let status = fields.next()?;
        if status == b"submodules" {
            break;
        }
        changes.push(change(status, &mut fields)?);
    }
    let mut submodules = Vec::new();
    loop {
        let path = fields.next()?;
        // A path `end` would be followed by another field.
        if path == b"end" && fields.clone().next().is_none() {
            break;
        }
        let base = text(fields.next()?)?;
        if path.is_empty() || !(base.is_empty() || is_id(base)) {
            return None;
        }
        submodules.push(Submodule {
            path: path.to_vec(),
            base: (!base.is_empty()).then(|| base.to_owned()),
        });
    }
    Some(Status {
        head: (!head.is_empty()).then(|| head.to_owned()),
        branch: (!branch.is_empty()).then(|| branch.to_owned()),
        base: base.to_owned(),
        tree: tree.to_owned(),
        commits: commits.parse().ok()?,
        changes,
        more,
        submodules,
    })
}

fn change<'a>(status: &[u8], fields: &mut impl Iterator<Item = &'a [u8]>) -> Option<Change> {
    let kind = match status {
        b"A" => ChangeKind::Added,
        b"M" => ChangeKind::Modified,
        b"D" => ChangeKind::Deleted,
        b"T" => ChangeKind::TypeChanged,
        [b'R', score @ ..] if !score.is_empty() && score.iter().all(u8::is_ascii_digit) => {
            ChangeKind::Renamed
        }
        _ => return None,
    };
    let mut path = || {
        fields
            .next()
            .filter(|path| !path.is_empty())
            .map(<[u8]>::to_vec)
    };
    let old_path = if kind == ChangeKind::Renamed {
        Some(path()?)
    } else {
        None
    };
    Some(Change {
        kind,
        path: path()?,
        old_path,
    })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
