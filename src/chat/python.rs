//! What Python does and Jinja relies on: how values print, and the methods of strings, lists and dictionaries.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{ErrorKind, Output, State};
use minijinja_contrib::pycompat;

use super::limits::{self, Bounded, MAX_DEPTH};
use super::operators;

type Rendered<T = ()> = Result<T, minijinja::Error>;

/// The error for lists and dictionaries that are nested too deeply, or in themselves.
pub(super) fn too_deep() -> minijinja::Error {
    invalid(format!("a value is nested deeper than {MAX_DEPTH} levels"))
}

/// The error for what Python would raise a TypeError or ValueError for.
pub(super) fn invalid(detail: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, detail.into())
}

/// Prints the value of `{{ … }}`: `str(value)`, and nothing for an undefined one.
pub(super) fn print(output: &mut Output, state: &mut State, value: &Value) -> Rendered {
    match value.as_str() {
        Some(text) => output.write_str(text)?,
        None => output.write_str(&text(state, value)?)?,
    }
    Ok(())
}

/// The filter `string`.
pub(super) fn string(state: &State, value: &Value) -> Rendered<Value> {
    match value.as_str() {
        Some(_) => Ok(value.clone()),
        None => Ok(Value::from(text(state, value)?)),
    }
}

/// The filter `join(d='', attribute=None)`.
pub(super) fn join(state: &State, value: &Value, separator: Option<&str>, arguments: Kwargs) -> Rendered<Value> {
    let separator = match separator {
        Some(separator) => separator,
        None => arguments.get::<Option<&str>>("d")?.unwrap_or_default(),
    };
    let attribute = arguments.get::<Option<&str>>("attribute")?;
    arguments.assert_all_used()?;
    let mut output = Bounded::new(state);
    for (at, item) in value.try_iter()?.enumerate() {
        if at > 0 {
            output.push(separator)?;
        }
        let item = attribute.map_or(Ok(item.clone()), |name| item.get_attr(name))?;
        write_str(&mut output, &item)?;
        state.consume_fuel(1)?;
    }
    finish(state, output)
}

/// The filter `indent(width=4, first=False, blank=False)`; unlike the engine's, Jinja2's keeps a last empty line.
pub(super) fn indent(
    state: &State,
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    arguments: Kwargs,
) -> Rendered<Value> {
    let width = width.map_or_else(|| arguments.get::<Option<Value>>("width"), |width| Ok(Some(width)))?;
    let first = first.map_or_else(|| arguments.get::<Option<bool>>("first"), |first| Ok(Some(first)))?;
    let blank = arguments.get::<Option<bool>>("blank")?.unwrap_or(false);
    arguments.assert_all_used()?;
    let indentation = indentation(state, &width.unwrap_or(Value::from(4)))?;
    let mut output = Bounded::new(state);
    for (at, line) in lines(text).enumerate() {
        output.push(if at > 0 { "\n" } else { "" })?;
        let indented = if at == 0 { first.unwrap_or(false) } else { blank || !line.is_empty() };
        output.push(if indented { &indentation } else { "" })?;
        output.push(line)?;
    }
    finish(state, output)
}

/// What one level of indentation is: that number of spaces, or the text itself.
pub(super) fn indentation(state: &State, width: &Value) -> Rendered<String> {
    if let Some(text) = width.as_str() {
        return Ok(text.to_owned());
    }
    let spaces = width.as_i64().ok_or_else(|| invalid("an indentation is a number of spaces or a string"))?;
    let spaces = usize::try_from(spaces).unwrap_or(0);
    if spaces > limits::affordable_bytes(state) {
        return Err(limits::out_of_fuel());
    }
    Ok(" ".repeat(spaces))
}

/// The lines of a text by all of Unicode's line ends, as in `str.splitlines`; what follows the last one is a line too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let is_end =
        |character| matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(is_end) else { return rest.take() };
        let (line, after) = text.split_at_checked(end)?;
        let mut after = after.chars();
        if after.next() == Some('\r') && after.as_str().starts_with('\n') {
            after.next();
        }
        rest = Some(after.as_str());
        Some(line)
    })
}

/// The test `iterable`: unlike the engine, Python cannot iterate over `none`.
pub(super) fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// The test `sequence`: what has a length and items by number or key, which strings and dictionaries do.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
}

/// `str(value)`, within the fuel that is left.
fn text(state: &State, value: &Value) -> Rendered<String> {
    let mut output = Bounded::new(state);
    write_str(&mut output, value)?;
    output.finish(state)
}

/// The text as a value.
pub(super) fn finish(state: &State, output: Bounded) -> Rendered<Value> {
    output.finish(state).map(Value::from)
}

/// Appends `str(value)`; nothing for an undefined one.
pub(super) fn write_str(output: &mut Bounded, value: &Value) -> Rendered {
    match value.kind() {
        ValueKind::String => output.push(value.as_str().unwrap_or_default()),
        ValueKind::Undefined => Ok(()),
        _ => write_repr(output, value, 0),
    }
}

/// `repr(value)`. The kinds without parts are printed by the engine, which follows Python.
fn write_repr(output: &mut Bounded, value: &Value, depth: usize) -> Rendered {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    output.part()?;
    match value.kind() {
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if !value.is_integer() => output.push(&float(number)),
            _ => output.push(&value.to_string()),
        },
        ValueKind::String => output.push(&format!("{value:?}")),
        ValueKind::Undefined => output.push("Undefined"),
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            output.push(open)?;
            let mut length = 0_usize;
            for item in value.try_iter()? {
                if length > 0 {
                    output.push(", ")?;
                }
                length += 1;
                write_repr(output, &item, depth + 1)?;
            }
            output.push(if value.is_tuple() && length == 1 { "," } else { "" })?;
            output.push(close)
        }
        ValueKind::Map => {
            output.push("{")?;
            for (at, key) in value.try_iter()?.enumerate() {
                output.push(if at > 0 { ", " } else { "" })?;
                write_repr(output, &key, depth + 1)?;
                output.push(": ")?;
                write_repr(output, &value.get_item(&key)?, depth + 1)?;
            }
            output.push("}")
        }
        _ => output.push(&value.to_string()),
    }
}

/// `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number == 0.0 || !number.is_finite() || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}").to_lowercase();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}

/// Calls a method that the engine does not know: Python's on strings, lists and dictionaries. Those whose result
/// may be far longer than what they are given are counted before they run.
pub(super) fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Rendered<Value> {
    arguments.iter().try_for_each(|argument| operators::check(state, argument))?;
    match (value.as_str(), name) {
        (Some(text), "replace") => replace(state, text, arguments),
        (Some(text), "splitlines") if arguments.is_empty() => {
            state.consume_fuel(text.len() as u64 / 2)?;
            let mut split: Vec<&str> = lines(text).collect();
            // A line end at the end of the text starts no further line.
            split.pop_if(|last| last.is_empty());
            Ok(split.into_iter().map(Value::from).collect())
        }
        (Some(separator), "join") => join_method(state, separator, arguments),
        (Some(text), "format") if !is_modest_format(text) => {
            Err(invalid("format: nested fields and widths above 9999 are not supported"))
        }
        (Some(text), _) => {
            state.consume_fuel(text.len() as u64 / limits::BYTES_PER_FUEL)?;
            pycompat::unknown_method_callback(state, value, name, arguments)
        }
        (None, "count") => {
            operators::check(state, value)?;
            pycompat::unknown_method_callback(state, value, name, arguments)
        }
        (None, _) => pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// `str.replace(old, new[, count])`.
fn replace(state: &State, text: &str, arguments: &[Value]) -> Rendered<Value> {
    let (old, new, count): (&str, &str, Option<i64>) = from_args(arguments)?;
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let found = text.matches(old).take(count).count();
    let longer = new.len().saturating_sub(old.len());
    if found.saturating_mul(longer).saturating_add(text.len()) > limits::affordable_bytes(state) {
        return Err(limits::out_of_fuel());
    }
    Ok(Value::from(text.replacen(old, new, count)))
}

/// `str.join(strings)`, which in Python refuses anything but strings.
fn join_method(state: &State, separator: &str, arguments: &[Value]) -> Rendered<Value> {
    let (items,): (&Value,) = from_args(arguments)?;
    let mut output = Bounded::new(state);
    for (at, item) in items.try_iter()?.enumerate() {
        let item = item.as_str().ok_or_else(|| invalid(format!("join: item {at} is no string but {}", item.kind())))?;
        output.push(if at > 0 { separator } else { "" })?;
        output.push(item)?;
        state.consume_fuel(1)?;
    }
    finish(state, output)
}

/// Whether no field of a format string asks for a width or precision of more than four digits, or takes it from an
/// argument by a field within the field.
fn is_modest_format(text: &str) -> bool {
    let (mut digits, mut in_field, mut previous) = (0, false, b' ');
    for byte in text.bytes() {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 4 || (byte == b'{' && in_field && previous != b'{') {
            return false;
        }
        in_field = byte == b'{' || (in_field && byte != b'}');
        previous = byte;
    }
    true
}
