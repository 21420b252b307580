//! Real models against llama.cpp: prompt tokens, logits and greedy text in reference mode and with the default kernels.
//!
//! The oracle is llama.cpp on the same weights dequantised to float32 (`golden/*.float32.json`); its own quantised
//! kernels (`golden/*.json`) are the measure of how far quantised activations may stray.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{argmax, golden, golden_models, ids, load, numbers, top10};
use rocmforge::backend::cpu::features::{Isa, ShortFloat};
use rocmforge::engine::{Engine, EngineOptions, Model, ModelOptions};
use rocmforge::placement::GpuChoice;
use rocmforge::session::{Session, SessionOptions};
use serde_json::Value;

fn session(model: &Arc<Model>, reference: bool) -> Session {
    let options = SessionOptions { context: 512, reference, ..Default::default() };
    Session::new(model.clone(), options).expect("a session")
}

fn load_on_cpu(path: &Path, isa: Isa) -> Arc<Model> {
    let options = EngineOptions { isa: Some(isa), gpus: Some(GpuChoice::None), ..Default::default() };
    let engine = Arc::new(Engine::new(options).expect("an engine"));
    engine.load(path, ModelOptions::default()).unwrap_or_else(|e| panic!("{e}"))
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

/// Shows the logits that follow the prompt (step 0) and each golden token: `each(step, golden token, logits)`.
///
/// One pass with all tokens at once: this is what decoding token by token gives, but for other roundings, for as long as the
/// greedy paths agree.
fn follow(session: &mut Session, case: &Value, each: &mut dyn FnMut(usize, u32, &[f32])) {
    let prompt = ids(&case["prompt_ids"]);
    let continuation = ids(&case["gen_ids"]);
    let tokens = [&prompt[..], &continuation[..continuation.len().saturating_sub(1)]].concat();
    session
        .decode_each(&tokens, &mut |i, logits| {
            if let Some(step) = (i + 1).checked_sub(prompt.len()) {
                each(step, continuation[step], logits);
            }
        })
        .expect("decode");
}

/// Greedy tokens are equal up to the first step whose two best logits are nearer than `margin`.
struct Greedy<'a> {
    name: &'a str,
    margin: f32,
    margins: Vec<f32>,
    over: bool,
}

impl<'a> Greedy<'a> {
    fn new(name: &'a str, case: &Value, margin: f32) -> Greedy<'a> {
        Greedy { name, margin, margins: numbers(&case["gen_top1_top2_margin"]), over: false }
    }

    fn check(&mut self, step: usize, golden: u32, logits: &[f32]) {
        self.over |= self.margins[step] < self.margin;
        let found = argmax(logits);
        assert!(self.over || found == golden, "{}: greedy token {step} is {found}, not {golden}", self.name);
    }
}

#[test]
fn reference_mode_is_within_0_02_of_float32() {
    for (name, path) in golden_models() {
        let Some(golden) = golden(&format!("{name}.float32")) else { continue };
        let model = load(&path);
        let mut worst = 0.0f32;
        for case in cases(&golden) {
            let mut greedy = Greedy::new(name, case, 0.02);
            follow(&mut session(&model, true), case, &mut |step, token, logits| {
                greedy.check(step, token, logits);
                for (id, logit) in if step == 0 { top10(case) } else { Vec::new() } {
                    let found = logits[id as usize];
                    worst = worst.max((found - logit).abs());
                    assert!((found - logit).abs() < 0.02, "{name}: logit of {id} is {found}, not {logit}");
                }
            });
        }
        println!("{name}: reference mode, largest error of the ten logits {worst:.5}");
    }
}

/// The models that golden data exists for, with each instruction set's kernels, and where the engine puts them by default.
fn each_kernels(each: &mut dyn FnMut(&str, &str, &Arc<Model>)) {
    for (name, path) in golden_models() {
        each(name, "default", &load(&path));
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
            each(name, isa.name(), &load_on_cpu(&path, isa));
        }
    }
}

#[test]
fn default_kernels_keep_the_greedy_path() {
    each_kernels(&mut |name, kernels, model| {
        let Some(golden) = golden(&format!("{name}.float32")) else { return };
        let mut furthest = 0.0f32;
        for case in cases(&golden) {
            let mut greedy = Greedy::new(name, case, 0.5);
            follow(&mut session(model, false), case, &mut |step, token, logits| {
                greedy.check(step, token, logits);
                let under = logits[argmax(logits) as usize] - logits[token as usize];
                furthest = furthest.max(under);
                assert!(
                    under < 0.6,
                    "{name}, {kernels}, {}: the golden token of step {step} is {under} under our best",
                    case["name"]
                );
            });
        }
        println!("{name}: {kernels} kernels, furthest golden token {furthest:.4} under our best");
    });
}

/// Decoding token by token goes the same way as a pass over all tokens: on the CPU. (GPUs have kernels of their own for one
/// row, for few and for many, which add up in other orders.) Where the processor multiplies bf16, steps of many rows are rounded
/// otherwise than steps of one, so that only clear decisions are the same; else a row's bits do not depend on the rows beside it.
#[test]
fn greedy_decoding_is_the_teacher_forced_path() {
    let Some(path) = common::model_path("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        let model = load_on_cpu(&path, isa);
        // Weights of Q4_1 are multiplied as integers, but attention of many rows in bf16.
        let rounds = Isa::short_float() == Some(ShortFloat::Bf16);
        let same_bits = isa < Isa::Avx512Vnni || isa == Isa::Avx512Vnni && !rounds;
        let prompt = model.tokenize("Once upon a time", true, false).expect("tokens");
        let mut one = session(&model, false);
        one.decode(&prompt).expect("decode");
        let mut tokens = prompt.clone();
        for _ in 0..24 {
            let next = argmax(one.logits().expect("logits"));
            tokens.push(next);
            one.decode(&[next]).expect("decode");
        }
        let mut all = session(&model, false);
        all.decode_each(&tokens, &mut |i, logits| {
            if i + 1 >= prompt.len() && i + 1 < tokens.len() {
                let (best, chosen) = (logits[argmax(logits) as usize], logits[tokens[i + 1] as usize]);
                let allowed = if same_bits { 0.0 } else { 0.25 };
                assert!(best - chosen <= allowed, "token {i}: {chosen} is chosen, {best} is best, with {isa:?}");
            }
        })
        .expect("decode");
        let (a, b) = (all.logits().expect("logits"), one.logits().expect("logits"));
        if same_bits {
            assert_eq!(a, b, "the same bits");
        }
        // What is added to all logits alike changes no probability.
        let offset = a.iter().zip(b).map(|(a, b)| a - b).sum::<f32>() / a.len() as f32;
        let furthest = a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b - offset).abs()));
        println!("{isa:?}: logits are up to {furthest} from each other, after {offset} for all");
        assert!(furthest < 1.0, "logits are {furthest} from each other");
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

/// The CPU's kernels, as llama.cpp's figures are those of its CPU kernels.
#[test]
fn default_kernels_err_no_more_than_llama_cpps() {
    each_kernels(&mut |name, kernels, model| {
        if kernels == "default" {
            return; // on a GPU, perhaps
        }
        let (Some(oracle), Some(peer)) = (
            golden(&format!("{name}.float32")),
            common::shared().join(format!("golden/{name}.json")).exists().then(|| golden(name)).flatten(),
        ) else {
            return; // an F32 file has no quantised kernels to compare with
        };
        let logits: Vec<Vec<f32>> = cases(&oracle)
            .iter()
            .map(|case| {
                let mut session = session(model, false);
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
        println!("{name}: {kernels}, mean error of the ten logits {ours:.4}, llama.cpp's {theirs:.4}");
        assert!(ours <= theirs, "{name}: {kernels}, mean error {ours}, llama.cpp's {theirs}");
    });
}
