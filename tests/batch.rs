//! One step over many sessions gives each what a step of its own would have given it.

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::sync::Arc;

use rocmforge::Error;
use rocmforge::engine::{Engine, EngineOptions, Model, ModelOptions};
use rocmforge::gguf::MemorySource;
use rocmforge::placement::GpuChoice;
use rocmforge::session::{CancelToken, GenerateOptions, Session, SessionOptions};

fn tiny_model(threads: usize) -> Arc<Model> {
    let gpus = Some(GpuChoice::None);
    let engine = Arc::new(Engine::new(EngineOptions { threads, gpus, ..Default::default() }).expect("an engine"));
    let bytes = tiny::llama().bytes();
    engine.load_source(Box::new(MemorySource::new(&bytes)), ModelOptions::default()).expect("the tiny model")
}

fn session(model: &Arc<Model>, options: SessionOptions) -> Session {
    Session::new(model.clone(), options).expect("a session")
}

/// Prompts of different lengths, one of them up to the last token of a page.
fn prompts(n: usize, n_vocab: usize) -> Vec<Vec<u32>> {
    (0..n).map(|i| (0..1 + (i * 31) % 40).map(|j| ((i * 7 + j * 13) % n_vocab) as u32).collect()).collect()
}

fn all(sessions: &mut [Session]) -> Vec<&mut Session> {
    sessions.iter_mut().collect()
}

/// Decodes `steps` tokens in each of `n` sessions, together and alone, and compares all logits.
fn compare(model: &Arc<Model>, n: usize, steps: usize, options: impl Fn(usize) -> SessionOptions) {
    let n_vocab = model.network().n_vocab();
    let mut together: Vec<Session> = (0..n).map(|i| session(model, options(i))).collect();
    let mut alone: Vec<Session> = (0..n).map(|i| session(model, options(i))).collect();
    for (i, prompt) in prompts(n, n_vocab).iter().enumerate() {
        together[i].decode(prompt).expect("a prompt");
        alone[i].decode(prompt).expect("a prompt");
    }
    for step in 0..steps {
        let tokens: Vec<u32> = (0..n).map(|i| ((step * 17 + i * 5 + 3) % n_vocab) as u32).collect();
        Session::decode_batch(&mut all(&mut together), &tokens).expect("a batch");
        for (i, (one, other)) in alone.iter_mut().zip(&together).enumerate() {
            one.decode(&[tokens[i]]).expect("a token");
            assert_eq!(one.tokens(), other.tokens());
            let worst = one.logits().expect("logits").iter().zip(other.logits().expect("logits"));
            let worst = worst.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "session {i} of {n}, step {step}: {worst}");
        }
    }
    assert_eq!(together[0].stats().decode_tokens, steps as u64 + u64::from(prompts(n, n_vocab)[0].len() == 1));
}

#[test]
fn a_batch_computes_what_single_steps_do() {
    for threads in [1, 3] {
        let model = tiny_model(threads);
        for n in [1, 2, 5, 8, 9, 20] {
            compare(&model, n, 4, |_| SessionOptions::default());
        }
        compare(&model, 5, 3, |_| SessionOptions { reference: true, ..Default::default() });
    }
}

#[test]
fn any_session_may_have_the_widest_workspace() {
    let model = tiny_model(2);
    for widths in [[1, 1, 1, 1, 1], [1, 2, 9, 1, 1], [9, 1, 1, 1, 1], [1, 1, 1, 1, 9], [2, 2, 2, 2, 2]] {
        compare(&model, 5, 3, |i| SessionOptions { batch: widths[i], ..Default::default() });
    }
}

#[test]
fn real_models_decode_in_batches() {
    for (_, path) in common::golden_models() {
        let engine = EngineOptions { gpus: Some(GpuChoice::None), ..Default::default() };
        let engine = Arc::new(Engine::new(engine).expect("an engine"));
        let model = engine.load(&path, ModelOptions::default()).expect("a model");
        // A step of one row and a step of several compute the same numbers: greedy text cannot differ.
        compare(&model, 3, 3, |_| SessionOptions { context: 64, ..Default::default() });
    }
}

#[test]
fn due_tokens_of_generations_are_decoded_together() {
    let model = tiny_model(2);
    let generate = |together: bool| -> Vec<Vec<u32>> {
        let mut sessions: Vec<Session> = (0..4).map(|_| session(&model, SessionOptions::default())).collect();
        for (session, prompt) in sessions.iter_mut().zip(prompts(4, 267)) {
            session.decode(&prompt).expect("a prompt");
            session.begin(GenerateOptions { ignore_end: true, ..Default::default() }).expect("a beginning");
        }
        for _ in 0..12 {
            if together {
                Session::flush_batch(&mut all(&mut sessions)).expect("a batch");
            }
            sessions.iter_mut().for_each(|session| drop(session.next_piece().expect("a piece")));
        }
        Session::flush_batch(&mut all(&mut sessions)).expect("a batch");
        Session::flush_batch(&mut all(&mut sessions)).expect("nothing is due");
        sessions.iter().map(|session| session.tokens().to_vec()).collect()
    };
    assert_eq!(generate(true), generate(false));
}

/// What a refused call must leave as it was.
fn state(session: &Session) -> (Vec<u32>, Vec<f32>, usize) {
    (session.tokens().to_vec(), session.logits().map(<[f32]>::to_vec).unwrap_or_default(), session.kv_bytes())
}

#[test]
fn a_refused_batch_changes_no_session() {
    let model = tiny_model(2);
    let cancel = CancelToken::new();
    let with = |context, cancel: &CancelToken| {
        session(&model, SessionOptions { context, cancel: Some(cancel.clone()), ..Default::default() })
    };
    let mut sessions = vec![with(64, &CancelToken::new()), with(64, &cancel), with(33, &CancelToken::new())];
    for session in &mut sessions {
        session.decode(&(0..32).collect::<Vec<u32>>()).expect("a prompt"); // the next token needs a page
    }
    let before: Vec<_> = sessions.iter().map(state).collect();
    let unchanged = |sessions: &[Session]| assert!(sessions.iter().map(state).eq(before.iter().cloned()));

    assert!(matches!(Session::decode_batch(&mut [], &[]), Err(Error::Argument(_))));
    assert!(matches!(Session::decode_batch(&mut all(&mut sessions), &[1, 2]), Err(Error::Argument(_))));
    assert!(matches!(Session::decode_batch(&mut all(&mut sessions), &[1, 2, 267]), Err(Error::Argument(_))));
    unchanged(&sessions);
    cancel.cancel();
    assert!(matches!(Session::decode_batch(&mut all(&mut sessions), &[1, 2, 3]), Err(Error::Cancelled)));
    unchanged(&sessions);
    cancel.reset();
    Session::decode_batch(&mut all(&mut sessions), &[1, 2, 3]).expect("a batch");
    let before: Vec<_> = sessions.iter().map(state).collect();
    let full = Session::decode_batch(&mut all(&mut sessions), &[1, 2, 3]);
    assert!(matches!(full, Err(Error::ContextFull { used: 33, capacity: 33, asked: 1 })));
    assert!(sessions.iter().map(state).eq(before));

    let mut other = session(&tiny_model(1), SessionOptions::default());
    let mut reference = session(&model, SessionOptions { reference: true, ..Default::default() });
    assert!(matches!(Session::decode_batch(&mut [&mut sessions[0], &mut other], &[1, 2]), Err(Error::Argument(_))));
    assert!(matches!(Session::decode_batch(&mut [&mut sessions[0], &mut reference], &[1, 2]), Err(Error::Argument(_))));
}
