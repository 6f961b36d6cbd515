//! Reads what the script `host-records.sh` printed. The guest may have printed anything.

use banger_plugin::Refusal;

/// The longest record; longer ones are left out.
const LONGEST: usize = 16 * 1024;

/// The sessions' ids and their records. A session that was removed while the script ran is left out.
///
/// # Errors
/// The script failed, or the output is not what it prints.
pub fn read(
    exit_code: i32,
    stdout: &[u8],
    stderr: &[u8],
) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
    if exit_code != 0 {
        let stderr = String::from_utf8_lossy(stderr);
        return Err(Refusal::new(format!(
            "the host records could not be read (exit code {exit_code}): {}",
            stderr.trim()
        )));
    }
    parse(stdout).ok_or_else(|| {
        Refusal::new("what the guest printed as its host records is damaged")
            .hint("ask again, or look at the guest's bash")
    })
}

fn parse(stdout: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut rest = stdout.strip_prefix(b"banger-host-records-1\n")?;
    let mut announced = Vec::new();
    loop {
        let (line, after) = line(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        let (id, length) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let length: usize = length.parse().ok()?;
        if !crate::is_id(id) || length > LONGEST {
            return None;
        }
        announced.push((id, length));
    }
    let mut records = Vec::new();
    for (id, length) in announced {
        // `head` sets an empty line before all headings but its first.
        let heading = format!("==> {id}/host-record <==\n");
        let between = if records.is_empty() { "" } else { "\n" };
        let Some(after) = rest
            .strip_prefix(between.as_bytes())
            .and_then(|rest| rest.strip_prefix(heading.as_bytes()))
        else {
            // Removed meanwhile: the next heading is another one's, or none is left.
            continue;
        };
        let (record, after) = after.split_at_checked(length)?;
        records.push((id.to_owned(), record.to_vec()));
        rest = after;
    }
    rest.is_empty().then_some(records)
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn records_are_any_bytes_and_one_that_vanished_is_left_out() {
        let printed = b"banger-host-records-1\nb 3\na 2\nc 0\n\n\
            ==> b/host-record <==\n\0\n=\n==> c/host-record <==\n";
        assert_eq!(
            read(0, printed, b""),
            Ok(vec![
                ("b".to_owned(), b"\0\n=".to_vec()),
                ("c".to_owned(), vec![])
            ])
        );
        assert_eq!(read(0, b"banger-host-records-1\n\n", b""), Ok(vec![]));
    }

    #[test]
    fn what_is_cut_or_longer_is_refused() {
        let whole = b"banger-host-records-1\na 2\n\n==> a/host-record <==\nxy";
        for end in 0..whole.len() {
            // Cut before the heading it reads as removed.
            if end != whole.len() - 24 {
                assert!(read(0, &whole[..end], b"").is_err(), "{end}");
            }
        }
        assert!(read(0, &[&whole[..], b"z"].concat(), b"").is_err());
        assert!(read(1, whole, b"").is_err());
        assert!(read(0, b"banger-host-records-1\nA 0\n\n", b"").is_err());
    }
}
