//! Bytes from a guest or a plugin, made safe for a terminal, a log or an error message.

use std::fmt::Write as _;

/// Printable text as it is; control characters, escape sequences and bytes that are no UTF-8 as
/// `\n`, `\t`, `\xNN` or `\u{NNNN}`.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                c if c.is_control() || is_invisible(c) => {
                    let code = u32::from(c);
                    let _ = if code < 0x80 {
                        write!(out, "\\x{code:02x}")
                    } else {
                        write!(out, "\\u{{{code:04x}}}")
                    };
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// The same for text of several lines: line feeds and tabs stay.
pub fn lines(bytes: &[u8]) -> String {
    bytes
        .split(|b| *b == b'\n')
        .map(|line| {
            line.split(|b| *b == b'\t')
                .map(text)
                .collect::<Vec<_>>()
                .join("\t")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Characters that change how their neighbours are shown: bidirectional controls and the like.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        assert_eq!(text(b"a\x1b[31mb\x07\n\xff"), "a\\x1b[31mb\\x07\\n\\xff");
        assert_eq!(text("ü → \u{202e}x".as_bytes()), "ü → \\u{202e}x");
        assert_eq!(lines(b"a\tb\r\nc\x00"), "a\tb\\r\nc\\x00");
    }
}
