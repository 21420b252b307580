//! Python's operators, each of which pays for the work that it does.
//!
//! They are registered as filters under names that no template can write. Values can share parts, so a small program
//! can build a value that is huge when walked (`x = [x, x]`, again and again): whatever looks into a value calls
//! [`check`] on it first.

use std::cmp::Ordering;

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, ErrorKind, State};

use super::limits::{self, Bounded, MAX_DEPTH, PARTS_PER_FUEL};
use super::python::{self, invalid};

type Rendered<T = Value> = Result<T, minijinja::Error>;

pub(super) const ADD: &str = "+";
pub(super) const MULTIPLY: &str = "*";
pub(super) const CONCATENATE: &str = "~";
pub(super) const EQUAL: &str = "==";
pub(super) const UNEQUAL: &str = "!=";
pub(super) const LESS: &str = "<";
pub(super) const LESS_OR_EQUAL: &str = "<=";
pub(super) const GREATER: &str = ">";
pub(super) const GREATER_OR_EQUAL: &str = ">=";
pub(super) const IN: &str = "%in";
pub(super) const CHECK: &str = "%check";
pub(super) const STORE: &str = "%store";
pub(super) const ITERATE: &str = "%iterate";
pub(super) const MATERIALIZE: &str = "%materialize";
pub(super) const KEY: &str = "%key";
pub(super) const DICTIONARY: &str = "%dictionary";
pub(super) const APPLY: &str = "%apply";

/// Filters that give a generator in Python: it can be iterated and turned into a list, and is no JSON.
const GENERATORS: [&str; 8] = ["map", "select", "selectattr", "reject", "rejectattr", "unique", "batch", "slice"];

/// The operator that a test is another name for.
pub(super) fn of_test(name: &str) -> Option<&'static str> {
    Some(match name {
        "eq" | "equalto" | "==" => EQUAL,
        "ne" | "!=" => UNEQUAL,
        "lt" | "lessthan" | "<" => LESS,
        "le" | "<=" => LESS_OR_EQUAL,
        "gt" | "greaterthan" | ">" => GREATER,
        "ge" | ">=" => GREATER_OR_EQUAL,
        "in" => IN,
        _ => return None,
    })
}

/// Makes the operators known.
pub(super) fn register(environment: &mut Environment) {
    environment.add_filter(ADD, add);
    environment.add_filter(MULTIPLY, multiply);
    environment.add_filter(CONCATENATE, concatenate);
    environment.add_filter(EQUAL, |state: &State, a: &Value, b: &Value| equal(state, a, b));
    environment.add_filter(UNEQUAL, |state: &State, a: &Value, b: &Value| equal(state, a, b).map(|equal| !equal));
    environment.add_filter(LESS, |state: &State, a: &Value, b: &Value| order(state, a, b).map(Ordering::is_lt));
    environment
        .add_filter(LESS_OR_EQUAL, |state: &State, a: &Value, b: &Value| order(state, a, b).map(Ordering::is_le));
    environment.add_filter(GREATER, |state: &State, a: &Value, b: &Value| order(state, a, b).map(Ordering::is_gt));
    environment
        .add_filter(GREATER_OR_EQUAL, |state: &State, a: &Value, b: &Value| order(state, a, b).map(Ordering::is_ge));
    environment.add_filter(IN, contains);
    environment.add_filter(CHECK, |state: &State, value: Value| check(state, &value).map(|()| value));
    environment.add_filter(STORE, store);
    environment.add_filter(ITERATE, iterate);
    environment.add_filter(MATERIALIZE, materialize);
    environment.add_filter(KEY, |key: Value| hashable(&key).map(|()| key));
    environment.add_filter(DICTIONARY, dictionary);
    environment.add_filter(APPLY, apply);
}

/// Walks all parts of a value, as often as they are reached, and pays for them.
pub(super) fn check(state: &State, value: &Value) -> Rendered<()> {
    let left = state.fuel_levels().map_or(0, |(_, left)| left);
    let mut budget = left.saturating_mul(PARTS_PER_FUEL);
    let start = budget;
    walk(value, 0, &mut budget)?;
    state.consume_fuel((start - budget) / PARTS_PER_FUEL)
}

fn walk(value: &Value, depth: usize, budget: &mut u64) -> Rendered<()> {
    *budget = budget.checked_sub(1).ok_or_else(limits::out_of_fuel)?;
    if depth > MAX_DEPTH {
        return Err(python::too_deep());
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| walk(&item, depth + 1, budget)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| {
            walk(&key, depth + 1, budget)?;
            walk(&value.get_item(&key)?, depth + 1, budget)
        }),
        _ => Ok(()),
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

fn type_error(operator: &str, a: &Value, b: &Value) -> minijinja::Error {
    invalid(format!("`{operator}` is not possible between {} and {}", a.kind(), b.kind()))
}

/// Refuses what would take more memory than the fuel that is left pays for.
fn afford(state: &State, bytes: Option<usize>) -> Rendered<()> {
    match bytes {
        Some(bytes) if bytes <= limits::affordable_bytes(state) => Ok(()),
        _ => Err(limits::out_of_fuel()),
    }
}

fn add(state: &State, a: &Value, b: &Value) -> Rendered {
    match (a.as_str(), b.as_str()) {
        (Some(first), Some(second)) => {
            afford(state, first.len().checked_add(second.len()))?;
            // Python's Markup, which `safe` gives, escapes what is added to it, whether pages are escaped or not.
            return Ok(match (a.is_safe(), b.is_safe()) {
                (false, false) => Value::from([first, second].concat()),
                (true, true) => Value::from_safe_string([first, second].concat()),
                (true, false) => Value::from_safe_string(format!("{first}{}", escape(second))),
                (false, true) => Value::from_safe_string(format!("{}{second}", escape(first))),
            });
        }
        _ if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() => {
            let items = collect(state, a.try_iter()?.chain(b.try_iter()?))?;
            return Ok(if a.is_tuple() { tuple(items) } else { Value::from(items) });
        }
        _ if is_number(a) && is_number(b) => {}
        _ => return Err(type_error(ADD, a, b)),
    }
    arithmetic(ADD, a, b, i128::checked_add, |a, b| a + b)
}

fn multiply(state: &State, a: &Value, b: &Value) -> Rendered {
    if is_number(a) && is_number(b) {
        return arithmetic(MULTIPLY, a, b, i128::checked_mul, |a, b| a * b);
    }
    let (repeated, times) = if is_number(b) { (a, b) } else { (b, a) };
    let times = times.as_i64().ok_or_else(|| type_error(MULTIPLY, a, b))?;
    let times = usize::try_from(times).unwrap_or(0);
    if let Some(text) = repeated.as_str() {
        afford(state, text.len().checked_mul(times))?;
        return Ok(Value::from(text.repeat(times)));
    }
    if !is_list(repeated) {
        return Err(type_error(MULTIPLY, a, b));
    }
    let items = collect(state, repeated.try_iter()?)?;
    // Counted by the items, so that repeating an empty list ends as well.
    let times = if items.is_empty() { 0 } else { times };
    let items = collect(state, std::iter::repeat_n(items, times).flatten())?;
    Ok(if repeated.is_tuple() { tuple(items) } else { Value::from(items) })
}

fn tuple(items: Vec<Value>) -> Value {
    Value::from(minijinja::value::Tuple::from(items))
}

fn arithmetic(
    operator: &str,
    a: &Value,
    b: &Value,
    exact: fn(i128, i128) -> Option<i128>,
    float: fn(f64, f64) -> f64,
) -> Rendered {
    let is_float = |value: &Value| value.kind() == ValueKind::Number && !value.is_integer();
    if is_float(a) || is_float(b) {
        return Ok(Value::from(float(f64::try_from(a.clone())?, f64::try_from(b.clone())?)));
    }
    let integers = (i128::try_from(a.clone())?, i128::try_from(b.clone())?);
    let result =
        exact(integers.0, integers.1).ok_or_else(|| invalid(format!("the result of `{operator}` is too large")))?;
    Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '\'' => escaped += "&#39;",
            '"' => escaped += "&#34;",
            other => escaped.push(other),
        }
    }
    escaped
}

fn concatenate(state: &State, a: &Value, b: &Value) -> Rendered {
    let mut output = Bounded::new(state);
    python::write_str(&mut output, a)?;
    python::write_str(&mut output, b)?;
    python::finish(state, output)
}

fn equal(state: &State, a: &Value, b: &Value) -> Rendered<bool> {
    if a.as_object().is_some() && b.as_object().is_some() {
        check(state, a)?;
        check(state, b)?;
    }
    Ok(a == b)
}

fn order(state: &State, a: &Value, b: &Value) -> Rendered<Ordering> {
    let comparable =
        (is_number(a) && is_number(b)) || (a.as_str().is_some() && b.as_str().is_some()) || (is_list(a) && is_list(b));
    if !comparable {
        return Err(type_error(LESS, a, b));
    }
    check(state, a)?;
    check(state, b)?;
    Ok(a.cmp(b))
}

fn contains(state: &State, item: &Value, container: &Value) -> Rendered<bool> {
    if let Some(text) = container.as_str() {
        state.consume_fuel(text.len() as u64 / limits::BYTES_PER_FUEL)?;
        return item.as_str().map(|item| text.contains(item)).ok_or_else(|| type_error("in", item, container));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => {
            hashable(item)?;
            Ok(container.as_object().is_some_and(|map| map.get_value(item).is_some()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for other in container.try_iter()? {
                state.consume_fuel(1)?;
                if equal(state, item, &other)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(type_error("in", item, container)),
    }
}

/// What a loop runs over: unlike the engine, Python does not take `none` for an empty list.
fn iterate(value: Value) -> Rendered {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            Err(invalid(format!("a value of type {} cannot be iterated", value.kind())))
        }
        _ => Ok(value),
    }
}

/// A list of its own instead of a view of another one: views of views would nest without end.
fn materialize(state: &State, value: Value) -> Rendered {
    if value.kind() == ValueKind::Iterable { Ok(Value::from(collect(state, value.try_iter()?)?)) } else { Ok(value) }
}

fn collect(state: &State, items: impl Iterator<Item = Value>) -> Rendered<Vec<Value>> {
    let mut collected = Vec::new();
    for item in items {
        state.consume_fuel(1)?;
        collected.push(item);
    }
    Ok(collected)
}

/// What is assigned to a namespace's attribute. That is the only state that outlives a round of a loop, so its nesting
/// is limited here; and a namespace may not hold namespaces, as one that held itself would never be freed.
fn store(state: &State, value: Value) -> Rendered {
    let value = materialize(state, value)?;
    check(state, &value)?;
    if holds_namespace(&value) {
        return Err(invalid("a namespace cannot be stored in a namespace"));
    }
    Ok(value)
}

fn holds_namespace(value: &Value) -> bool {
    let is_namespace = value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"));
    is_namespace
        || match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                value.try_iter().is_ok_and(|mut items| items.any(|item| holds_namespace(&item)))
            }
            ValueKind::Map => value
                .try_iter()
                .is_ok_and(|mut keys| keys.any(|key| value.get_item(&key).is_ok_and(|item| holds_namespace(&item)))),
            _ => false,
        }
}

/// Refuses what Python cannot use as a key; it would be hashed as a whole.
fn hashable(key: &Value) -> Rendered<()> {
    match key.kind() {
        kind @ (ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Plain) => {
            Err(invalid(format!("a value of type {kind} cannot be a key")))
        }
        _ => Ok(()),
    }
}

/// `{key: value, …}`, from keys and values in turn.
fn dictionary(Rest(parts): Rest<Value>) -> Rendered {
    let mut pairs = Vec::with_capacity(parts.len() / 2);
    for pair in parts.chunks_exact(2) {
        if let [key, value] = pair {
            hashable(key)?;
            pairs.push((key.clone(), value.clone()));
        }
    }
    Ok(Value::from_pairs(pairs))
}

/// Applies the filter whose name is the last argument to the others.
fn apply(state: &mut State, arguments: Rest<ValueOrKwargs>) -> Rendered {
    let mut arguments = arguments.into_values();
    let name = arguments.pop().unwrap_or_default();
    let name = name.as_str().unwrap_or_default();
    for argument in &arguments {
        check(state, argument)?;
    }
    let result = state.apply_filter(name, &arguments).map_err(|error| match error.kind() {
        ErrorKind::UnknownFilter => {
            minijinja::Error::new(ErrorKind::UnknownFilter, format!("filter {name} is unknown"))
        }
        _ => error,
    })?;
    if !GENERATORS.contains(&name) {
        return Ok(result);
    }
    let items: Vec<Value> = result.try_iter()?.collect();
    Ok(Value::make_iterable(move || items.clone().into_iter()))
}
