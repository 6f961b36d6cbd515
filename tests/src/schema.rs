//! Checks messages against `docs/protocol.schema.json`.
//!
//! Only the keywords that it uses are known here; another one is an error, never let through. A
//! complete validator would bring some fifty crates for these fifteen words.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use regex_automata::nfa::thompson::pikevm::PikeVM;
use serde_json::{Map, Value};

/// The committed schema.
pub struct Schema(Value);

impl Schema {
    /// Reads it.
    ///
    /// # Errors
    /// It is not there, or no JSON.
    pub fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.schema.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(serde_json::from_str(&text)?))
    }

    /// The names of all methods.
    pub fn methods(&self) -> Vec<&str> {
        let methods = self.0["methods"].as_object();
        methods
            .into_iter()
            .flatten()
            .map(|(name, _)| &**name)
            .collect()
    }

    /// Checks a whole message, in either direction.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_message(&self, message: &Value) -> Result<()> {
        self.check(&self.0, message, "message")
    }

    /// Checks a definition's value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_definition(&self, name: &str, value: &Value) -> Result<()> {
        self.check(&self.0["$defs"][name], value, name)
    }

    /// Checks what a method answered.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_result(&self, method: &str, result: &Value) -> Result<()> {
        self.check(&self.0["methods"][method]["result"], result, method)
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<()> {
        let Some(schema) = schema.as_object() else {
            bail!("{at}: there is no schema for it");
        };
        for (keyword, rule) in schema {
            let holds = match keyword.as_str() {
                // Annotations, and what is the root's own.
                "$schema" | "$defs" | "title" | "description" | "default" | "format"
                | "methods" | "notifications" | "frames" => true,
                "$ref" => {
                    let pointer = rule.as_str().and_then(|text| text.strip_prefix('#'));
                    let target = pointer.and_then(|pointer| self.0.pointer(pointer));
                    let target = target.with_context(|| format!("{at}: {rule} leads nowhere"))?;
                    self.check(target, value, at)?;
                    true
                }
                "type" => words(rule).any(|word| is_of_type(value, word)),
                "const" => value == rule,
                "pattern" => match value.as_str() {
                    Some(text) => {
                        let regex = PikeVM::new(rule.as_str().unwrap_or_default())?;
                        regex.is_match(&mut regex.create_cache(), text)
                    }
                    None => true,
                },
                "minimum" => number(value).is_none_or(|n| Some(n) >= number(rule)),
                "maximum" => number(value).is_none_or(|n| Some(n) <= number(rule)),
                "minItems" => items(value).len() as i128 >= number(rule).unwrap_or(0),
                "maxItems" => items(value).len() as i128 <= number(rule).unwrap_or(0),
                "prefixItems" => {
                    for (one, rule) in items(value).iter().zip(items(rule)) {
                        self.check(rule, one, at)?;
                    }
                    true
                }
                "items" => {
                    for one in items(value) {
                        self.check(rule, one, at)?;
                    }
                    true
                }
                "required" => value
                    .as_object()
                    .is_none_or(|map| words(rule).all(|name| map.contains_key(name))),
                "properties" => {
                    for (name, rule) in rule.as_object().into_iter().flatten() {
                        if let Some(value) = value.get(name) {
                            self.check(rule, value, &format!("{at}.{name}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => self.check_others(schema, rule, value, at)?,
                "anyOf" => self.matching(rule, value, at) >= 1,
                "oneOf" => self.matching(rule, value, at) == 1,
                other => bail!("{at}: the keyword `{other}` is unknown here"),
            };
            if !holds {
                bail!("{at}: `{keyword}` does not hold for {value}");
            }
        }
        Ok(())
    }

    /// The properties that `properties` does not name.
    fn check_others(
        &self,
        schema: &Map<String, Value>,
        rule: &Value,
        value: &Value,
        at: &str,
    ) -> Result<bool> {
        let named = schema.get("properties");
        for (name, value) in value.as_object().into_iter().flatten() {
            if named.is_some_and(|named| named.get(name).is_some()) {
                continue;
            }
            match rule {
                Value::Bool(allowed) if !allowed => return Ok(false),
                Value::Bool(_) => {}
                rule => self.check(rule, value, &format!("{at}.{name}"))?,
            }
        }
        Ok(true)
    }

    fn matching(&self, schemas: &Value, value: &Value, at: &str) -> usize {
        items(schemas)
            .iter()
            .filter(|schema| self.check(schema, value, at).is_ok())
            .count()
    }
}

/// One text, or several.
fn words(rule: &Value) -> impl Iterator<Item = &str> {
    let one = rule.as_str();
    one.into_iter()
        .chain(items(rule).iter().filter_map(Value::as_str))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> Option<i128> {
    let unsigned = value.as_u64().map(i128::from);
    unsigned.or_else(|| value.as_i64().map(i128::from))
}

fn is_of_type(value: &Value, word: &str) -> bool {
    match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => number(value).is_some(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_malformed_is_refused() {
        let schema = Schema::read().expect("a schema");
        let request = |params: Value| {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": "guest.session.start", "params": params});
            schema.check_message(&message)
        };
        request(json!({"vm": "a", "command": ["x", {"base64": "/w=="}]})).expect("good");
        for bad in [
            json!({"vm": "a", "command": []}),
            json!({"vm": "a"}),
            json!({"vm": "a", "command": ["x"], "more": 1}),
            json!({"vm": "a", "command": ["x"], "name": "A b"}),
            json!({"vm": "a", "command": ["x"], "stdin": "socket"}),
            json!({"vm": "a", "command": ["x"], "env": [["a"]]}),
            json!({"vm": "a", "command": ["x"], "log_limit_bytes": -1}),
            json!({"vm": "a", "command": ["x"], "terminal": {"columns": 65536, "rows": 1}}),
            json!({"vm": "a", "command": ["x"], "tags": {"a": 1}}),
        ] {
            assert!(request(bad.clone()).is_err(), "{bad}");
        }
    }
}
