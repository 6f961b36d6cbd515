//! What people read: lines, tables, durations, command lines as one would type them.
//!
//! Nothing here fails: a closed terminal must not keep a demo from cleaning up.

use std::io::Write;
use std::time::Duration;

/// Writes a line to standard output.
pub fn say(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", line.as_ref());
    let _ = out.flush();
}

/// Writes a line to standard error.
pub fn warn(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", line.as_ref());
}

/// Writes an error with its causes to standard error.
pub fn error(error: &anyhow::Error) {
    warn(format!("xtask: {error:#}"));
}

/// A duration with three digits, in the unit that suits it.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 100.0 {
        format!("{seconds:.0} s")
    } else if seconds >= 10.0 {
        format!("{seconds:.1} s")
    } else if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{:.0} ms", seconds * 1000.0)
    }
}

/// A command line as one would type it in bash.
pub fn command_line<I, S>(words: I) -> String
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    let words: Vec<String> = words.into_iter().map(|word| quote(word.as_ref())).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Columns under their headings; the first column is text, the others are aligned to the right.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(headings.get(column).map(|heading| heading.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            if column == 0 {
                line.push_str(&format!("  {cell:<width$}"));
            } else {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(headings.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_reads_a_command_line_back() {
        let words = [
            "plain",
            "",
            "two words",
            "it's",
            "$(id) `id` \"$HOME\"",
            "line\nbreak\\n 'quoted'\ttab",
            "-n",
            "*",
        ];
        let line = command_line(words);
        let output = std::process::Command::new("bash")
            .args(["-c", &format!("printf '%s\\0' {line}")])
            .output()
            .expect("bash runs");
        let read: Vec<&[u8]> = output
            .stdout
            .strip_suffix(b"\0")
            .expect("ends with a zero")
            .split(|byte| *byte == 0)
            .collect();
        let expected: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        assert_eq!(read, expected, "{line}");
    }

    #[test]
    fn tables_are_aligned() {
        let table = table(
            &["stage", "time"],
            &[
                vec!["a".into(), "10 s".into()],
                vec!["longer".into(), "1 s".into()],
            ],
        );
        assert_eq!(table, "  stage   time\n  a       10 s\n  longer   1 s");
    }
}
