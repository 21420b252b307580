//! Chat formats: a model's own Jinja template turns messages (JSON) into the text that the model was trained on.
//!
//! A template is rendered as `transformers` renders it for `apply_chat_template`, byte for byte: `trim_blocks` and
//! `lstrip_blocks` are on, `tojson` is Python's `json.dumps`, strings and dictionaries have Python's methods, and a
//! template sees `messages`, `tools` and `documents` (`none` when absent), `add_generation_prompt`, `bos_token`,
//! `eos_token`, `raise_exception(message)` and `strftime_now(format)`.
//!
//! A template comes from a model file, so it is not trusted: work and memory are paid for from [`BASE_FUEL`], the
//! output ends at [`MAX_OUTPUT_BYTES`], recursion has a limit, and parsing and rendering happen on a stack of their
//! own. Whatever a template does, the worst result is [`Error::Template`].

mod clock;
mod json;
mod limits;
mod operators;
mod program;
mod python;
mod source;
mod stack;
#[cfg(test)]
mod tests;

use std::fmt;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

pub use limits::{
    BASE_FUEL, FUEL_PER_INPUT_BYTE, MAX_DEPTH, MAX_OUTPUT_BYTES, MAX_RECURSION, MAX_SOURCE_BYTES, MAX_TAG_TOKENS,
};

use self::program::Program;
use crate::{Error, Result};

/// The name under which the one template is registered; it has no file extension, so nothing is HTML-escaped.
const NAME: &str = "chat_template";

/// The variables that [`ChatTemplate::render`] sets from its own arguments; `extra_json` may not name them.
const OWN_VARIABLES: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

/// A chat template, parsed once. Any number of threads may render it at the same time.
pub struct ChatTemplate {
    environment: Environment<'static>,
    program: Program,
    bos_token: String,
    eos_token: String,
}

/// What a rendering needs besides the messages; the default asks for nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenderOptions<'a> {
    /// The tools on offer: a JSON array, in the form that the model's template expects (mostly OpenAI's). None is `none`.
    pub tools_json: Option<&'a str>,
    /// Ends the text with the start of the assistant's turn, so that the model answers.
    pub add_generation_prompt: bool,
    /// A JSON object of further variables (`enable_thinking`, `documents` …). It overrides `bos_token` and `eos_token`.
    pub extra_json: Option<&'a str>,
    /// What `strftime_now` shows, in seconds since 1970, read as UTC, so that the same options give the same text
    /// everywhere. None is the host's clock in the host's time zone, as in Python.
    pub now: Option<i64>,
}

impl ChatTemplate {
    /// Parses a template. The tokens are what the template's `bos_token` and `eos_token` print.
    ///
    /// # Errors
    /// [`Error::Template`] with the line and the reason when it does not parse or is longer than [`MAX_SOURCE_BYTES`].
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<ChatTemplate> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::Template(format!(
                "the source has {} bytes, and at most {MAX_SOURCE_BYTES} are accepted",
                source.len()
            )));
        }
        let source = source::replace_generation_tags(source);
        let program = stack::run(|| Program::new(&source).map_err(template_error))?;
        Ok(ChatTemplate {
            environment: environment(),
            program,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
        })
    }

    /// Renders the messages, a JSON array of objects such as `[{"role": "user", "content": "Hello"}]`.
    ///
    /// # Errors
    /// [`Error::Argument`] when a JSON text is not what its field asks for; [`Error::Template`] with the line and the
    /// reason when the template does not accept the messages (`raise_exception` gives its own text) or exceeds a limit.
    pub fn render(&self, messages_json: &str, options: &RenderOptions) -> Result<String> {
        let lengths =
            [Some(messages_json), options.tools_json, options.extra_json].map(|text| text.map_or(0, str::len));
        let fuel = limits::fuel(lengths.iter().sum());
        stack::run(|| {
            let variables = self.variables(messages_json, options)?;
            self.render_here(variables, fuel)
        })
    }

    /// The template's variables, all of them checked.
    fn variables(&self, messages_json: &str, options: &RenderOptions) -> Result<Value> {
        let messages = json::parse_array("messages", messages_json)?;
        if let Some(at) = messages.iter().position(|message| !message.is_object()) {
            return Err(Error::argument(format!("messages: element {at} is not a JSON object")));
        }
        let tools = options.tools_json.map(|text| json::parse_array("tools", text)).transpose()?;
        let extra = options.extra_json.map(|text| json::parse_object("extra", text)).transpose()?.unwrap_or_default();
        if let Some(name) = OWN_VARIABLES.iter().find(|name| extra.contains_key(**name)) {
            return Err(Error::argument(format!("extra: `{name}` has a field of its own and may not be named here")));
        }
        let now = options.now;
        let own = [
            ("bos_token", Value::from(&*self.bos_token)),
            ("eos_token", Value::from(&*self.eos_token)),
            ("documents", Value::from(())),
            ("strftime_now", Value::from_function(move |format: &str| clock::strftime(format, now))),
        ];
        let extra = extra.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        let asked = [
            ("messages", Value::from(Serde(&messages))),
            ("tools", tools.map_or(Value::from(()), |tools| Value::from(Serde(&tools)))),
            ("add_generation_prompt", Value::from(options.add_generation_prompt)),
        ];
        Ok(Value::from_pairs(own.into_iter().chain(extra).chain(asked)))
    }

    fn render_here(&self, variables: Value, fuel: u64) -> Result<String> {
        // The clone shares everything; it is what lets each rendering have its own fuel.
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let text = self.program.render(&environment, variables).map_err(template_error)?;
        if text.len() > MAX_OUTPUT_BYTES {
            return Err(Error::Template(format!("its output is longer than {MAX_OUTPUT_BYTES} bytes")));
        }
        Ok(text)
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("bos_token", &self.bos_token)
            .field("eos_token", &self.eos_token)
            .finish_non_exhaustive()
    }
}

/// Jinja as `transformers` sets it up, without templates.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_formatter(python::print);
    environment.set_unknown_method_callback(python::method);
    operators::register(&mut environment);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", python::string);
    environment.add_filter("join", python::join);
    environment.add_filter("indent", python::indent);
    environment.add_test("iterable", python::is_iterable);
    environment.add_test("sequence", python::is_sequence);
    environment.add_function("raise_exception", raise_exception);
    // These print the state of the engine; no chat template needs them, and neither counts what it prints.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    environment
}

/// What a template calls to refuse messages; the text is the whole reason.
fn raise_exception(message: &str) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// The line and the reasons, from the outermost to the first cause.
fn template_error(error: minijinja::Error) -> Error {
    let mut text = error.line().map_or(String::new(), |line| format!("line {line}: "));
    text += &reason(&error);
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += ": ";
        text += &error.downcast_ref::<minijinja::Error>().map_or_else(|| error.to_string(), reason);
        cause = error.source();
    }
    Error::Template(text)
}

fn reason(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "it does more work than the limit allows".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    }
}
