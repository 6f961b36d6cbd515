//! Names and ids, each a type of its own that can only be built valid.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that is no valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no valid {what}: {rule}")]
pub struct InvalidName {
    /// What it should have named.
    pub what: &'static str,
    /// The text, escaped and cut.
    pub text: String,
    /// The rule, for a person.
    pub rule: &'static str,
}

fn invalid(what: &'static str, text: &str, rule: &'static str) -> InvalidName {
    let mut shown = crate::escape::text(text.as_bytes());
    if shown.chars().count() > 80 {
        shown = shown.chars().take(79).chain(['…']).collect();
    }
    InvalidName {
        what,
        text: shown,
        rule,
    }
}

const NAME_RULE: &str = "use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at either end";

/// A DNS label: it also serves as a hostname and a file name.
fn is_label(text: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| edge(b) || *b == b'-')
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
}

const ID_RULE: &str = "an id is 12 of 0-9 and a-f";

fn is_id(text: &str) -> bool {
    text.len() == 12
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

macro_rules! label {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        name!(
            $(#[$doc])* $type, $what, is_label, NAME_RULE,
            "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
        );
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:ident, $rule:ident, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("pattern" = $pattern))]
        pub struct $type(String);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if $check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(invalid($what, text, $rule))
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        name!($(#[$doc])* $type, $what, is_id, ID_RULE, "^[0-9a-f]{12}$");

        impl $type {
            /// An id from six random bytes.
            pub fn from_random(bytes: [u8; 6]) -> Self {
                Self(data_encoding::HEXLOWER.encode(&bytes))
            }
        }
    };
}

id!(
    /// A machine's id. It names the directory of its state and is never used again.
    VmId,
    "VM id"
);
id!(
    /// A session's id. It names the session's directory in the guest.
    SessionId,
    "session id"
);
label!(
    /// A machine's name, unique among machines; also its hostname.
    VmName, "VM name"
);
label!(
    /// A session's name, unique within its machine.
    SessionName, "session name"
);
label!(
    /// An image's name.
    ImageName, "image name"
);
label!(
    /// The name of a plugin, a backend or a workspace kind.
    PluginName, "plugin name"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_are_names() {
        for good in ["a", "0", "my-vm-2", &"x".repeat(63)] {
            assert_eq!(
                good.parse::<VmName>().map(String::from),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a b",
            "../x",
            "a\n",
            "ä",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<VmName>().is_err(), "{bad:?}");
            let json = serde_json::to_string(bad).expect("a string");
            assert!(serde_json::from_str::<VmName>(&json).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_twelve_digits() {
        assert_eq!(
            VmId::from_random([0, 1, 2, 253, 254, 255]).as_str(),
            "000102fdfeff"
        );
        assert!("000102FDFEFF".parse::<VmId>().is_err());
        assert!("../../../../x".parse::<SessionId>().is_err());
    }

    #[test]
    fn an_error_shows_no_control_characters() {
        let error = "a\x1b[2J".parse::<VmName>().expect_err("invalid");
        assert!(!error.to_string().contains('\x1b'));
    }
}
