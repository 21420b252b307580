//! Real models against llama.cpp: prompt tokens, logits and greedy text in reference mode and with the default kernels.
//!
//! The oracle is llama.cpp on the same weights dequantised to float32 (`golden/*.float32.json`); its own quantised
//! kernels (`golden/*.json`) are the measure of how far quantised activations may stray.

mod common;

use std::sync::Arc;

use common::{argmax, golden, golden_models, ids, load, numbers, top10};
use rocmforge::engine::Model;
use rocmforge::session::{Session, SessionOptions};
use serde_json::Value;

fn session(model: &Arc<Model>, reference: bool) -> Session {
    let options = SessionOptions { context: 512, reference, ..Default::default() };
    Session::new(model.clone(), options).expect("a session")
}

/// The cases that have a prompt: without one (an empty text, and no BOS) there is nothing to compute.
fn cases(golden: &Value) -> Vec<&Value> {
    let all = golden["cases"].as_array().expect("cases");
    all.iter().filter(|case| !ids(&case["prompt_ids"]).is_empty()).collect()
}

#[test]
fn prompts_have_llama_cpps_tokens() {
    for (name, path) in golden_models() {
        let Some(golden) = golden(&format!("{name}.float32")) else { continue };
        let model = load(&path);
        for case in cases(&golden) {
            let text = case["text"].as_str().expect("text");
            assert_eq!(model.tokenize(text, true, true).expect("tokens"), ids(&case["prompt_ids"]), "{name}: {text:?}");
        }
    }
}

/// Greedy tokens are equal up to the first position whose two best logits are nearer than `margin`.
fn check_greedy(name: &str, session: &mut Session, case: &Value, margin: f32) {
    let expected = ids(&case["gen_ids"]);
    let margins = numbers(&case["gen_top1_top2_margin"]);
    for (i, &id) in expected.iter().enumerate() {
        if margins[i] < margin {
            break;
        }
        let found = argmax(session.logits().expect("logits"));
        assert_eq!(found, id, "{name}, {}: greedy token {i}, margin {}", case["name"], margins[i]);
        session.decode(&[id]).expect("decode");
    }
}

#[test]
fn reference_mode_is_within_0_02_of_float32() {
    for (name, path) in golden_models() {
        let Some(golden) = golden(&format!("{name}.float32")) else { continue };
        let model = load(&path);
        let mut worst = 0.0f32;
        for case in cases(&golden) {
            let mut session = session(&model, true);
            session.decode(&ids(&case["prompt_ids"])).expect("decode");
            for (id, logit) in top10(case) {
                let found = session.logits().expect("logits")[id as usize];
                worst = worst.max((found - logit).abs());
                assert!(
                    (found - logit).abs() < 0.02,
                    "{name}, {}: logit of {id} is {found}, not {logit}",
                    case["name"]
                );
            }
            check_greedy(name, &mut session, case, 0.02);
        }
        println!("{name}: reference mode, largest error of the ten logits {worst:.5}");
    }
}

#[test]
fn default_kernels_keep_the_greedy_path() {
    for (name, path) in golden_models() {
        let Some(golden) = golden(&format!("{name}.float32")) else { continue };
        let model = load(&path);
        let mut furthest = 0.0f32;
        for case in cases(&golden) {
            let mut session = session(&model, false);
            session.decode(&ids(&case["prompt_ids"])).expect("decode");
            check_greedy(name, &mut session, case, 0.5);
            // Teacher-forced along the whole continuation, the golden token is never far from our best.
            session.rewind(0).expect("rewind");
            let prompt = ids(&case["prompt_ids"]);
            let mut tokens = prompt.clone();
            let continuation = ids(&case["gen_ids"]);
            tokens.extend(&continuation);
            session
                .decode_each(&tokens[..tokens.len() - 1], &mut |i, logits| {
                    if i + 1 >= prompt.len() {
                        let golden = logits[continuation[i + 1 - prompt.len()] as usize];
                        let best = logits[argmax(logits) as usize];
                        furthest = furthest.max(best - golden);
                        assert!(
                            best - golden < 0.6,
                            "{name}, {}: step {i}, {golden} under our best {best}",
                            case["name"]
                        );
                    }
                })
                .expect("decode");
        }
        println!("{name}: default kernels, furthest golden token {furthest:.4} under our best");
    }
}

/// Mean absolute error of the ten logits of all cases.
fn mean_error(oracle: &Value, logit_of: &mut dyn FnMut(usize, u32) -> Option<f32>) -> f32 {
    let mut errors = Vec::new();
    for (i, case) in cases(oracle).iter().enumerate() {
        errors.extend(top10(case).into_iter().filter_map(|(id, logit)| Some((logit_of(i, id)? - logit).abs())));
    }
    errors.iter().sum::<f32>() / errors.len() as f32
}

#[test]
fn default_kernels_err_no_more_than_llama_cpps() {
    for (name, path) in golden_models() {
        let (Some(oracle), Some(peer)) = (
            golden(&format!("{name}.float32")),
            common::shared().join(format!("golden/{name}.json")).exists().then(|| golden(name)).flatten(),
        ) else {
            continue; // an F32 file has no quantised kernels to compare with
        };
        let model = load(&path);
        let logits: Vec<Vec<f32>> = cases(&oracle)
            .iter()
            .map(|case| {
                let mut session = session(&model, false);
                session.decode(&ids(&case["prompt_ids"])).expect("decode");
                session.logits().expect("logits").to_vec()
            })
            .collect();
        // Only tokens that the peer's ten best name too: its other logits are not recorded.
        let peer_logit = |i: usize, id: u32| {
            let best = top10(cases(&peer)[i]);
            best.iter().find(|(known, _)| *known == id).map(|(_, logit)| *logit)
        };
        let theirs = mean_error(&oracle, &mut |i, id| peer_logit(i, id));
        let ours = mean_error(&oracle, &mut |i, id| peer_logit(i, id).map(|_| logits[i][id as usize]));
        println!("{name}: mean error of the ten logits {ours:.4}, llama.cpp's {theirs:.4}");
        assert!(ours <= theirs, "{name}: mean error {ours}, llama.cpp's {theirs}");
    }
}
