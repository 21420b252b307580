//! `generate` and `chat`.

use std::io::{BufRead, Write};
use std::sync::Arc;

use clap::Args;
use rocmforge::chat::RenderOptions;
use rocmforge::engine::Model;
use rocmforge::sampler::{Sampler, SamplerOptions};
use rocmforge::session::{GenerateOptions, OnFull, Session, SessionOptions};
use rocmforge::{Error, Result};
use serde_json::json;

use crate::{ModelArgs, read_text};

#[derive(Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue
    #[arg(short, long, required_unless_present = "file", conflicts_with = "file")]
    prompt: Option<String>,
    /// A file with the text to continue
    #[arg(short, long)]
    file: Option<std::path::PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

#[derive(Args)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A message to answer; without one, the conversation is read from standard input, a line a message
    #[arg(short, long)]
    prompt: Option<String>,
    /// The system message
    #[arg(short, long)]
    system: Option<String>,
    /// A file with a JSON array of tools
    #[arg(long)]
    tools: Option<std::path::PathBuf>,
    /// A file with a Jinja template to use instead of the model's
    #[arg(long)]
    template: Option<std::path::PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

#[derive(Args)]
struct SamplingArgs {
    /// Tokens at most; 0: until the model ends
    #[arg(short = 'n', long, default_value_t = 0)]
    max_tokens: usize,
    /// Tokens that fit into the session; 0: as many as the model was trained for
    #[arg(short, long, default_value_t = 0)]
    context: usize,
    /// 0 takes the likeliest token always
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Keep the k likeliest tokens; 0: all
    #[arg(long, default_value_t = 40)]
    top_k: u32,
    /// Keep the likeliest tokens that reach this probability
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Keep tokens this fraction as likely as the likeliest
    #[arg(long, default_value_t = 0.05)]
    min_p: f32,
    /// Locally typical sampling; 1: off
    #[arg(long, default_value_t = 1.0)]
    typical_p: f32,
    /// Penalty on tokens that came before; 1: off
    #[arg(long, default_value_t = 1.0)]
    repeat_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A text that ends generation (may be given several times)
    #[arg(long)]
    stop: Vec<String>,
    /// Compute with unquantised activations
    #[arg(long)]
    reference: bool,
}

impl SamplingArgs {
    fn session(&self, model: &Arc<Model>) -> Result<Session> {
        let options = SessionOptions { context: self.context, reference: self.reference, ..Default::default() };
        Session::new(model.clone(), options)
    }

    fn generation(&self) -> Result<GenerateOptions> {
        let sampler = Sampler::new(SamplerOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repeat_penalty,
            seed: self.seed,
            ..Default::default()
        })?;
        Ok(GenerateOptions {
            sampler: Some(Arc::new(sampler)),
            max_tokens: self.max_tokens,
            stop_strings: self.stop.clone(),
            on_full: OnFull::Stop,
            ..Default::default()
        })
    }
}

pub fn generate(args: GenerateArgs) -> Result<()> {
    let model = args.model.load(&args.model.engine()?)?;
    let prompt = match (args.prompt, &args.file) {
        (Some(prompt), _) => prompt,
        (None, Some(file)) => read_text(file)?,
        (None, None) => return Err(Error::argument("a prompt is needed")),
    };
    let mut session = args.sampling.session(&model)?;
    let mut tokens = model.tokenize(&prompt, true, true)?;
    if tokens.is_empty() {
        tokens.extend(model.tokenizer().bos().or(model.tokenizer().eos()));
    }
    session.decode(&tokens)?;
    print!("{prompt}");
    stream(&mut session, args.sampling.generation()?)?;
    print_stats(&session);
    Ok(())
}

pub fn chat(args: ChatArgs) -> Result<()> {
    let model = args.model.load(&args.model.engine()?)?;
    let tools = args.tools.as_ref().map(read_text).transpose()?;
    let template = args.template.as_ref().map(read_text).transpose()?;
    let mut session = args.sampling.session(&model)?;
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    let mut lines = std::io::stdin().lock().lines();
    let mut next = || -> Result<Option<String>> {
        eprint!("> ");
        lines.next().transpose().map_err(|e| Error::io("standard input", e))
    };
    let mut first = args.prompt.clone();
    while let Some(message) = if args.prompt.is_some() { first.take() } else { next()? } {
        messages.push(json!({"role": "user", "content": message}));
        let options = RenderOptions { tools_json: tools.as_deref(), add_generation_prompt: true, ..Default::default() };
        let conversation = serde_json::Value::from(messages.clone()).to_string();
        let text = match &template {
            Some(template) => model.format_chat_with(template, &conversation, &options)?,
            None => model.format_chat(&conversation, &options)?,
        };
        advance(&mut session, &model.tokenize(&text, true, true)?)?;
        let answer = stream(&mut session, args.sampling.generation()?)?;
        messages.push(json!({"role": "assistant", "content": answer}));
    }
    print_stats(&session);
    Ok(())
}

/// Brings the session to hold `tokens`, keeping what it has in common with them.
fn advance(session: &mut Session, tokens: &[u32]) -> Result<()> {
    let common = session.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
    // At least one token is decoded, so that there are logits.
    let common = common.min(tokens.len().saturating_sub(1));
    session.rewind(common)?;
    session.decode(tokens.get(common..).unwrap_or_default())
}

fn stream(session: &mut Session, options: GenerateOptions) -> Result<String> {
    let mut answer = String::new();
    session.begin(options)?;
    loop {
        let piece = session.next_piece()?;
        print!("{}", piece.text);
        std::io::stdout().flush().map_err(|e| Error::io("standard output", e))?;
        answer.push_str(&piece.text);
        if piece.finish.is_some() {
            println!();
            return Ok(answer);
        }
    }
}

fn print_stats(session: &Session) {
    let stats = session.stats();
    let rate = |tokens: u64, time: std::time::Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    eprintln!(
        "prefill: {} tokens, {:.1} tokens/s; decode: {} tokens, {:.1} tokens/s",
        stats.prefill_tokens,
        rate(stats.prefill_tokens, stats.prefill_time),
        stats.decode_tokens,
        rate(stats.decode_tokens, stats.decode_time)
    );
}
