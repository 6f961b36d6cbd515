//! Values as people read them: sizes, ages, command lines.

use banger_core::{ByteString, escape};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// At most so many characters, with `…` where some are missing.
pub fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept = characters.saturating_sub(1);
    text.chars().take(kept).chain(['…']).collect()
}

/// Bytes with a unit: `512 B`, `1.5 GiB`.
#[allow(clippy::cast_precision_loss)]
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// Mebibytes with a unit; `-` for 0, which stands for unknown.
pub fn mebibytes(count: u64) -> String {
    match count {
        0 => "-".into(),
        count if count % 1024 == 0 => format!("{} GiB", count / 1024),
        count => format!("{count} MiB"),
    }
}

/// How long ago a time was, in one unit: `3s`, `5m`, `2h`, `9d`.
pub fn age(milliseconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let then = Duration::from_millis(milliseconds);
    span(now.unwrap_or_default().saturating_sub(then))
}

fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A point in time, milliseconds since 1970: `2026-01-31T23:59:59Z`.
pub fn utc(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // 400 years are always as many days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let day = days + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A command as one could type it, without what could steer a terminal.
pub fn command_line(command: &[ByteString]) -> String {
    let words: Vec<String> = command.iter().map(|word| quote(word.as_ref())).collect();
    words.join(" ")
}

/// One word for a shell, to be read and not to be run: escaped bytes stay escaped.
pub fn quote(bytes: &[u8]) -> String {
    let text = escape::text(bytes);
    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The first characters of a commit id, enough to tell it from others.
pub fn short_commit(id: &str) -> String {
    escape::text(id.as_bytes()).chars().take(12).collect()
}

/// `1 file`, `2 files`.
pub fn plural(count: u64, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_610_612_736, "1.5 GiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(mebibytes(0), "-");
        assert_eq!(mebibytes(2048), "2 GiB");
        assert_eq!(mebibytes(1500), "1500 MiB");
        for (seconds, text) in [(0, "0s"), (61, "1m"), (7300, "2h"), (90_000, "1d")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn points_in_time_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (13_574_563_200, "2400-02-29T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1000 + 999), text);
        }
        assert!(utc(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn commands_are_quoted_and_safe() {
        let command: Vec<ByteString> = [&b"echo"[..], b"a b", b"it's", b"", b"\x1b\xff"]
            .map(|word| ByteString(word.to_vec()))
            .into();
        assert_eq!(
            command_line(&command),
            r"echo 'a b' 'it'\''s' '' '\x1b\xff'"
        );
    }

    #[test]
    fn a_cut_is_marked() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("abcd", 0), "…");
    }
}
