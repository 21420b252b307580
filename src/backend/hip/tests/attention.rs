//! Rotation, the append to the cache, and attention: by one kernel and by two, in shares and for prompts.

use half::f16;

use super::{Noise, Rig, difference};
use crate::backend::PAGE_TOKENS;
use crate::backend::hip::args::*;
use crate::backend::hip::device::Buffer;
use crate::backend::hip::tuning;

const LAYERS: usize = 2;
const LAYER: usize = 1;
const EPSILON: f32 = 1e-6;

/// What is computed.
#[derive(Debug, Clone)]
struct Case {
    head_dim: usize,
    n_head_kv: usize,
    group: usize,
    /// Of the rows, each of a sequence of its own; or of the first of `span` rows.
    positions: Vec<usize>,
    span: usize,
    window: usize,
    splits: usize,
    softcap: f32,
    style: u32,
    pairs: usize,
    head_norm: bool,
    f32_cache: bool,
    /// `attend_decode` does what `rope_append` would have done.
    raw: bool,
}

/// Its inputs, on the host.
struct Inputs {
    case: Case,
    n: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gains: [Vec<f32>; 2],
    rotation: Vec<f32>,
    positions: Vec<u32>,
    first_page: Vec<u32>,
    /// The pages' elements; those of the rows' own positions are no numbers yet.
    pages: Vec<Vec<f32>>,
}

impl Inputs {
    fn new(case: &Case, noise: &mut Noise) -> Inputs {
        let c = case.clone();
        let n = if c.span > 0 { c.span } else { c.positions.len() };
        let mut inputs = Inputs {
            n,
            q: noise.floats(n * c.n_head_kv * c.group * c.head_dim, 1.5),
            k: noise.floats(n * c.n_head_kv * c.head_dim, 1.0),
            v: noise.floats(n * c.n_head_kv * c.head_dim, 1.0),
            gains: [(); 2].map(|()| noise.floats(c.head_dim, 0.2).into_iter().map(|x| 1.0 + x).collect()),
            rotation: Vec::new(),
            positions: Vec::new(),
            first_page: Vec::new(),
            pages: Vec::new(),
            case: c,
        };
        for &position in &case.positions {
            let rows = case.span.max(1);
            let first = inputs.pages.len() as u32;
            inputs.add_sequence(position, rows, noise);
            for row in 0..rows {
                inputs.positions.push((position + row) as u32);
                inputs.first_page.push(first);
                let angle = |p: usize| (position + row) as f64 * 10000f64.powf(-(p as f64) / case.pairs as f64);
                inputs.rotation.extend((0..case.pairs).map(|p| angle(p).cos() as f32));
                inputs.rotation.extend((0..case.pairs).map(|p| angle(p).sin() as f32));
            }
        }
        inputs
    }

    fn add_sequence(&mut self, old: usize, new: usize, noise: &mut Noise) {
        let c = &self.case;
        let elements = LAYERS * 2 * c.n_head_kv * PAGE_TOKENS * c.head_dim;
        for page in 0..(old + new).div_ceil(PAGE_TOKENS) {
            let mut values = vec![f32::NAN; elements];
            for head in values.chunks_exact_mut(PAGE_TOKENS * c.head_dim) {
                let written = old.saturating_sub(page * PAGE_TOKENS).min(PAGE_TOKENS) * c.head_dim;
                head[..written].iter_mut().for_each(|x| *x = f16::from_f32(noise.float(1.0)).to_f32());
            }
            self.pages.push(values);
        }
    }

    /// A head after norm and rotation.
    fn finished(&self, head: &[f32], row: usize, gain: &[f32]) -> Vec<f64> {
        let c = &self.case;
        let mut out: Vec<f64> = head.iter().map(|&x| f64::from(x)).collect();
        if c.head_norm {
            let squares: f64 = out.iter().map(|x| x * x).sum();
            let factor = 1.0 / (squares / c.head_dim as f64 + f64::from(EPSILON)).sqrt();
            out.iter_mut().zip(gain).for_each(|(x, &gain)| *x *= factor * f64::from(gain));
        }
        let (cos, sin) = self.rotation[row * 2 * c.pairs..][..2 * c.pairs].split_at(c.pairs);
        for (p, (&cos, &sin)) in cos.iter().zip(sin).enumerate() {
            let (a, b) = if c.style == ROPE_NEOX { (p, p + c.pairs) } else { (2 * p, 2 * p + 1) };
            let (x, y, cos, sin) = (out[a], out[b], f64::from(cos), f64::from(sin));
            (out[a], out[b]) = (x * cos - y * sin, x * sin + y * cos);
        }
        out
    }

    /// Where a token's row of a head begins in its page.
    fn place(&self, kind: usize, head: usize, position: usize) -> usize {
        let c = &self.case;
        (((LAYER * 2 + kind) * c.n_head_kv + head) * PAGE_TOKENS + position % PAGE_TOKENS) * c.head_dim
    }

    fn rows_of<'a>(&'a self, pages: &'a [Vec<f32>], row: usize, kind: usize, head: usize, t: usize) -> &'a [f32] {
        let page = &pages[self.first_page[row] as usize + t / PAGE_TOKENS];
        &page[self.place(kind, head, t)..][..self.case.head_dim]
    }

    /// Attention of all rows over `pages`, which hold everything.
    fn attended(&self, pages: &[Vec<f32>]) -> Vec<f64> {
        let c = &self.case;
        let mut out = Vec::new();
        for (i, q) in self.q.chunks_exact(c.head_dim).enumerate() {
            let (row, head) = (i / (c.n_head_kv * c.group), i % (c.n_head_kv * c.group) / c.group);
            let q = self.finished(q, row, &self.gains[0]);
            let end = self.positions[row] as usize + 1;
            let begin = if c.window > 0 { end.saturating_sub(c.window) } else { 0 };
            let scores: Vec<f64> = (begin..end)
                .map(|t| {
                    let key = self.rows_of(pages, row, 0, head, t);
                    let dot: f64 = q.iter().zip(key).map(|(q, &k)| q * f64::from(k)).sum();
                    let (score, cap) = (dot / (c.head_dim as f64).sqrt(), f64::from(c.softcap));
                    if cap > 0.0 { cap * (score / cap).tanh() } else { score }
                })
                .collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            let mut result = vec![0.0; c.head_dim];
            for (t, score) in (begin..end).zip(&scores) {
                let weight = (score - most).exp() / total;
                let value = self.rows_of(pages, row, 1, head, t);
                result.iter_mut().zip(value).for_each(|(out, &v)| *out += weight * f64::from(v));
            }
            out.extend(result);
        }
        out
    }
}

/// A case on the device.
struct Run<'r> {
    rig: &'r Rig,
    inputs: Inputs,
    pages: Vec<Buffer>,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    step: StepArg,
    rope: RopeArg,
    _held: Vec<Buffer>,
}

impl Run<'_> {
    fn new(rig: &Rig, inputs: Inputs) -> Run<'_> {
        let c = &inputs.case;
        let halves = |page: &Vec<f32>| page.iter().map(|&x| f16::from_f32(x).to_bits()).collect::<Vec<_>>();
        let place = |page: &Vec<f32>| if c.f32_cache { rig.upload(page) } else { rig.upload(&halves(page)) };
        let pages: Vec<Buffer> = inputs.pages.iter().map(place).collect();
        let addresses: Vec<u64> = pages.iter().map(Buffer::address).collect();
        let held = vec![
            rig.upload(&inputs.positions),
            rig.upload(&inputs.first_page),
            rig.upload(&addresses),
            rig.upload(&inputs.rotation),
            rig.upload(&inputs.gains[0]),
            rig.upload(&inputs.gains[1]),
        ];
        let at = |i: usize| held[i].address();
        let norm = |i: usize| NormArg { gain: if c.head_norm { at(i) } else { 0 }, epsilon: EPSILON, unused: 0 };
        let step = StepArg { positions: at(0), first_page: at(1), pages: at(2) };
        let (pairs, style) = (c.pairs as u32, c.style);
        let rope = RopeArg { q_norm: norm(4), k_norm: norm(5), rotation: at(3), pairs, style };
        let (q, k, v) = (rig.upload(&inputs.q), rig.upload(&inputs.k), rig.upload(&inputs.v));
        Run { rig, inputs, pages, q, k, v, step, rope, _held: held }
    }

    fn shape(&self) -> HeadShape {
        let c = &self.inputs.case;
        HeadShape {
            n_head: (c.n_head_kv * c.group) as u32,
            n_head_kv: c.n_head_kv as u32,
            head_dim: c.head_dim as u32,
            layer: LAYER as u32,
        }
    }

    /// `rope_append`, checked.
    fn append(&self) {
        let (c, n) = (&self.inputs.case, self.inputs.n);
        let args = RopeAppendArgs {
            q: self.q.address(),
            k: self.k.address(),
            v: self.v.address(),
            step: self.step,
            rope: self.rope,
            shape: self.shape(),
            n: n as u32,
            unused: 0,
        };
        let heads = n * c.n_head_kv * (c.group + 2);
        self.rig.run(&tuning::by_cache("rope_append", c.f32_cache), [heads.div_ceil(8), 1, 1], &args);
        let heads_of_row = c.n_head_kv * c.group;
        let expected = self.inputs.q.chunks_exact(c.head_dim).enumerate();
        let expected = expected.flat_map(|(i, q)| self.inputs.finished(q, i / heads_of_row, &self.inputs.gains[0]));
        let error = difference(&self.rig.download(&self.q), &expected.collect::<Vec<_>>());
        assert!(error < 1e-5, "queries {error}: {c:?}");
    }

    fn attend(&self) -> Vec<f32> {
        let (c, n) = (&self.inputs.case, self.inputs.n);
        let n_head = c.n_head_kv * c.group;
        let heads = c.n_head_kv * tuning::attend_decode_parts(c.f32_cache, c.head_dim, c.group);
        let out = self.rig.room::<f32>(n * n_head * c.head_dim);
        let partial = self.rig.room::<f32>(n * n_head * c.splits * (c.head_dim + 2));
        let counters = self.rig.upload(&vec![0u32; n * heads]);
        let raw = |buffer: &Buffer| if c.raw { buffer.address() } else { 0 };
        let args = AttendArgs {
            q: self.q.address(),
            k: raw(&self.k),
            v: raw(&self.v),
            out: out.address(),
            step: self.step,
            rope: self.rope,
            shape: self.shape(),
            scale: 1.0 / (c.head_dim as f32).sqrt(),
            softcap: c.softcap,
            window: c.window as u32,
            n: n as u32,
            partial: partial.address(),
            counters: counters.address(),
            splits: c.splits as u32,
            unused: 0,
        };
        if c.span > 0 {
            self.rig.run(&tuning::attend_prefill_kernel(c.f32_cache, c.head_dim), [3, 1, 1], &args);
        } else {
            let kernel = tuning::attend_decode_kernel(c.f32_cache, c.head_dim, c.group);
            self.rig.run(&kernel, [heads, c.splits, n], &args);
        }
        assert!(self.rig.download::<u32>(&counters).iter().all(|&count| count == 0), "counters: {c:?}");
        self.rig.download::<f32>(&partial); // nothing behind it
        self.rig.download(&out)
    }

    /// What the cache holds now; new rows are checked against what should be there.
    fn cache(&self) -> Vec<Vec<f32>> {
        let (inputs, c) = (&self.inputs, &self.inputs.case);
        let widened = |page: &Buffer| {
            let halves: Vec<u16> = self.rig.download(page);
            halves.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
        };
        let read = |page: &Buffer| if c.f32_cache { self.rig.download(page) } else { widened(page) };
        let pages: Vec<Vec<f32>> = self.pages.iter().map(read).collect();
        for (i, (k, v)) in inputs.k.chunks_exact(c.head_dim).zip(inputs.v.chunks_exact(c.head_dim)).enumerate() {
            let (row, head) = (i / c.n_head_kv, i % c.n_head_kv);
            let v: Vec<f64> = v.iter().map(|&x| f64::from(x)).collect();
            for (kind, expected) in [inputs.finished(k, row, &inputs.gains[1]), v].iter().enumerate() {
                let found = inputs.rows_of(&pages, row, kind, head, inputs.positions[row] as usize);
                let tolerance = if c.f32_cache { 1e-5 } else { 4e-3 };
                assert!(difference(found, expected) < tolerance, "the cache's row {row}, {kind}: {c:?}");
            }
        }
        pages
    }
}

fn check(rig: &Rig, case: &Case, noise: &mut Noise, tolerance: f64) {
    let run = Run::new(rig, Inputs::new(case, noise));
    if !case.raw {
        run.append();
    }
    let found = run.attend();
    let error = difference(&found, &run.inputs.attended(&run.cache()));
    assert!(error < tolerance, "off by {error}: {case:?}");
}

/// Head sizes, rotary pairs, styles, head norms.
const HEADS: [(usize, usize, u32, bool); 8] = [
    (64, 32, ROPE_NORM, false),
    (96, 48, ROPE_NEOX, true),
    (128, 64, ROPE_NEOX, true),
    (128, 32, ROPE_NORM, false),
    (80, 20, ROPE_NEOX, false),
    (256, 128, ROPE_NEOX, true),
    (72, 36, ROPE_NORM, true),
    (512, 64, ROPE_NEOX, true),
];

#[test]
fn single_rows_attend() {
    let Some(rig) = Rig::new() else { return };
    let mut noise = Noise(5);
    for (i, (head_dim, pairs, style, head_norm)) in HEADS.into_iter().enumerate() {
        for (j, group) in [1, 2, 3, 4, 7, 8, 12].into_iter().enumerate() {
            let k = i * 7 + j;
            let case = Case {
                head_dim,
                n_head_kv: 1 + k % 2,
                group,
                positions: if k % 4 == 0 { vec![1, 32, 255, 700] } else { vec![0, 31, 500, 33] },
                span: 0,
                window: [0, 33, 0, 300][k % 4],
                splits: [1, 7, 2][k % 3],
                softcap: if k % 5 < 2 { 20.0 } else { 0.0 },
                style,
                pairs,
                head_norm,
                f32_cache: k % 6 == 5,
                raw: k % 3 != 0 || k % 2 == 1,
            };
            check(&rig, &case, &mut noise, 3e-5);
        }
    }
}

#[test]
fn prompts_attend() {
    let Some(rig) = Rig::new() else { return };
    let mut noise = Noise(6);
    for (i, (head_dim, pairs, style, head_norm)) in HEADS.into_iter().enumerate() {
        for (j, group) in [1, 3, 8].into_iter().enumerate() {
            let k = i * 3 + j;
            let f32_cache = k % 4 == 3;
            let case = Case {
                head_dim,
                n_head_kv: 1 + k % 2,
                group,
                positions: vec![[0, 45, 300][k % 3]],
                span: if f32_cache || head_dim == 512 { 13 } else { [37, 70][k % 2] },
                window: [0, 0, 40, 0, 5][k % 5],
                splits: 1,
                softcap: if k % 2 == 0 { 20.0 } else { 0.0 },
                style,
                pairs,
                head_norm,
                f32_cache,
                raw: false,
            };
            // On matrix units queries and weights are rounded to half precision.
            check(&rig, &case, &mut noise, if f32_cache { 3e-5 } else { 6e-3 });
        }
    }
}
