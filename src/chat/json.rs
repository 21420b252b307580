//! JSON in (messages, tools, variables) and out (the `tojson` filter, which is Python's `json.dumps`).

use minijinja::State;
use minijinja::value::{Kwargs, Value, ValueKind};

use super::limits::{Bounded, MAX_DEPTH};
use super::python::{self, invalid};
use crate::{Error, Result};

type Rendered<T = ()> = std::result::Result<T, minijinja::Error>;

/// A JSON array, or an argument error that names what it should have been.
pub(super) fn parse_array(what: &str, text: &str) -> Result<Vec<serde_json::Value>> {
    match parse(what, text)? {
        serde_json::Value::Array(items) => Ok(items),
        _ => Err(Error::argument(format!("{what}: a JSON array is needed"))),
    }
}

/// A JSON object, or an argument error that names what it should have been.
pub(super) fn parse_object(what: &str, text: &str) -> Result<serde_json::Map<String, serde_json::Value>> {
    match parse(what, text)? {
        serde_json::Value::Object(object) => Ok(object),
        _ => Err(Error::argument(format!("{what}: a JSON object is needed"))),
    }
}

fn parse(what: &str, text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).map_err(|error| Error::argument(format!("{what}: not JSON: {error}")))
}

/// The layout of `json.dumps`.
struct Style {
    ensure_ascii: bool,
    sort_keys: bool,
    /// One level of indentation; None writes everything in one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

/// The filter `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, without HTML escapes.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    arguments: Kwargs,
) -> Rendered<Value> {
    let ensure_ascii = match ensure_ascii {
        Some(ensure_ascii) => ensure_ascii,
        None => arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or_default(),
    };
    let indent = match indent {
        Some(indent) => Some(indent),
        None => arguments.get::<Option<Value>>("indent")?,
    };
    let indent =
        indent.filter(|indent| !indent.is_none()).map(|indent| python::indentation(state, &indent)).transpose()?;
    let separators = arguments.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none());
    let separators = separators.map(pair).transpose()?;
    let sort_keys = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or_default();
    arguments.assert_all_used()?;
    let between = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) = separators.unwrap_or_else(|| (between.to_owned(), ": ".to_owned()));
    let style = Style { ensure_ascii, sort_keys, indent, item_separator, key_separator };
    let mut output = Bounded::new(state);
    style.write(&mut output, value, 0)?;
    python::finish(state, output)
}

fn pair(value: Value) -> Rendered<(String, String)> {
    let items: Vec<Value> = value.try_iter()?.take(3).collect();
    match items.as_slice() {
        [item, key] => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.to_owned(), key.to_owned())),
            _ => Err(invalid("tojson: `separators` is not a pair of strings")),
        },
        _ => Err(invalid("tojson: `separators` is not a pair of strings")),
    }
}

impl Style {
    fn write(&self, output: &mut Bounded, value: &Value, depth: usize) -> Rendered {
        if depth > MAX_DEPTH {
            return Err(python::too_deep());
        }
        output.part()?;
        match value.kind() {
            ValueKind::None => output.push("null"),
            ValueKind::Bool => output.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => output.push(&number(value)),
            ValueKind::String => self.write_string(output, value.as_str().unwrap_or_default()),
            ValueKind::Seq => self.write_list(output, value, depth),
            ValueKind::Map => self.write_map(output, value, depth),
            kind => Err(invalid(format!("tojson: a value of type {kind} is not JSON"))),
        }
    }

    fn write_list(&self, output: &mut Bounded, value: &Value, depth: usize) -> Rendered {
        output.push("[")?;
        let mut empty = true;
        for item in value.try_iter()? {
            self.start_item(output, empty, depth)?;
            empty = false;
            self.write(output, &item, depth + 1)?;
        }
        self.end(output, "]", empty, depth)
    }

    fn write_map(&self, output: &mut Bounded, value: &Value, depth: usize) -> Rendered {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        output.push("{")?;
        for (at, key) in keys.iter().enumerate() {
            self.start_item(output, at == 0, depth)?;
            match key.kind() {
                ValueKind::String => self.write_string(output, key.as_str().unwrap_or_default())?,
                ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                    output.push("\"")?;
                    self.write(output, key, depth)?;
                    output.push("\"")?;
                }
                kind => return Err(invalid(format!("tojson: a key of type {kind} is not JSON"))),
            }
            output.push(&self.key_separator)?;
            self.write(output, &value.get_item(key)?, depth + 1)?;
        }
        self.end(output, "}", keys.is_empty(), depth)
    }

    fn start_item(&self, output: &mut Bounded, first: bool, depth: usize) -> Rendered {
        if !first {
            output.push(&self.item_separator)?;
        }
        self.new_line(output, depth + 1)
    }

    fn end(&self, output: &mut Bounded, close: &str, empty: bool, depth: usize) -> Rendered {
        if !empty {
            self.new_line(output, depth)?;
        }
        output.push(close)
    }

    fn new_line(&self, output: &mut Bounded, depth: usize) -> Rendered {
        let Some(indent) = &self.indent else { return Ok(()) };
        output.push("\n")?;
        (0..depth).try_for_each(|_| output.push(indent))
    }

    fn write_string(&self, output: &mut Bounded, text: &str) -> Rendered {
        output.push("\"")?;
        let mut plain = 0;
        for (at, character) in text.char_indices() {
            let escape = match character {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\u{8}' => "\\b".to_owned(),
                '\u{c}' => "\\f".to_owned(),
                '\0'..='\u{1f}' => format!("\\u{:04x}", u32::from(character)),
                '\u{7f}'.. if self.ensure_ascii => {
                    character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
                _ => continue,
            };
            output.push(text.get(plain..at).unwrap_or_default())?;
            output.push(&escape)?;
            plain = at + character.len_utf8();
        }
        output.push(text.get(plain..).unwrap_or_default())?;
        output.push("\"")
    }
}

/// A number as `json.dumps` writes it.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => match number {
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            _ if number.is_nan() => "NaN".to_owned(),
            _ => python::float(number),
        },
        _ => value.to_string(),
    }
}
