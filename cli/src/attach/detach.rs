//! The key that leaves a session.

use std::fmt;

/// A key together with Ctrl, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetachKey(Option<u8>);

impl DetachKey {
    /// Ctrl-C, for those who only look on.
    pub const INTERRUPT: Self = Self(Some(0x03));

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        self.0.is_some()
    }

    /// Where in what was typed it stands. A terminal may send it as a character or, where a
    /// program has asked for that, as a sequence that names the key and Ctrl.
    pub fn find(self, typed: &[u8]) -> Option<usize> {
        let control = self.0?;
        let key = u32::from(if control == 0x7f {
            b'?'
        } else {
            (control | 0x40).to_ascii_lowercase()
        });
        let sequences = [
            vec![control],
            format!("\x1b[{key};5u").into_bytes(),
            format!("\x1b[{key};5:1u").into_bytes(),
            format!("\x1b[27;5;{key}~").into_bytes(),
        ];
        (0..typed.len()).find(|at| {
            let rest = typed.get(*at..).unwrap_or_default();
            sequences.iter().any(|sequence| rest.starts_with(sequence))
        })
    }
}

impl fmt::Display for DetachKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(0x7f) => formatter.write_str("Ctrl-?"),
            Some(control) => write!(formatter, "Ctrl-{}", char::from(control | 0x40)),
            None => formatter.write_str("none"),
        }
    }
}

impl std::str::FromStr for DetachKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "write ctrl- and a letter or one of @ \\ ] ^ _ ?, or none";
        let text = text.to_ascii_lowercase();
        if text == "none" {
            return Ok(Self(None));
        }
        match text.strip_prefix("ctrl-").map(str::as_bytes) {
            // Not Ctrl-[: it is what every other key's sequence begins with.
            Some([key @ (b'a'..=b'z' | b'@' | b'\\' | b']' | b'^' | b'_')]) => {
                Ok(Self(Some(key & 0x1f)))
            }
            Some(b"?") => Ok(Self(Some(0x7f))),
            _ => Err(RULE.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_and_found() {
        for (text, shown, typed) in [
            ("ctrl-]", "Ctrl-]", &b"ab\x1d"[..]),
            ("Ctrl-A", "Ctrl-A", b"ab\x01cd"),
            ("ctrl-@", "Ctrl-@", b"ab\0"),
            ("ctrl-?", "Ctrl-?", b"ab\x7f"),
            ("ctrl-]", "Ctrl-]", b"ab\x1b[93;5u"),
            ("ctrl-p", "Ctrl-P", b"ab\x1b[112;5:1u"),
            ("ctrl-p", "Ctrl-P", b"ab\x1b[27;5;112~"),
        ] {
            let key: DetachKey = text.parse().expect("a key");
            assert_eq!(key.to_string(), shown);
            assert_eq!(key.find(typed), Some(2), "{text}");
            assert_eq!(key.find(b"abcd[]"), None);
        }
        let none: DetachKey = "none".parse().expect("none");
        assert_eq!((none.find(b"\0\x1d"), none.is_some()), (None, false));
        for bad in [
            "", "x", "ctrl-", "ctrl-1", "ctrl-ab", "alt-x", "ctrl-[", "ctrl-ä",
        ] {
            assert!(bad.parse::<DetachKey>().is_err(), "{bad}");
        }
    }
}
