//! The signals that can be sent by name.

use banger_plugin::Refusal;

/// As Linux names them, without "SIG".
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The name of a signal given as "TERM", "sigterm" or "15".
pub fn name(signal: &str) -> Result<&'static str, Refusal> {
    let upper = signal.to_ascii_uppercase();
    let wanted = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_number = wanted
        .parse::<usize>()
        .ok()
        .and_then(|number| NAMES.get(number.checked_sub(1)?));
    NAMES
        .iter()
        .find(|name| **name == wanted)
        .or(by_number)
        .copied()
        .ok_or_else(|| {
            Refusal::new(format!("there is no signal `{}`", signal.escape_default()))
                .hint("use a name such as TERM, INT, HUP, USR1 or KILL")
        })
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_and_numbers_are_known_and_nothing_else() {
        for (given, expected) in [
            ("TERM", "TERM"),
            ("SIGINT", "INT"),
            ("sighup", "HUP"),
            ("9", "KILL"),
            ("31", "SYS"),
        ] {
            assert_eq!(name(given), Ok(expected));
        }
        for given in [
            "",
            "0",
            "32",
            "SIG",
            "-1",
            "TERM KILL",
            "$(id)",
            "SIGSIGTERM",
        ] {
            assert!(name(given).is_err(), "{given}");
        }
    }
}
