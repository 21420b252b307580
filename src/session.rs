//! A session: one sequence of tokens, its key-value cache, and everything that changes.
//!
//! Failed and cancelled calls leave a session as it was before the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::backend::{Batch, KvPage, KvShape, KvType, PAGE_TOKENS, Rope, Span, Workspace};
use crate::engine::Model;
use crate::error::{Error, Result};
use crate::sampler::{Sampler, SamplerOptions, SamplerState};

mod batch;
mod generate;
use generate::Generation;
pub use generate::{Finish, GenerateOptions, OnFull, Piece};

/// Rows of one step at most.
pub const MAX_BATCH: usize = 4096;
/// Rows of logits that are computed at a time where all are wanted.
const LOGIT_ROWS: usize = 8;

/// Receives the index of a token and the logits that follow it.
pub type EachLogits<'a> = dyn FnMut(usize, &[f32]) + 'a;

/// Stops work from any thread: the call that it interrupts returns [`Error::Cancelled`].
#[derive(Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not raised.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Allows work again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether it is raised.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How to make a [`Session`].
#[derive(Default)]
pub struct SessionOptions {
    /// Tokens that fit; 0: as many as the network was trained for. Memory is taken as it is used.
    pub context: usize,
    /// Rows of one step of a prompt; 0: what is best where the model is.
    pub batch: usize,
    /// Reference mode: activations are not quantised and the cache is float32.
    pub reference: bool,
    /// Raised to stop this session's work.
    pub cancel: Option<CancelToken>,
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Tokens computed in calls of more than one token.
    pub prefill_tokens: u64,
    /// Time that they took.
    pub prefill_time: Duration,
    /// Tokens computed one at a time.
    pub decode_tokens: u64,
    /// Time that they took.
    pub decode_time: Duration,
}

/// One sequence over a shared model. Used by one thread at a time.
pub struct Session {
    ropes: Vec<Rope>,
    work: Workspace,
    kv_shape: KvShape,
    pages: Vec<Arc<KvPage>>,
    tokens: Vec<u32>,
    capacity: usize,
    batch: usize,
    /// Rows of logits that the workspace computes at a time.
    logit_rows: usize,
    logits: Vec<f32>,
    has_logits: bool,
    cancel: CancelToken,
    sampler: Option<(Arc<Sampler>, SamplerState)>,
    default_sampler: Option<Arc<Sampler>>,
    generation: Generation,
    stats: Stats,
    /// Last: what a session holds on a device goes before the device's code does.
    model: Arc<Model>,
}

impl Session {
    /// An empty session over `model`.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Session> {
        let network = model.network();
        let trained = network.config.context_length;
        let capacity = if options.context == 0 { trained } else { options.context };
        if capacity > crate::model::config::MAX_CONTEXT {
            return Err(Error::argument(format!("a context of {capacity} tokens was asked for")));
        }
        let batch = match options.batch {
            0 => network.backend().best_batch(),
            n if n <= MAX_BATCH => n,
            n => {
                return Err(Error::argument(format!(
                    "a batch of {n} rows was asked for, at most {MAX_BATCH} are served"
                )));
            }
        };
        let batch = batch.min(capacity);
        let kv_type = if options.reference { KvType::F32 } else { KvType::F16 };
        Ok(Session {
            ropes: network.ropes(capacity),
            work: network.workspace(batch, LOGIT_ROWS.min(batch), options.reference)?,
            kv_shape: network.kv_shape(kv_type),
            pages: Vec::new(),
            tokens: Vec::new(),
            capacity,
            batch,
            logit_rows: LOGIT_ROWS.min(batch),
            logits: vec![0.0; network.n_vocab()],
            has_logits: false,
            cancel: options.cancel.unwrap_or_default(),
            sampler: None,
            default_sampler: None,
            generation: Generation::default(),
            stats: Stats::default(),
            model,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The tokens that the cache holds.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that the cache holds.
    pub fn used(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the key-value cache now.
    pub fn kv_bytes(&self) -> usize {
        self.pages.len() * self.kv_shape.page_bytes().unwrap_or(0)
    }

    /// What was done so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Appends `tokens` and computes the logits that follow the last of them.
    pub fn decode(&mut self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::argument("no token was given to decode"));
        }
        let began = Instant::now();
        self.append(tokens, None)?;
        match tokens.len() {
            1 => {
                self.stats.decode_tokens += 1;
                self.stats.decode_time += began.elapsed();
            }
            n => {
                self.stats.prefill_tokens += n as u64;
                self.stats.prefill_time += began.elapsed();
            }
        }
        Ok(())
    }

    /// Appends `tokens` and shows the logits that follow each of them: `each(i, logits)`.
    pub fn decode_each(&mut self, tokens: &[u32], each: &mut EachLogits) -> Result<()> {
        self.append(tokens, Some(each))
    }

    /// The logits that follow the last token, one for each token of the vocabulary.
    pub fn logits(&self) -> Result<&[f32]> {
        if self.has_logits {
            Ok(&self.logits)
        } else {
            Err(Error::argument("there are no logits: decode a token first"))
        }
    }

    /// Chooses the next token by `sampler`. The session stays as it is, but for the sampler's random state.
    pub fn sample(&mut self, sampler: &Arc<Sampler>) -> Result<u32> {
        self.logits()?;
        let same = self.sampler.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, sampler));
        if !same {
            self.sampler = Some((sampler.clone(), sampler.state()));
        }
        match &mut self.sampler {
            Some((sampler, state)) => sampler.sample(state, &self.logits, &self.tokens),
            None => Err(Error::Internal("a sampler without a state".into())),
        }
    }

    /// Chooses the next token by the default sampler.
    pub fn sample_by_default(&mut self) -> Result<u32> {
        let sampler = match &self.default_sampler {
            Some(sampler) => sampler.clone(),
            None => Arc::new(Sampler::new(SamplerOptions::default())?),
        };
        self.default_sampler = Some(sampler.clone());
        self.sample(&sampler)
    }

    /// Shortens the session to its first `n` tokens. The logits are gone until the next decode.
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        if n > self.tokens.len() {
            return Err(Error::argument(format!(
                "cannot rewind to {n} tokens: the session holds {}",
                self.tokens.len()
            )));
        }
        self.truncate(n);
        self.has_logits = false;
        self.generation.forget_pending();
        Ok(())
    }

    fn truncate(&mut self, n: usize) {
        self.tokens.truncate(n);
        self.pages.truncate(n.div_ceil(PAGE_TOKENS));
    }

    fn append(&mut self, tokens: &[u32], mut each: Option<&mut EachLogits>) -> Result<()> {
        self.check(tokens)?;
        let before = self.tokens.len();
        let had_logits = self.has_logits;
        let mut done = 0;
        for chunk in tokens.chunks(self.batch) {
            let result = self.step(chunk).and_then(|()| match &mut each {
                Some(each) => self.show_logits(chunk.len(), done, *each),
                None if done + chunk.len() == tokens.len() => self.keep_logits(chunk.len()),
                None => Ok(()),
            });
            if let Err(error) = result {
                self.truncate(before);
                self.has_logits = had_logits && each.is_none();
                return Err(error);
            }
            done += chunk.len();
        }
        Ok(())
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        let n_vocab = self.model.network().n_vocab();
        if let Some((i, id)) = tokens.iter().enumerate().find(|&(_, &id)| id as usize >= n_vocab) {
            return Err(Error::argument(format!(
                "token {id} at index {i} is outside the vocabulary of {n_vocab} tokens"
            )));
        }
        if tokens.len() > self.capacity - self.tokens.len() {
            return Err(Error::ContextFull { used: self.tokens.len(), capacity: self.capacity, asked: tokens.len() });
        }
        Ok(())
    }

    /// One step: the rows of `chunk` through all layers.
    fn step(&mut self, chunk: &[u32]) -> Result<()> {
        let network = self.model.network();
        let position = self.tokens.len();
        let end = position + chunk.len();
        while self.pages.len() < end.div_ceil(PAGE_TOKENS) {
            self.pages.push(Arc::new(network.backend().kv_page(&self.kv_shape)?));
        }
        let span = Span { rows: 0..chunk.len(), position, pages: &mut self.pages };
        let mut batch = Batch { tokens: chunk, spans: vec![span] };
        let cancel = &self.cancel;
        network.forward(&mut self.work, &mut batch, &self.ropes, &|| cancel.is_cancelled())?;
        self.tokens.extend_from_slice(chunk);
        Ok(())
    }

    fn keep_logits(&mut self, rows: usize) -> Result<()> {
        let logits = self.model.network().logits(&mut self.work, rows - 1..rows)?;
        if !all_finite(logits) {
            return Err(not_finite(&self.model));
        }
        self.logits.copy_from_slice(logits);
        self.has_logits = true;
        Ok(())
    }

    fn show_logits(&mut self, rows: usize, first: usize, each: &mut EachLogits) -> Result<()> {
        let model = self.model.clone();
        let network = model.network();
        let step = self.logit_rows;
        for start in (0..rows).step_by(step) {
            let end = rows.min(start + step);
            let logits = network.logits(&mut self.work, start..end)?;
            if !all_finite(logits) {
                return Err(not_finite(&self.model));
            }
            for (i, row) in logits.chunks_exact(network.n_vocab()).enumerate() {
                each(first + start + i, row);
                if end == rows && start + i + 1 == end {
                    self.logits.copy_from_slice(row);
                    self.has_logits = true;
                }
            }
        }
        Ok(())
    }
}

fn not_finite(model: &Model) -> Error {
    Error::malformed(
        model.path.display().to_string(),
        "the network's logits are not finite numbers: a weight of the file is damaged",
    )
}

/// Whether all numbers are finite, without a branch for each: there may be a quarter of a million. A number that is not
/// has all bits of the exponent set.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(0, |damaged, value| damaged | u32::from(value.to_bits() & EXPONENT == EXPONENT)) == 0
}
