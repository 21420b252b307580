//! How fast attention is, per thread: `cargo bench --bench attention`.
//!
//! Prefill is judged by GFLOP/s (four operations per query, key and element), decode by the bytes of
//! keys and values read per second against a plain sum over the same memory.

use std::hint::black_box;

use half::f16;
use rocmforge::backend::PAGE_TOKENS;
use rocmforge::backend::cpu::attention::{HeadPage, Query, Scores, Scratch, attend};
use rocmforge::backend::cpu::features::Isa;

/// A model's attention: layers, query heads, key-value heads, head size.
struct Shape {
    name: &'static str,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { name: "135M", layers: 30, heads: 9, kv_heads: 3, head_dim: 64 },
    Shape { name: "8B", layers: 8, heads: 32, kv_heads: 8, head_dim: 128 },
    Shape { name: "MHA", layers: 8, heads: 16, kv_heads: 16, head_dim: 80 },
    Shape { name: "Gemma", layers: 8, heads: 8, kv_heads: 4, head_dim: 256 },
];

/// Rows of one tile in prefill.
const ROWS: usize = 16;

/// Keys and values of every layer, page after page: `[page][layer][k, v][kv_head][PAGE_TOKENS][head_dim]`.
struct Cache<'a> {
    shape: &'a Shape,
    elements: Vec<f16>,
}

impl<'a> Cache<'a> {
    fn new(shape: &'a Shape, tokens: usize) -> Self {
        let n = tokens.div_ceil(PAGE_TOKENS) * PAGE_TOKENS * shape.layers * 2 * shape.kv_heads * shape.head_dim;
        let element = |i: usize| f16::from_f32(((i * 7919) % 1013) as f32 / 506.5 - 1.0);
        Cache { shape, elements: (0..n).map(element).collect() }
    }

    fn page(&self, p: usize, layer: usize, kv_head: usize) -> HeadPage<'_> {
        let size = PAGE_TOKENS * self.shape.head_dim;
        let part = |kv: usize| {
            let at = ((p * self.shape.layers + layer) * 2 + kv) * self.shape.kv_heads + kv_head;
            &self.elements[at * size..(at + 1) * size]
        };
        HeadPage::F16 { k: part(0), v: part(1) }
    }
}

/// Attends with `rows` rows that end with token `tokens`, in tiles of [`ROWS`], in every layer and head.
fn forward(isa: Isa, cache: &Cache, tokens: usize, rows: usize, q: &[f32], out: &mut [f32], scratch: &mut Scratch) {
    let Shape { layers, heads, kv_heads, head_dim, .. } = *cache.shape;
    let group = heads / kv_heads;
    let scores = Scores { scale: 1.0 / (head_dim as f32).sqrt(), softcap: None };
    for (layer, kv_head) in (0..layers).flat_map(|layer| (0..kv_heads).map(move |kv_head| (layer, kv_head))) {
        let pages = |p| cache.page(p, layer, kv_head);
        for first in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - first) * group;
            let range = first * group * head_dim..(first * group + count) * head_dim;
            let pieces = q[range.clone()].chunks_exact(head_dim).zip(out[range].chunks_exact_mut(head_dim));
            let end = |i: usize| tokens - rows + first + i / group + 1;
            let query = |(i, (q, out))| Query { q, out, begin: 0, end: end(i) };
            let mut queries: Vec<Query> = pieces.enumerate().map(query).collect();
            attend(isa, &mut queries, &pages, scores, scratch);
        }
    }
}

/// Seconds that this thread has computed: on a shared machine, wall time measures the neighbours.
#[cfg(unix)]
fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds since the first call.
#[cfg(not(unix))]
fn now() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64()
}

/// The least of several timings, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    let time = |_| {
        let started = now();
        f();
        now() - started
    };
    (0..5).map(time).fold(f64::INFINITY, f64::min)
}

fn main() {
    for shape in &SHAPES {
        let Shape { name, layers, heads, kv_heads, head_dim } = *shape;
        println!("{name}: {layers} layers, {heads} heads over {kv_heads} of {head_dim}");
        let context = 4096;
        let cache = Cache::new(shape, context);
        let bytes = cache.elements.len() * 2;
        let words: &[u64] = bytemuck::cast_slice(&cache.elements);
        let seconds = best(|| {
            black_box(words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        });
        println!("  plain sum over the cache: {:.1} GB/s", bytes as f64 / seconds / 1e9);
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
            let mut scratch = Scratch::new(head_dim, ROWS * heads / kv_heads).expect("memory");
            let q: Vec<f32> = (0..512 * heads / kv_heads * head_dim).map(|i| (i % 997) as f32 / 400.0 - 1.2).collect();
            let mut out = vec![0.0; q.len()];
            for (rows, tokens) in [(512, 512), (64, context)] {
                let seconds = best(|| forward(isa, &cache, tokens, rows, &q, &mut out, &mut scratch));
                let keys_per_query = tokens as f64 - (rows - 1) as f64 / 2.0;
                let operations = 4.0 * (layers * heads * head_dim * rows) as f64 * keys_per_query;
                println!(
                    "  {isa:?} prefill of {rows} at {tokens}: {:7.1} ms, {:6.1} GFLOP/s",
                    seconds * 1e3,
                    operations / seconds / 1e9
                );
            }
            let seconds = best(|| forward(isa, &cache, context, 1, &q, &mut out, &mut scratch));
            let rate = bytes as f64 / seconds / 1e9;
            println!("  {isa:?} decode at {context}: {:7.2} ms, {rate:6.1} GB/s", seconds * 1e3);
            black_box(&out);
        }
    }
}
