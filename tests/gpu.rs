//! The HIP backend, unmodified, on AMD machine code: an interpreter of gfx1100 (`tests/emulator`) stands for AMD's
//! runtime and card. What runs here has run on no AMD card; README says so.

mod common;
#[path = "common/emulator.rs"]
mod emulation;
#[path = "common/architectures.rs"]
mod expected;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{argmax, golden, ids, model_path, numbers};
use emulation::{emulator, engine, engine_with};
use rocmforge::Error;
use rocmforge::engine::{Engine, Model, ModelOptions};
use rocmforge::gguf::MemorySource;
use rocmforge::quant::TensorType;
use rocmforge::selftest::{self, worst_error};
use rocmforge::session::{CancelToken, Session, SessionOptions};
use rocmforge::synth::{Mix, TINY, write_model};

/// A small model of random weights.
fn synthetic(mix: Mix) -> Vec<u8> {
    let mut file = Vec::new();
    write_model(&TINY, mix, 1, &mut file).expect("a model");
    file
}

fn load(engine: &Arc<Engine>, file: &[u8], gpu_layers: Option<usize>) -> Result<Arc<Model>, Error> {
    engine.load_source(Box::new(MemorySource::new(file)), ModelOptions { gpu_layers, ..Default::default() })
}

fn session(model: &Arc<Model>, reference: bool) -> Session {
    Session::new(model.clone(), SessionOptions { context: 256, reference, ..Default::default() }).expect("a session")
}

/// Logits after a prompt of `n` tokens and after each of `more` tokens behind it.
fn logits(model: &Arc<Model>, reference: bool, n: u32, more: u32) -> Result<Vec<Vec<f32>>, Error> {
    let options = SessionOptions { context: 256, reference, ..Default::default() };
    let mut session = Session::new(model.clone(), options)?;
    let token = |i: u32| (i * 37 + 5) % 500;
    session.decode(&(0..n).map(token).collect::<Vec<_>>())?;
    let mut all = vec![session.logits()?.to_vec()];
    for i in n..n + more {
        session.decode(&[token(i)])?;
        all.push(session.logits()?.to_vec());
    }
    Ok(all)
}

#[test]
fn every_verb_and_type_agrees_with_the_cpu() {
    for seed in ["1", "2"] {
        let Some(_) = emulator(&[]) else { return };
        // The seed orders waves and blocks: what depends on it is a missing barrier.
        let Some(emulator) = emulator_with_seed(seed) else { return };
        let engine = engine(&[0]);
        let gpus = engine.gpus().expect("a GPU");
        let (mut n, mut largest) = (0, 0.0f64);
        let mut failed = Vec::new();
        selftest::run(&gpus[0], engine.pool(), seed != "1", &mut |check| {
            n += 1;
            largest = largest.max(check.error / check.tolerance);
            if !check.passed() {
                failed.push(format!("{check:?}"));
            }
        })
        .unwrap_or_else(|error| panic!("{error}: {}", emulator.message()));
        println!("seed {seed}: {n} checks, the largest error is {:.0} % of its tolerance", largest * 100.0);
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(n > 700, "{n} checks");
    }
}

fn emulator_with_seed(seed: &str) -> Option<emulation::Emulator> {
    emulator(&[("RFEMU_SEED", seed)])
}

#[test]
fn architectures_give_pytorchs_logits() {
    let Some(_emulator) = emulator(&[]) else { return };
    let engine = engine(&[0]);
    let mut largest = 0.0f32;
    expected::run(&engine, 7, true, &mut |name, i, logits, expected, best| {
        assert_eq!(argmax(logits), best, "{name}: best token at {i}");
        for (id, (found, expected)) in logits.iter().zip(expected.iter().flatten()).enumerate() {
            largest = largest.max((found - expected).abs());
            assert!((found - expected).abs() < 5e-3, "{name}: logit {id} at {i} is {found}, not {expected}");
        }
    });
    println!("reference mode: largest error of a logit {largest}");
    expected::run(&engine, 16, false, &mut |name, i, logits, expected, _| {
        for (id, (found, expected)) in logits.iter().zip(expected.iter().flatten()).enumerate() {
            // Tiny networks of large random weights amplify the rounding of activations.
            assert!((found - expected).abs() < 0.9, "{name}: logit {id} at {i} is {found}, not {expected}");
        }
    });
}

#[test]
fn smollm2_keeps_the_greedy_path() {
    const TOKENS: usize = 16;
    const MARGIN: f32 = 0.5;
    let name = "SmolLM2-135M-Instruct.Q4_1";
    let (Some(path), Some(golden)) = (model_path(&format!("{name}.gguf")), golden(&format!("{name}.float32"))) else {
        return;
    };
    let Some(emulator) = emulator(&[]) else { return };
    let model = engine(&[0]).load(&path, ModelOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(model.gpu_layers, 30);
    let cases = golden["cases"].as_array().expect("cases");
    let case = cases.iter().find(|case| ids(&case["prompt_ids"]).len() > 3).expect("a case with a prompt");
    let (generated, margins) = (ids(&case["gen_ids"]), numbers(&case["gen_top1_top2_margin"]));
    let mut session = session(&model, false);
    session.decode(&ids(&case["prompt_ids"])).expect("the prompt");
    let mut compared = 0;
    for (&token, _) in generated.iter().zip(&margins).take(TOKENS).take_while(|(_, margin)| **margin >= MARGIN) {
        assert_eq!(argmax(session.logits().expect("logits")), token, "greedy token {compared}");
        session.decode(&[token]).expect("a token");
        compared += 1;
    }
    for &token in generated.iter().take(TOKENS).skip(compared) {
        session.decode(&[token]).expect("a token");
    }
    println!("{compared} of {TOKENS} tokens are before the first margin below {MARGIN}, and equal");
    assert!(compared >= 2);
    assert!(emulator.calls("hipGraphLaunch") > 8, "steps were not replayed as graphs");
}

#[test]
fn layers_are_divided_between_devices_and_the_cpu() {
    let file = synthetic(Mix::Q4KM);
    let Some(emulator) = emulator(&[]) else { return };
    let cpu = load(&engine(&[0]), &file, Some(0)).expect("on the CPU");
    assert_eq!(cpu.gpu_layers, 0);
    let expected = logits(&cpu, true, 40, 5).expect("logits");
    for layers in 1..=TINY.layers {
        let model = load(&engine(&[0]), &file, Some(layers)).expect("divided");
        assert_eq!(model.gpu_layers, layers);
        let error = worst_error(&logits(&model, true, 40, 5).expect("logits"), &expected);
        println!("{layers} layers on the GPU: {error:.1e}");
        assert!(error < 1e-3, "{layers} layers: {error}");
    }
    drop(cpu);
    assert_eq!(emulator.live(), 0, "what was loaded was not freed");
    drop(emulator);

    let Some(emulator) = self::emulator(&[("RFEMU_DEVICES", "2")]) else { return };
    // Neither has room for the whole beside what is kept free.
    let engine = engine_with(&[0, 1], 64 << 20);
    let model = load(&engine, &file, Some(3)).expect("on two devices");
    assert_eq!(model.gpu_layers, 3);
    let error = worst_error(&logits(&model, true, 40, 5).expect("logits"), &expected);
    println!("3 layers on two GPUs: {error:.1e}");
    assert!(error < 1e-3, "{error}");
    let used = engine.gpus().expect("GPUs").iter().filter(|device| device.allocated() > 0).count();
    assert_eq!(used, 2);
    drop((model, engine));
    assert_eq!(emulator.live(), 0);
}

#[test]
fn quantised_steps_of_all_sizes_agree() {
    let Some(_emulator) = emulator(&[]) else { return };
    for mix in [Mix::Q4KM, Mix::Uniform(TensorType::Q8_0), Mix::Uniform(TensorType::F16)] {
        let file = synthetic(mix);
        let (gpu, cpu) = (load(&engine(&[0]), &file, None), load(&engine(&[0]), &file, Some(0)));
        let (gpu, cpu) = (gpu.expect("on the GPU"), cpu.expect("on the CPU"));
        for n in [1, 2, 8, 9, 33, 200] {
            let expected = logits(&cpu, true, n, 4).expect("logits");
            let exact = worst_error(&logits(&gpu, true, n, 4).expect("logits"), &expected);
            let quantised = worst_error(&logits(&gpu, false, n, 4).expect("logits"), &expected);
            println!("{mix:?}, {n} tokens: reference {exact:.1e}, default {quantised:.1e}");
            assert!(exact < 1e-3 && quantised < 0.05, "{mix:?}, {n} tokens: {exact}, {quantised}");
        }
    }
}

#[test]
fn sessions_decode_as_one_batch() {
    let Some(_emulator) = emulator(&[]) else { return };
    let engine = engine(&[0]);
    let file = synthetic(Mix::Uniform(TensorType::Q4_K));
    for gpu_layers in [None, Some(1)] {
        let model = load(&engine, &file, gpu_layers).expect("a model");
        // More than the kernels for few rows serve, and fewer.
        for n in [3, 11] {
            let mut together: Vec<Session> = (0..n).map(|_| session(&model, false)).collect();
            let mut alone: Vec<Session> = (0..n).map(|_| session(&model, false)).collect();
            for i in 0..n {
                let prompt: Vec<u32> = (0..1 + (i * 13 % 40) as u32).map(|j| (j * 7 + i as u32) % 500).collect();
                together[i].decode(&prompt).expect("a prompt");
                alone[i].decode(&prompt).expect("a prompt");
            }
            for step in 0..2 {
                let tokens: Vec<u32> = (0..n as u32).map(|i| i * 11 + step).collect();
                Session::decode_batch(&mut together.iter_mut().collect::<Vec<_>>(), &tokens).expect("a batch");
                for ((one, other), token) in alone.iter_mut().zip(&together).zip(tokens) {
                    one.decode(&[token]).expect("a token");
                    let logits = |session: &Session| vec![session.logits().expect("logits").to_vec()];
                    assert!(worst_error(&logits(other), &logits(one)) < 5e-3);
                }
            }
        }
    }
}

#[test]
fn too_little_memory_is_an_error_and_nothing_is_lost() {
    let file = synthetic(Mix::Uniform(TensorType::F16));
    let Some(emulator) = emulator(&[]) else { return };
    // Room for a layer (about 1.2 MiB), not for four and the head.
    let engine = engine_with(&[0], 2 << 20);
    let error = load(&engine, &file, Some(TINY.layers)).err().expect("an error");
    let Error::DeviceMemory { device, needed, free, .. } = &error else { panic!("{error}") };
    println!("{error}");
    assert!(device.contains("gfx1100") && needed > free, "{error}");
    assert_eq!(emulator.live_bytes(), 0, "memory is left over");
    let model = load(&engine, &file, Some(1)).expect("fewer layers fit");
    assert_eq!(model.gpu_layers, 1);
    drop(model);
    // Left to itself the engine sees that nothing fits beside what it keeps free, and the CPU serves.
    assert_eq!(load(&engine, &file, None).expect("on the CPU").gpu_layers, 0);
    drop(engine);
    assert_eq!(emulator.live(), 0);
}

#[test]
fn a_failure_of_any_driver_call_is_an_error_and_leaves_no_leak() {
    /// A code that does not lose the device, and one that does.
    const CODES: [i32; 2] = [1, 719];
    let file = synthetic(Mix::Q4KM);
    let Some(emulator) = emulator(&[]) else { return };
    let work = |engine: &Arc<Engine>| load(engine, &file, None).and_then(|model| logits(&model, false, 20, 6));
    let expected = work(&engine(&[0])).expect("without failures");
    let functions = rocmforge::backend::hip::driver::HIP_FUNCTIONS;
    let calls: Vec<(&str, u64)> = functions.iter().map(|&f| (f, emulator.calls(f))).collect();
    let (mut failed, mut survived) = (0, 0);
    for (function, count) in calls {
        for code in CODES {
            for nth in [1, count / 2, count].into_iter().filter(|&nth| nth > 0) {
                emulator.reset();
                let engine = engine(&[0]);
                emulator.fail(function, nth, code);
                match work(&engine) {
                    // Some calls only ask, and some failures have another way: the answer is then the right one.
                    Ok(found) => {
                        assert!(worst_error(&found, &expected) < 1e-6, "{function} {nth}: a wrong answer");
                        survived += 1;
                    }
                    Err(error) => {
                        assert!(error.to_string().len() > 10, "{function} {nth}: {error}");
                        failed += 1;
                    }
                }
                emulator.fail(function, 0, 0);
                if code == 1 && !function.contains("Device") && function != "hipInit" {
                    let again = work(&engine).unwrap_or_else(|error| panic!("after {function} {nth}: {error}"));
                    assert!(worst_error(&again, &expected) < 1e-6, "after {function} {nth}: a wrong answer");
                }
                drop(engine);
                // An object whose release was made to fail stays with the driver.
                let lost =
                    u64::from(function.contains("Free") || function.contains("Destroy") || function.contains("Unload"));
                assert!(emulator.live() <= lost, "{function} {nth} with {code}: {} objects are left", emulator.live());
            }
        }
    }
    println!("{failed} failures were errors, {survived} had another way");
    assert!(failed > 40);
}

#[test]
fn without_a_usable_gpu_the_cpu_serves() {
    let file = synthetic(Mix::Q4KM);
    for code in ["100", "101"] {
        let Some(_emulator) = emulator(&[("RFEMU_INIT_CODE", code)]) else { return };
        let engine = engine(&[]);
        assert_eq!(engine.devices().count(), 0, "hipInit gave {code}");
        assert_eq!(load(&engine, &file, None).expect("on the CPU").gpu_layers, 0);
    }
    {
        let Some(_emulator) = emulator(&[("RFEMU_INIT_CODE", "3")]) else { return };
        let engine = engine(&[]);
        let devices: Vec<_> = engine.devices().collect();
        assert!(devices[0].unusable.contains("does not start"), "{:?}", devices[0]);
        assert_eq!(load(&engine, &file, None).expect("on the CPU").gpu_layers, 0);
    }
    let Some(_emulator) = emulator(&[("RFEMU_ARCH", "gfx803")]) else { return };
    let engine = engine(&[]);
    let devices: Vec<_> = engine.devices().collect();
    assert_eq!(devices.len(), 1);
    println!("{}", devices[0].unusable);
    assert!(devices[0].unusable.contains("gfx803") && devices[0].unusable.contains("gfx1100"));
    assert_eq!(load(&engine, &file, None).expect("on the CPU").gpu_layers, 0);
    let asked = emulation::engine(&[0]);
    let error = load(&asked, &file, None).err().expect("an error");
    assert!(error.to_string().contains("gfx803"), "{error}");
}

#[test]
fn a_step_can_be_cancelled() {
    let file = synthetic(Mix::Q4KM);
    let Some(_emulator) = emulator(&[]) else { return };
    let model = load(&engine(&[0]), &file, None).expect("a model");
    let cancel = CancelToken::new();
    let options = SessionOptions { context: 4096, cancel: Some(cancel.clone()), ..Default::default() };
    let mut session = Session::new(model, options).expect("a session");
    session.decode(&[1, 2, 3]).expect("a prompt");
    let raised = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel();
            Instant::now()
        }
    });
    let tokens: Vec<u32> = (0..4000).map(|i| i % 500).collect();
    let result = session.decode(&tokens);
    let returned = Instant::now();
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    println!("returned {:?} after the cancellation", returned - raised.join().expect("a time"));
    assert_eq!(session.used(), 3);
    cancel.reset();
    session.decode(&[4]).expect("the session goes on");
}
