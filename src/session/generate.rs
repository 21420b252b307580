//! Generation: the next token, its text in whole UTF-8, and when to end.

use std::sync::Arc;

use super::Session;
use crate::error::{Error, Result};
use crate::sampler::{Sampler, SamplerOptions, StopMatcher, Stops};
use crate::tokenizer::TextStream;

/// What happens when the context is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFull {
    /// [`Error::ContextFull`].
    #[default]
    Error,
    /// Generation ends with [`Finish::Full`].
    Stop,
}

/// How to generate.
#[derive(Clone, Default)]
pub struct GenerateOptions {
    /// Chooses the tokens; `None`: the default sampler.
    pub sampler: Option<Arc<Sampler>>,
    /// Tokens at most; 0: until an end token, a stop string, or the context is full.
    pub max_tokens: usize,
    /// Texts that end generation; they are not part of what is returned.
    pub stop_strings: Vec<String>,
    /// Tokens that end generation besides the model's own end tokens.
    pub stop_tokens: Vec<u32>,
    /// Go on after the model's own end tokens.
    pub ignore_end: bool,
    /// Write control tokens (`<|im_start|>` and its like) as text.
    pub special: bool,
    /// What happens when the context is full.
    pub on_full: OnFull,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave an end token, or a stop token came.
    EndToken = 1,
    /// A stop string came.
    StopString = 2,
    /// `max_tokens` were generated.
    MaxTokens = 3,
    /// The context is full.
    Full = 4,
}

/// One step of generation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// The token; `None` if generation ended without one.
    pub token: Option<u32>,
    /// Whole UTF-8, possibly empty: text that may become a character or a stop string is held back.
    pub text: String,
    /// Set on the last piece.
    pub finish: Option<Finish>,
}

/// The state of a generation.
#[derive(Default)]
pub(super) struct Generation {
    options: GenerateOptions,
    sampler: Option<Arc<Sampler>>,
    stops: Arc<Stops>,
    matcher: Option<StopMatcher>,
    stream: TextStream,
    generated: usize,
    /// Sampled and returned, but not yet in the cache: it is decoded when the token after it is wanted.
    pending: Option<u32>,
    finish: Option<Finish>,
}

impl Generation {
    fn new(options: GenerateOptions) -> Result<Generation> {
        let sampler = match &options.sampler {
            Some(sampler) => sampler.clone(),
            None => Arc::new(Sampler::new(SamplerOptions::default())?),
        };
        let stops = Arc::new(Stops::new(&options.stop_strings, &options.stop_tokens)?);
        let matcher = Some(StopMatcher::new(stops.clone()));
        Ok(Generation { options, sampler: Some(sampler), stops, matcher, ..Default::default() })
    }

    /// The part of the held-back text and `piece` that can be shown, and whether a stop string is complete.
    fn release(&mut self, piece: &str) -> (String, bool) {
        let mut shown = String::new();
        let stopped = self.matcher.as_mut().is_some_and(|m| m.feed(piece, &mut shown).is_some());
        (shown, stopped)
    }

    pub(super) fn pending(&self) -> Option<u32> {
        self.pending
    }

    pub(super) fn forget_pending(&mut self) {
        self.pending = None;
    }
}

impl Session {
    /// Begins a generation from where the session stands. A token that the last generation returned and that is not in
    /// the cache yet stays due: the next [`Session::next_piece`] or [`Session::flush`] decodes it.
    pub fn begin(&mut self, options: GenerateOptions) -> Result<()> {
        let n_vocab = self.model.network().n_vocab();
        if let Some(id) = options.stop_tokens.iter().find(|&&id| id as usize >= n_vocab) {
            return Err(Error::argument(format!("stop token {id} is outside the vocabulary of {n_vocab} tokens")));
        }
        let pending = self.generation.pending;
        self.generation = Generation { pending, ..Generation::new(options)? };
        Ok(())
    }

    /// Decodes the token that the last [`Session::next_piece`] returned, if it is not in the cache yet.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(token) = self.generation.pending {
            self.decode(&[token])?;
            self.generation.pending = None;
        }
        Ok(())
    }

    /// The next token and its text. After the piece with a `finish`, only that finish is returned again.
    pub fn next_piece(&mut self) -> Result<Piece> {
        if self.generation.sampler.is_none() {
            self.begin(GenerateOptions::default())?;
        }
        if let Some(finish) = self.generation.finish {
            return Ok(Piece { finish: Some(finish), ..Default::default() });
        }
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match self.flush() {
            Err(Error::ContextFull { .. }) if self.generation.options.on_full == OnFull::Stop => {
                return Ok(self.finish(None, String::new(), Finish::Full));
            }
            other => other?,
        }
        let sampler = self.generation.sampler.clone().ok_or_else(|| Error::Internal("no sampler".into()))?;
        let token = self.sample(&sampler)?;
        self.generation.generated += 1;
        let ends = self.model.tokenizer().is_end_of_generation(token) && !self.generation.options.ignore_end;
        if ends || self.generation.stops.is_stop_token(token) {
            return Ok(self.finish(Some(token), String::new(), Finish::EndToken));
        }
        self.generation.pending = Some(token);
        self.piece(token)
    }

    fn piece(&mut self, token: u32) -> Result<Piece> {
        let generation = &mut self.generation;
        let mut bytes = Vec::new();
        self.model.tokenizer().token_bytes(token, generation.options.special, &mut bytes)?;
        let whole = generation.stream.push(&bytes).to_string();
        let (text, stopped) = generation.release(&whole);
        if stopped {
            return Ok(self.finish(Some(token), text, Finish::StopString));
        }
        if generation.options.max_tokens != 0 && generation.generated >= generation.options.max_tokens {
            return Ok(self.finish(Some(token), text, Finish::MaxTokens));
        }
        Ok(Piece { token: Some(token), text, finish: None })
    }

    /// The last piece, with the text that was held back for a character or a stop string that did not come.
    fn finish(&mut self, token: Option<u32>, mut text: String, finish: Finish) -> Piece {
        let generation = &mut self.generation;
        generation.finish = Some(finish);
        if finish != Finish::StopString {
            let tail = generation.stream.finish().to_string();
            text.push_str(&generation.release(&tail).0);
            if let Some(matcher) = &mut generation.matcher {
                matcher.finish(&mut text);
            }
        }
        Piece { token, text, finish: Some(finish) }
    }
}
