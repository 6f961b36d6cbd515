//! Values of the command line: sizes, durations, pairs, addresses, paths.

use banger_core::protocol::session::TerminalSize;
use banger_core::script::is_variable_name;
use banger_core::{ByteString, GuestPath, escape};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a value can't be read, as clap shows it after naming the argument.
pub type Invalid = String;

/// `2G`, `512M`, `1T`, also with `iB`: mebibytes, powers of two.
pub fn mebibytes(text: &str) -> Result<u64, Invalid> {
    const RULE: &str = "write a whole number and a unit: 512M, 2G, 1T";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "m" | "mib" => 1,
        "g" | "gib" => 1024,
        "t" | "tib" => 1024 * 1024,
        _ => return Err(RULE.into()),
    };
    let number: u64 = number.parse().map_err(|_| RULE)?;
    match number.checked_mul(factor) {
        Some(0) => Err("it must be more than nothing".into()),
        Some(mebibytes) => Ok(mebibytes),
        None => Err("that is too much".into()),
    }
}

/// Mebibytes as bytes.
pub fn bytes(mebibytes: u64) -> u64 {
    mebibytes.saturating_mul(1 << 20)
}

/// The same for values that travel as 32 bits.
pub fn mebibytes_32(text: &str) -> Result<u32, Invalid> {
    u32::try_from(mebibytes(text)?).map_err(|_| "that is too much".into())
}

/// `64M`, `1G`, also with `iB`, or `none`: bytes, 0 for none.
pub fn bytes_or_none(text: &str) -> Result<u64, Invalid> {
    if text == "none" {
        return Ok(0);
    }
    let size = mebibytes(text).map_err(|rule| format!("{rule}; or none"))?;
    size.checked_mul(1 << 20).ok_or("that is too much".into())
}

/// `120x40`: a terminal's columns and rows.
pub fn terminal_size(text: &str) -> Result<TerminalSize, Invalid> {
    let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
    let size = text.split_once('x').and_then(|(columns, rows)| {
        Some(TerminalSize {
            columns: number(columns)?,
            rows: number(rows)?,
        })
    });
    size.ok_or("write columns and rows: 120x40".into())
}

/// `500ms`, `30s`, `2m`, `1h`, or several of them: `1h30m`.
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    const RULE: &str = "write whole numbers and units: 500ms, 30s, 2m, 1h30m";
    let mut rest = text;
    let mut total: u64 = 0;
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len()
            - after
                .trim_start_matches(|c: char| c.is_ascii_lowercase())
                .len();
        let (unit, after) = after.split_at(letters);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(RULE.into()),
        };
        let number: u64 = number.parse().map_err(|_| RULE)?;
        let part = number.checked_mul(factor).ok_or("that is too long")?;
        total = total.checked_add(part).ok_or("that is too long")?;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_millis(total));
        }
    }
}

/// Whole milliseconds, as the protocol wants them.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The same in 32 bits; longer than 49 days is as good as 49 days.
pub fn milliseconds_32(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// `NAME=VALUE` of an environment; the value is any bytes.
pub fn variable(argument: OsString) -> Result<(String, ByteString), Invalid> {
    let (name, value) = pair(&argument).ok_or("write NAME=VALUE")?;
    match std::str::from_utf8(name) {
        Ok(name) if is_variable_name(name) => Ok((name.to_owned(), ByteString(value.to_vec()))),
        _ => Err(format!(
            "`{}` is no name of a variable: use A-Z, a-z, 0-9 and `_`, not beginning with a digit",
            escape::text(name)
        )),
    }
}

/// `KEY=VALUE` of a tag.
pub fn tag(text: &str) -> Result<(String, String), Invalid> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

fn pair(argument: &OsStr) -> Option<(&[u8], &[u8])> {
    let bytes = argument.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=')?;
    let (name, value) = bytes.split_at(equals);
    Some((name, value.get(1..).unwrap_or_default()))
}

/// An absolute path in the guest.
pub fn guest_path(argument: OsString) -> Result<GuestPath, Invalid> {
    GuestPath::try_from(argument.into_vec()).map_err(|error| error.to_string())
}

/// A signal by its name, with or without `SIG`.
pub fn signal(text: &str) -> Result<String, Invalid> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(name.to_owned())
    } else {
        Err("write a signal's name: INT, TERM, KILL, HUP, USR1".into())
    }
}

/// Bytes of a command's words.
pub fn byte_strings(words: Vec<OsString>) -> Vec<ByteString> {
    words
        .into_iter()
        .map(|word| word.into_vec().into())
        .collect()
}

/// A path on this machine, made absolute here, since the daemon's working directory is another.
pub fn absolute(path: &Path) -> Result<PathBuf, banger_core::Failure> {
    std::path::absolute(path).map_err(|error| {
        crate::error::host(
            format!(
                "make `{}` absolute",
                escape::text(path.as_os_str().as_bytes())
            ),
            &error,
        )
    })
}

/// Where an sshd is: `ssh://user@host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Who to be.
    pub user: String,
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// 22 where none is given.
    pub port: u16,
}

impl std::str::FromStr for SshAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const RULE: &str = "write ssh://user@host:port";
        let rest = text.strip_prefix("ssh://").ok_or(RULE)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = rest
            .rsplit_once('@')
            .ok_or("the user is missing: write ssh://user@host:port")?;
        let (host, port) = match place.strip_prefix('[') {
            Some(place) => {
                let (host, port) = place.split_once(']').ok_or("a `]` is missing")?;
                (
                    host,
                    if port.is_empty() {
                        None
                    } else {
                        Some(port.strip_prefix(':').ok_or(RULE)?)
                    },
                )
            }
            None => match place.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err("put an IPv6 address in brackets: ssh://user@[::1]:22".into());
                }
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        // A word that begins with `-` would be an option to `ssh`.
        let word = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c))
        };
        if !word(user) || user.contains([':', '%']) {
            return Err(format!(
                "`{}` is no user's name",
                escape::text(user.as_bytes())
            ));
        }
        if !word(host) {
            return Err(format!("`{}` is no host", escape::text(host.as_bytes())));
        }
        let port = match port.map(str::parse) {
            None => 22,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err("a port is a number from 1 to 65535".into()),
        };
        Ok(Self {
            user: user.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit() {
        for (text, size) in [
            ("512M", 512),
            ("2G", 2048),
            ("2g", 2048),
            ("1T", 1 << 20),
            ("3GiB", 3072),
        ] {
            assert_eq!(mebibytes(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "2",
            "G",
            "2K",
            "-1G",
            "1.5G",
            "0G",
            "2 G",
            "99999999999999999999G",
            "18446744073709551615T",
            "²G",
        ] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
        assert!(mebibytes_32("4096T").is_err());
    }

    #[test]
    fn log_limits_may_be_none_and_terminals_have_two_sides() {
        assert_eq!(bytes_or_none("none"), Ok(0));
        assert_eq!(bytes_or_none("64M"), Ok(64 << 20));
        assert!(bytes_or_none("0").is_err() && bytes_or_none("17592186044416T").is_err());
        let size = |columns, rows| Ok(TerminalSize { columns, rows });
        assert_eq!(terminal_size("120x40"), size(120, 40));
        assert_eq!(terminal_size("65535x1"), size(65535, 1));
        for bad in [
            "", "x", "1x", "0x1", "1x0", "65536x1", "-1x2", "1x2x3", "80,24",
        ] {
            assert!(terminal_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("30s", 30_000),
            ("2m", 120_000),
            ("250ms", 250),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1m0s1ms", 60_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "1.5s",
            "1h30",
            "1hm",
            "1h ",
            "1h-1s",
            "18446744073709551615h",
            "18446744073709551615ms1ms",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(milliseconds_32(Duration::MAX), u32::MAX);
    }

    #[test]
    fn variables_have_names_and_any_bytes() {
        let get = |bytes: &[u8]| variable(OsString::from_vec(bytes.to_vec()));
        assert_eq!(get(b"A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(get(b"_a1="), Ok(("_a1".into(), "".into())));
        assert_eq!(
            get(b"A=\xff\n"),
            Ok(("A".into(), ByteString(b"\xff\n".to_vec())))
        );
        for bad in [&b"A"[..], b"=b", b"1A=b", b"A B=c", b"\xff=b", b"A-B=c"] {
            assert!(get(bad).is_err(), "{bad:?}");
        }
        assert_eq!(tag("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(tag("=b").is_err() && tag("a").is_err());
    }

    #[test]
    fn addresses_name_user_host_and_port() {
        let address = |user: &str, host: &str, port| {
            Ok(SshAddress {
                user: user.into(),
                host: host.into(),
                port,
            })
        };
        assert_eq!("ssh://me@host:2222".parse(), address("me", "host", 2222));
        assert_eq!("ssh://me@host".parse(), address("me", "host", 22));
        assert_eq!("ssh://me@10.0.0.1/".parse(), address("me", "10.0.0.1", 22));
        assert_eq!("ssh://me@[::1]:22".parse(), address("me", "::1", 22));
        assert_eq!(
            "ssh://me@[fe80::1%eth0]".parse(),
            address("me", "fe80::1%eth0", 22)
        );
        for bad in [
            "me@host",
            "http://me@host",
            "ssh://host",
            "ssh://@host",
            "ssh://me@",
            "ssh://me@host:0",
            "ssh://me@host:65536",
            "ssh://me@host:x",
            "ssh://me@host:",
            "ssh://me@-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://me@::1",
            "ssh://me@[::1",
            "ssh://me@[::1]22",
            "ssh://me@ho st",
            "ssh://me@host/path",
            "ssh://me:secret@host",
        ] {
            assert!(bad.parse::<SshAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_go_by_name() {
        assert_eq!(signal("SIGINT"), Ok("INT".into()));
        assert_eq!(signal("term"), Ok("TERM".into()));
        assert!(signal("").is_err() && signal("SIG").is_err() && signal("-9").is_err());
    }
}
