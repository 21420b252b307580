//! One step over many sessions: each appends one token, and the weights are read once for all of them.

use std::sync::Arc;
use std::time::Instant;

use super::{Session, all_finite, not_finite};
use crate::backend::{Batch, PAGE_TOKENS, Span};
use crate::error::{Error, Result};

impl Session {
    /// Appends `tokens[i]` to `sessions[i]` and computes the logits that follow, for all sessions in one step. All or
    /// nothing: after an error every session is as it was, whichever of them caused it.
    ///
    /// The sessions are of one model, and all or none of them in reference mode. Any one's cancel token stops the step.
    pub fn decode_batch(sessions: &mut [&mut Session], tokens: &[u32]) -> Result<()> {
        let began = Instant::now();
        check(sessions, tokens)?;
        let before: Vec<(usize, bool)> = sessions.iter().map(|s| (s.tokens.len(), s.has_logits)).collect();
        let result = run(sessions, tokens);
        for (session, (n, had_logits)) in sessions.iter_mut().zip(before) {
            match result {
                Ok(()) => {
                    session.stats.decode_tokens += 1;
                    session.stats.decode_time += began.elapsed();
                }
                Err(_) => {
                    session.truncate(n);
                    session.has_logits = had_logits;
                }
            }
        }
        result
    }

    /// [`Session::flush`] for many sessions in one step. Sessions to which no token is due stay as they are.
    pub fn flush_batch(sessions: &mut [&mut Session]) -> Result<()> {
        let due = |session: &Session| session.generation.pending();
        let tokens: Vec<u32> = sessions.iter().filter_map(|session| due(session)).collect();
        let mut waiting: Vec<&mut Session> =
            sessions.iter_mut().filter(|session| due(session).is_some()).map(|session| &mut **session).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        Session::decode_batch(&mut waiting, &tokens)?;
        waiting.iter_mut().for_each(|session| session.generation.forget_pending());
        Ok(())
    }
}

fn check(sessions: &[&mut Session], tokens: &[u32]) -> Result<()> {
    let Some(first) = sessions.first() else {
        return Err(Error::argument("no session was given to decode"));
    };
    if sessions.len() != tokens.len() {
        return Err(Error::argument(format!("{} sessions and {} tokens", sessions.len(), tokens.len())));
    }
    for (i, (session, &token)) in sessions.iter().zip(tokens).enumerate() {
        if !Arc::ptr_eq(&session.model, &first.model) {
            return Err(Error::argument(format!("session {i} is of another model than session 0")));
        }
        if session.kv_shape != first.kv_shape {
            return Err(Error::argument(format!("of sessions 0 and {i} one is in reference mode, the other is not")));
        }
        session.check(&[token])?;
    }
    Ok(())
}

/// The tokens through all layers, as many sessions at a time as a workspace has rows, and their logits.
fn run(sessions: &mut [&mut Session], tokens: &[u32]) -> Result<()> {
    let mut waiting = Vec::new();
    let (mut rest, mut left) = (&mut *sessions, tokens);
    while !rest.is_empty() {
        let (lead, n) = run_length(rest);
        let (now, later) = rest.split_at_mut_checked(n).ok_or_else(too_few)?;
        let (tokens, more) = left.split_at_checked(n).ok_or_else(too_few)?;
        step(now, lead, tokens, later.is_empty(), &mut waiting)?;
        (rest, left) = (later, more);
    }
    let n_vocab = sessions.first().map_or(1, |session| session.logits.len());
    for (session, row) in sessions.iter_mut().zip(waiting.chunks_exact(n_vocab)) {
        session.logits.copy_from_slice(row);
        session.has_logits = true;
    }
    Ok(())
}

/// How many of the first sessions are served in one step, and which of them has the widest workspace, which serves. A long
/// context may bend the rotation otherwise than a short one does: such sessions have steps of their own.
fn run_length(sessions: &[&mut Session]) -> (usize, usize) {
    let (mut lead, mut widest, mut n) = (0, 0, 0);
    let first = sessions.first().map(|first| &first.ropes);
    for session in sessions {
        if Some(&session.ropes) != first || n >= widest.max(session.batch) {
            break;
        }
        if session.batch > widest {
            (lead, widest) = (n, session.batch);
        }
        n += 1;
    }
    (lead, n)
}

fn too_few() -> Error {
    Error::Internal("a batch with fewer sessions than it has".into())
}

/// One step over `sessions` in the workspace of `sessions[lead]`. No session sees its logits before nothing can fail any
/// more: they go to `waiting`, but for the last ones of the `last` step.
fn step(
    sessions: &mut [&mut Session],
    lead: usize,
    tokens: &[u32],
    last: bool,
    waiting: &mut Vec<f32>,
) -> Result<()> {
    let model = sessions.get(lead).ok_or_else(too_few)?.model.clone();
    let network = model.network();
    for session in sessions.iter_mut() {
        while session.pages.len() < (session.tokens.len() + 1).div_ceil(PAGE_TOKENS) {
            session.pages.push(Arc::new(network.backend().kv_page(&session.kv_shape)?));
        }
    }
    let cancels: Vec<_> = sessions.iter().map(|session| session.cancel.clone()).collect();
    let cancelled = || cancels.iter().any(|cancel| cancel.is_cancelled());
    let (mut spans, mut results, mut leader) = (Vec::with_capacity(tokens.len()), Vec::new(), None);
    for (i, session) in sessions.iter_mut().enumerate() {
        let Session { pages, tokens, work, ropes, logit_rows, logits, has_logits, .. } = &mut **session;
        spans.push(Span { rows: i..i + 1, position: tokens.len(), pages });
        results.push((logits, has_logits));
        if i == lead {
            leader = Some((work, ropes, *logit_rows));
        }
    }
    let (work, ropes, logit_rows) = leader.ok_or_else(|| Error::Internal("a batch without a leader".into()))?;
    network.forward(work, &mut Batch { tokens, spans }, ropes, &cancelled)?;
    for start in (0..tokens.len()).step_by(logit_rows) {
        let end = tokens.len().min(start + logit_rows);
        let found = network.logits(work, start..end)?;
        if !all_finite(found) {
            return Err(not_finite(&model));
        }
        if !last || end < tokens.len() {
            waiting.extend_from_slice(found);
            continue;
        }
        let rows = found.chunks_exact(network.n_vocab());
        for ((logits, has_logits), row) in results.iter_mut().skip(start).zip(rows) {
            logits.copy_from_slice(row);
            **has_logits = true;
        }
    }
    for (session, &token) in sessions.iter_mut().zip(tokens) {
        session.tokens.push(token);
    }
    Ok(())
}
