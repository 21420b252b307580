//! Checks a device: every verb with every tensor type, against the same verb in plain Rust on the CPU.
//!
//! What `rocmforge selftest` runs, for those who own hardware that the project has not seen, and what the tests run on
//! the emulator. Weights and inputs are random, of a fixed seed; shapes are small and odd.

use std::sync::Arc;

use crate::backend::cpu::{CpuBackend, features::Isa, pool::Pool};
use crate::backend::hip::HipBackend;
use crate::backend::hip::device::Device;
use crate::backend::*;
use crate::error::{Error, Result};
use crate::quant::{FORMATS, TensorType};
use crate::synth::{Noise, random_weights};

/// The relative error (of norms) within which quantised activations must stay: 8 bits a number, through two products and
/// attention. The largest that was seen is 0.019; a wrong unit of 32 numbers in a row of some hundred gives 0.2 and more.
const QUANTIZED_TOLERANCE: f64 = 0.03;
/// That of float32 activations, with transcendental functions of the device's own.
const EXACT_TOLERANCE: f64 = 3e-4;
/// Keys and values of half precision.
const CACHE_TOLERANCE: f64 = 2e-3;

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The verb, the type, the rows.
    pub name: String,
    /// ‖found − expected‖ / ‖expected‖.
    pub error: f64,
    /// What it may be.
    pub tolerance: f64,
}

impl Check {
    /// Whether the device computes what it should.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Shapes of the network that is checked.
#[derive(Clone, Copy)]
struct Shapes {
    n_embd: usize,
    n_ff: usize,
    n_head: usize,
    n_head_kv: usize,
    head_dim: usize,
    n_vocab: usize,
}

/// Both sides: what is checked, and what it is checked against.
struct Pair<'a> {
    sides: [&'a dyn Backend; 2],
}

struct PairLinear([Linear; 2]);

impl Pair<'_> {
    fn linear(
        &self,
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        bias: bool,
        noise: &mut Noise,
    ) -> Result<PairLinear> {
        let bytes = random_weights(tensor_type, rows, columns, noise)?;
        let bias = bias.then(|| noise.floats(rows));
        let [a, b] = self.sides.map(|side| {
            let weight = side.matrix(Part::Layer(0), tensor_type, rows, columns, bytes.clone().into())?;
            let bias = bias.as_ref().map(|bias| side.vector(Part::Layer(0), bias)).transpose()?;
            Ok::<_, Error>(Linear { weight, bias })
        });
        Ok(PairLinear([a?, b?]))
    }

    fn vector(&self, len: usize, noise: &mut Noise) -> Result<[Vector; 2]> {
        let values: Vec<f32> = (0..len).map(|_| 1.0 + 0.3 * noise.float()).collect();
        let [a, b] = self.sides.map(|side| side.vector(Part::Layer(0), &values));
        Ok([a?, b?])
    }
}

/// A network of one layer on both sides.
struct Layer {
    norm: [Vector; 2],
    q_norm: [Vector; 2],
    post_norm: [Vector; 2],
    q: PairLinear,
    k: PairLinear,
    v: PairLinear,
    o: PairLinear,
    gate: PairLinear,
    up: PairLinear,
    down: PairLinear,
    table: PairLinear,
}

/// What varies between checks of a layer.
#[derive(Clone, Copy)]
struct Variant {
    exact: bool,
    /// Norms over heads and after projections, as gemma3 has them; window and caps too.
    rich: bool,
    style: RopeStyle,
}

impl Layer {
    fn new(pair: &Pair, s: &Shapes, tensor_type: TensorType, v_type: TensorType, noise: &mut Noise) -> Result<Layer> {
        let (n_q, n_kv) = (s.n_head * s.head_dim, s.n_head_kv * s.head_dim);
        Ok(Layer {
            norm: pair.vector(s.n_embd, noise)?,
            q_norm: pair.vector(s.head_dim, noise)?,
            post_norm: pair.vector(s.n_embd, noise)?,
            q: pair.linear(tensor_type, n_q, s.n_embd, true, noise)?,
            k: pair.linear(tensor_type, n_kv, s.n_embd, true, noise)?,
            v: pair.linear(v_type, n_kv, s.n_embd, false, noise)?,
            o: pair.linear(tensor_type, s.n_embd, n_q, false, noise)?,
            gate: pair.linear(tensor_type, s.n_ff, s.n_embd, false, noise)?,
            up: pair.linear(tensor_type, s.n_ff, s.n_embd, false, noise)?,
            down: pair.linear(tensor_type, s.n_embd, s.n_ff, true, noise)?,
            table: pair.linear(tensor_type, s.n_vocab, s.n_embd, false, noise)?,
        })
    }
}

/// What one side gives after each verb that shows its result.
struct Outcome {
    embedded: Vec<f32>,
    attended: Vec<f32>,
    fed_forward: Vec<f32>,
    logits: Vec<f32>,
}

/// A sequence's state on one side.
struct Sequence {
    work: Workspace,
    pages: Vec<Arc<KvPage>>,
    position: usize,
}

struct Run<'a> {
    side: usize,
    backend: &'a dyn Backend,
    layer: &'a Layer,
    shapes: Shapes,
    variant: Variant,
    rope: Rope,
}

impl<'a> Run<'a> {
    fn pick<T>(&self, both: &'a [T; 2]) -> &'a T {
        let [a, b] = both;
        if self.side == 0 { a } else { b }
    }

    fn norm(&self, gain: &'a [Vector; 2]) -> Norm<'a> {
        Norm { gain: self.pick(gain), epsilon: 1e-5 }
    }

    fn begin(&self, rows: usize) -> Result<Sequence> {
        let s = self.shapes;
        let work = self.backend.workspace(&WorkShape {
            rows,
            logit_rows: rows.min(8),
            n_embd: s.n_embd,
            n_ff: s.n_ff,
            n_head: s.n_head,
            n_head_kv: s.n_head_kv,
            head_dim: s.head_dim,
            n_vocab: s.n_vocab,
            exact: self.variant.exact,
        })?;
        Ok(Sequence { work, pages: Vec::new(), position: 0 })
    }

    /// One step of `tokens` through the layer, from `x` in place of the embedding.
    fn step(&self, sequence: &mut Sequence, tokens: &[u32], x: &[f32]) -> Result<Outcome> {
        let (s, v) = (self.shapes, self.variant);
        let n = tokens.len();
        let kv_type = if v.exact { KvType::F32 } else { KvType::F16 };
        let shape = KvShape { layers: 1, n_head_kv: s.n_head_kv, head_dim: s.head_dim, kv_type };
        while sequence.pages.len() * PAGE_TOKENS < sequence.position + n {
            sequence.pages.push(Arc::new(self.backend.kv_page(&shape)?));
        }
        let span = Span { rows: 0..n, position: sequence.position, pages: &mut sequence.pages };
        let mut batch = Batch { tokens, spans: vec![span] };
        let work = &mut sequence.work;
        let mut outcome = Outcome {
            embedded: vec![0.0; n * s.n_embd],
            attended: vec![0.0; n * s.n_embd],
            fed_forward: vec![0.0; n * s.n_embd],
            logits: Vec::new(),
        };
        self.backend.begin(work, &batch, std::slice::from_ref(&self.rope))?;
        self.backend.embed(work, &batch, &self.pick(&self.layer.table.0).weight, 1.5)?;
        self.backend.residual(work, &mut outcome.embedded)?;
        self.backend.set_residual(work, x)?;
        let head_norm = v.rich.then(|| self.norm(&self.layer.q_norm));
        let qkv = QkvRopeAppend {
            norm: self.norm(&self.layer.norm),
            q: self.pick(&self.layer.q.0),
            k: self.pick(&self.layer.k.0),
            v: self.pick(&self.layer.v.0),
            q_norm: head_norm,
            k_norm: head_norm,
            rope: 0,
            layer: 0,
        };
        self.backend.qkv_rope_append(work, &mut batch, &qkv)?;
        let attend = Attend {
            layer: 0,
            scale: 1.0 / (s.head_dim as f32).sqrt(),
            softcap: v.rich.then_some(20.0),
            window: v.rich.then_some(24),
        };
        self.backend.attend(work, &batch, &attend)?;
        let post_norm = v.rich.then(|| self.norm(&self.layer.post_norm));
        self.backend.proj_add(work, &LinearAdd { linear: self.pick(&self.layer.o.0), post_norm })?;
        self.backend.residual(work, &mut outcome.attended)?;
        self.backend.set_residual(work, x)?;
        let gate_up = NormGateUpAct {
            norm: self.norm(&self.layer.norm),
            gate: self.pick(&self.layer.gate.0),
            up: self.pick(&self.layer.up.0),
            activation: if v.rich { Activation::GeluTanh } else { Activation::Silu },
        };
        self.backend.norm_gate_up_act(work, &gate_up)?;
        self.backend.down_add(work, &LinearAdd { linear: self.pick(&self.layer.down.0), post_norm })?;
        self.backend.residual(work, &mut outcome.fed_forward)?;
        self.backend.set_residual(work, x)?;
        let logits = Logits {
            norm: self.norm(&self.layer.norm),
            output: &self.pick(&self.layer.table.0).weight,
            softcap: v.rich.then_some(30.0),
            rows: n.saturating_sub(8)..n,
        };
        outcome.logits = self.backend.logits(work, &logits)?.to_vec();
        sequence.position += n;
        Ok(outcome)
    }
}

/// The largest [`relative_error`] of several vectors; infinite if they are not equally many.
pub fn worst_error(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    found.iter().zip(expected).map(|(f, e)| relative_error(f, e, None)).fold(0.0, f64::max)
}

/// ‖found − expected‖ / ‖expected − before‖, `before` being what both were added to; infinite if a number is not finite.
pub fn relative_error(found: &[f32], expected: &[f32], before: Option<&[f32]>) -> f64 {
    if found.len() != expected.len() || found.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let (mut difference, mut size) = (0.0, 0.0);
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let base = before.and_then(|b| b.get(i)).copied().unwrap_or(0.0);
        difference += f64::from(f - e).powi(2);
        size += f64::from(e - base).powi(2);
    }
    (difference / size.max(1e-30)).sqrt()
}

/// The shapes for a type: rows of quantised blocks are whole, the rest is small and odd.
fn shapes_of(tensor_type: TensorType, head_dim: usize) -> Shapes {
    match tensor_type.format().block_elements {
        256 => Shapes { n_embd: 256, n_ff: 512, n_head: 4, n_head_kv: 2, head_dim: head_dim.max(64), n_vocab: 77 },
        _ => Shapes { n_embd: 96, n_ff: 160, n_head: 3, n_head_kv: 1, head_dim, n_vocab: 77 },
    }
}

/// Runs all checks on `device`, telling `report` of each. `quick` leaves out the larger steps.
pub fn run(device: &Arc<Device>, pool: &Arc<Pool>, quick: bool, report: &mut dyn FnMut(&Check)) -> Result<()> {
    for format in FORMATS.iter().filter(|format| format.decode.is_some()) {
        let shapes = shapes_of(format.tensor_type, 64);
        check_layer(device, pool, format.tensor_type, format.tensor_type, shapes, quick, report)?;
    }
    // Formats that meet in one launch, and heads of other sizes.
    let mixed = [(TensorType::Q4_K, TensorType::Q6_K), (TensorType::Q5_0, TensorType::Q8_0)];
    for (one, other) in mixed {
        check_layer(device, pool, one, other, shapes_of(one, 64), true, report)?;
    }
    for (head_dim, n_head, n_head_kv) in [(80, 2, 2), (96, 8, 1), (128, 4, 1), (256, 4, 1)] {
        let shapes = Shapes { n_head, n_head_kv, ..shapes_of(TensorType::Q8_0, head_dim) };
        check_layer(device, pool, TensorType::Q8_0, TensorType::Q8_0, shapes, quick, report)?;
    }
    Ok(())
}

fn check_layer(
    device: &Arc<Device>,
    pool: &Arc<Pool>,
    tensor_type: TensorType,
    v_type: TensorType,
    shapes: Shapes,
    quick: bool,
    report: &mut dyn FnMut(&Check),
) -> Result<()> {
    let checked = HipBackend::new(device, shapes.head_dim, shapes.n_head / shapes.n_head_kv, pool)?;
    let reference = CpuBackend::new(pool.clone(), Isa::Scalar, false);
    let pair = Pair { sides: [&checked, &reference] };
    let mut noise = Noise::new(u64::from(tensor_type as u32) + 1);
    let layer = Layer::new(&pair, &shapes, tensor_type, v_type, &mut noise)?;
    let steps: &[usize] = if quick { &[3, 1, 9] } else { &[3, 1, 8, 40, 1, 70] };
    for variant in [
        Variant { exact: false, rich: false, style: RopeStyle::Norm },
        Variant { exact: false, rich: true, style: RopeStyle::Neox },
        Variant { exact: true, rich: true, style: RopeStyle::Neox },
    ] {
        check_steps(&pair, &layer, shapes, variant, steps, (tensor_type, v_type), &mut noise, report)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn check_steps(
    pair: &Pair,
    layer: &Layer,
    shapes: Shapes,
    variant: Variant,
    steps: &[usize],
    (tensor_type, v_type): (TensorType, TensorType),
    noise: &mut Noise,
    report: &mut dyn FnMut(&Check),
) -> Result<()> {
    // Some elements of a head do not rotate in the rich variant.
    let pairs = shapes.head_dim / if variant.rich { 4 } else { 2 };
    let frequencies = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
    let rope = Rope { style: variant.style, frequencies, magnitude: 1.0 };
    let [checked, reference] = [0, 1].map(|side| Run {
        side,
        backend: if side == 0 { pair.sides[0] } else { pair.sides[1] },
        layer,
        shapes,
        variant: Variant { exact: variant.exact || side == 1, ..variant },
        rope: rope.clone(),
    });
    let most = steps.iter().copied().max().unwrap_or(1);
    let mut sequences = (checked.begin(most)?, reference.begin(most)?);
    let quantized = !variant.exact && crate::backend::hip::is_quantized(tensor_type);
    let tolerance = match (variant.exact, quantized) {
        (true, _) => EXACT_TOLERANCE,
        (false, true) => QUANTIZED_TOLERANCE,
        (false, false) => CACHE_TOLERANCE,
    };
    for &n in steps {
        let tokens: Vec<u32> = (0..n).map(|_| noise.bits() % shapes.n_vocab as u32).collect();
        let x = noise.floats(n * shapes.n_embd);
        let found = checked.step(&mut sequences.0, &tokens, &x)?;
        let expected = reference.step(&mut sequences.1, &tokens, &x)?;
        let kind = match (variant.exact, variant.rich) {
            (true, _) => "exact, rich",
            (false, true) => "rich",
            (false, false) => "plain",
        };
        let types = if tensor_type == v_type {
            tensor_type.name().to_string()
        } else {
            format!("{}+{}", tensor_type.name(), v_type.name())
        };
        let mut check = |verb: &str, error: f64, tolerance: f64| {
            let name = format!("{verb}, {types}, heads of {}, {kind}, {n} rows", shapes.head_dim);
            report(&Check { name, error, tolerance });
        };
        check("embed", relative_error(&found.embedded, &expected.embedded, None), 1e-6);
        check("attention", relative_error(&found.attended, &expected.attended, Some(&x)), tolerance);
        check("feed-forward", relative_error(&found.fed_forward, &expected.fed_forward, Some(&x)), tolerance);
        check("logits", relative_error(&found.logits, &expected.logits, None), tolerance);
    }
    Ok(())
}
