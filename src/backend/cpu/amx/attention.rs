//! Attention of many queries in bf16, on AMX or on vectors.
//!
//! Everything is transposed, so that lanes are queries and nothing is summed across lanes: scores are `K·Qᵀ`, a row for
//! each token; their exponentials pair up by tokens into the weights of the second product as they come; and the result is
//! `Vᵀ·Pᵀ`, a row for each element of the head. Softmax runs online, as in
//! [`attention`](super::super::attention), over [`TOKENS`] tokens at a time.
//!
//! Queries, keys, values and weights are bf16, sums float32. Keys and values are converted once for all queries of a call.

use std::arch::x86_64::*;
use std::ops::Range;

use half::f16;

use super::super::attention::{HeadPage, HeadPages, Query, Scores};
use super::super::features::{Isa, ShortFloat};
use super::super::memory::AlignedBuf;
use super::super::simd::transpose;
use super::super::vector::F32x16;
use super::super::vector::kernels::softcap_lanes;
use super::unfold::{LESS, pairs, round_halves, round_row, rounded_pairs};
use super::unit::{Amx, Block, Configured, Groups, Rows, TILE_BYTES, TILE_ROWS, TILE_WIDTH, Unit, Vectors};
use crate::backend::PAGE_TOKENS;
use crate::error::Result;

/// Queries of a block: two tiles' columns.
const QUERIES: usize = 2 * TILE_ROWS;
/// Tokens between two looks at the greatest score: eight pages.
const TOKENS: usize = 8 * PAGE_TOKENS;
const PAGES: usize = TOKENS / PAGE_TOKENS;
/// Below every score, and far from what a difference of floats cannot hold.
const LOWEST: f32 = -1e30;

/// Under it a weight is as good as 0.
const LEAST_EXPONENT: f32 = -100.0;

/// Working memory of a call, so that it never allocates.
pub(in super::super) struct Scratch {
    head_dim: usize,
    /// Queries that are served in one pass over the pages: whole blocks.
    capacity: usize,
    memory: AlignedBuf,
}

/// [`Scratch`] cut into its parts.
struct Parts {
    head_dim: usize,
    /// Elements of a head, filled up to whole tiles.
    elements: usize,
    /// `[PAGES][2]` × 16 tokens, [`Parts::steps`] tiles each.
    keys: *mut u8,
    /// `[elements / 16]` × 16 elements, [`PAGES`] tiles of 32 tokens each.
    values: *mut u8,
    /// `[TOKENS][QUERIES]`.
    scores: *mut f32,
    /// `[2]` × 16 queries, [`PAGES`] tiles of 16 pairs of tokens each.
    weights: *mut u8,
    /// For each block of queries `[2]` × 16 queries, [`Parts::steps`] tiles of 16 pairs of elements each.
    queries: *mut u8,
    /// For each block of queries `[elements][QUERIES]`.
    sums: *mut f32,
    /// For each block of queries its state.
    states: *mut State,
}

/// The softmax of a block of queries.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct State {
    /// The greatest score so far, in units of ln 2.
    max: [f32; QUERIES],
    /// The sum of exponentials.
    total: [f32; QUERIES],
    /// The tokens that each attends to.
    begin: [i32; QUERIES],
    end: [i32; QUERIES],
    /// All of them together.
    first: usize,
    last: usize,
}

impl Parts {
    /// Tiles of 32 elements.
    fn steps(&self) -> usize {
        self.elements / 32
    }
}

impl Scratch {
    /// For heads of `head_dim` elements, and up to `queries` queries in one pass.
    pub fn new(head_dim: usize, queries: usize) -> Result<Scratch> {
        let capacity = queries.max(1).next_multiple_of(QUERIES);
        let elements = head_dim.next_multiple_of(32);
        let block = QUERIES * elements * (2 + 4) + size_of::<State>();
        let bytes = 2 * 2 * TOKENS * elements + TOKENS * QUERIES * (4 + 2);
        let bytes = (capacity / QUERIES).saturating_mul(block).saturating_add(bytes);
        Ok(Scratch { head_dim, capacity, memory: AlignedBuf::zeroed(bytes)? })
    }

    fn parts(&mut self) -> Parts {
        let elements = self.head_dim.next_multiple_of(32);
        let blocks = self.capacity / QUERIES;
        let mut rest = self.memory.as_mut_slice();
        let mut next = |bytes: usize| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(bytes);
            rest = after;
            part.as_mut_ptr()
        };
        Parts {
            head_dim: self.head_dim,
            elements,
            keys: next(2 * TOKENS * elements),
            values: next(2 * TOKENS * elements),
            scores: next(4 * TOKENS * QUERIES).cast(),
            weights: next(2 * TOKENS * QUERIES),
            queries: next(2 * blocks * QUERIES * elements),
            sums: next(4 * blocks * QUERIES * elements).cast(),
            states: next(blocks * size_of::<State>()).cast(),
        }
    }
}

/// Whether it is best to attend in bf16.
pub(in super::super) fn serves(isa: Isa) -> bool {
    isa == Isa::Amx || isa == Isa::Avx512Vnni && Isa::short_float() == Some(ShortFloat::Bf16)
}

/// As [`attention::attend`](super::super::attention::attend), for keys and values in half precision.
///
/// # Panics
/// If a query, a result or a page does not have the head size of `scratch`, pages are float32, or the processor has no products of
/// bf16.
pub(in super::super) fn attend(
    isa: Isa,
    queries: &mut [Query<'_>],
    pages: &HeadPages<'_, '_>,
    scores: Scores,
    scratch: &mut Scratch,
) {
    assert!(isa == Isa::Amx || Isa::has_bf16(), "{} does not attend in bf16", isa.name());
    // SAFETY: the instruction sets were detected.
    unsafe {
        if isa == Isa::Amx {
            let _configured = Configured::new();
            attend_with::<Amx>(queries, pages, scores, scratch);
        } else {
            attend_with::<Vectors>(queries, pages, scores, scratch);
        }
    }
}

/// [`attend`] on a unit that may be an emulated one.
///
/// # Safety
/// AVX-512 with BF16, and what [`Unit`] demands.
pub(super) unsafe fn attend_with<U: Unit>(
    queries: &mut [Query<'_>],
    pages: &HeadPages<'_, '_>,
    scores: Scores,
    scratch: &mut Scratch,
) {
    let (head_dim, capacity) = (scratch.head_dim, scratch.capacity);
    assert!(queries.iter().all(|q| q.q.len() == head_dim && q.out.len() == head_dim), "queries of another head size");
    let parts = scratch.parts();
    for pass in queries.chunks_mut(capacity) {
        // SAFETY: as demanded; the scratch has room for the pass.
        unsafe {
            start(pass, scores, &parts);
            let attended = |q: &&Query<'_>| q.begin < q.end;
            let first = pass.iter().filter(attended).map(|q| q.begin).min().unwrap_or(0);
            let last = pass.iter().filter(attended).map(|q| q.end).max().unwrap_or(0);
            for from in (first / TOKENS * TOKENS..last).step_by(TOKENS) {
                load_pages(pages, from, first..last, &parts);
                for block in 0..pass.len().div_ceil(QUERIES) {
                    attend_block::<U>(block, from, scores.softcap, &parts);
                }
            }
            finish(pass, &parts);
        }
    }
}

/// Scores come in units of ln 2, for [`exp2`], unless they are capped first.
fn factor(scores: Scores) -> f32 {
    if scores.softcap.is_some() { scores.scale } else { scores.scale * std::f32::consts::LOG2_E }
}

/// Converts the queries of a pass, and begins their sums.
///
/// # Safety
/// AVX-512 with BF16; the pass fits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn start(pass: &[Query<'_>], scores: Scores, parts: &Parts) {
    // SAFETY: as demanded; all offsets are within the parts.
    unsafe {
        let factor = factor(scores);
        for (b, block) in pass.chunks(QUERIES).enumerate() {
            let mut state = State {
                max: [LOWEST; QUERIES],
                total: [0.0; QUERIES],
                begin: [0; QUERIES],
                end: [0; QUERIES],
                first: usize::MAX,
                last: 0,
            };
            for (i, query) in block.iter().enumerate().filter(|(_, query)| query.begin < query.end) {
                (state.begin[i], state.end[i]) = (query.begin as i32, query.end as i32);
                (state.first, state.last) = (state.first.min(query.begin), state.last.max(query.end));
            }
            parts.states.add(b).write(state);
            parts.sums.add(b * QUERIES * parts.elements).write_bytes(0, QUERIES * parts.elements);
            for group in 0..2 {
                let tiles = parts.queries.add((b * 2 + group) * parts.steps() * TILE_BYTES);
                for step in 0..parts.steps() {
                    let mut rows = [_mm512_setzero_si512(); TILE_ROWS];
                    for (row, query) in rows.iter_mut().zip(block.iter().skip(group * TILE_ROWS)) {
                        let elements = query.q.get(step * 32..).unwrap_or_default();
                        round_row(&elements[..elements.len().min(32)], factor, std::ptr::from_mut(row).cast());
                    }
                    for (pair, row) in transpose(rows).into_iter().enumerate() {
                        _mm512_store_si512(tiles.add(step * TILE_BYTES + pair * TILE_WIDTH).cast(), row);
                    }
                }
            }
        }
    }
}

/// Converts the keys and values of tokens `from..from + TOKENS` that some query attends to. All others are 0: whatever a
/// page holds there, a weight of 0 must not meet it.
///
/// # Safety
/// AVX-512 with BF16.
unsafe fn load_pages(pages: &HeadPages<'_, '_>, from: usize, attended: Range<usize>, parts: &Parts) {
    for page in 0..PAGES {
        let start = from + page * PAGE_TOKENS;
        let rows = attended.start.saturating_sub(start)..attended.end.saturating_sub(start).min(PAGE_TOKENS);
        if rows.start >= rows.end {
            continue;
        }
        let HeadPage::F16 { k, v } = pages(start / PAGE_TOKENS) else { panic!("keys and values in float32") };
        assert!(k.len() == PAGE_TOKENS * parts.head_dim && v.len() == k.len(), "page of another head size");
        // SAFETY: as demanded; the page has all tokens.
        unsafe {
            load_keys(k, rows.clone(), page, parts);
            load_values(v, rows, page, parts);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn load_keys(k: &[f16], rows: Range<usize>, page: usize, parts: &Parts) {
    let tiles = parts.steps() * TILE_BYTES;
    for (t, key) in k.chunks_exact(parts.head_dim).enumerate() {
        // SAFETY: row `t % 16` of the tiles of 16 tokens.
        unsafe {
            let out = parts.keys.add((page * 2 + t / TILE_ROWS) * tiles + t % TILE_ROWS * TILE_WIDTH);
            if rows.contains(&t) {
                round_halves(key, out);
            } else {
                (0..parts.steps()).for_each(|i| out.add(i * TILE_BYTES).write_bytes(0, TILE_WIDTH));
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn load_values(v: &[f16], rows: Range<usize>, page: usize, parts: &Parts) {
    // SAFETY: masked loads of a token's elements; all tiles are within the part.
    unsafe {
        for block in 0..parts.elements / TILE_ROWS {
            let first = block * TILE_ROWS;
            let mask = u32::MAX.checked_shr((32 - parts.head_dim.saturating_sub(first).min(16)) as u32).unwrap_or(0);
            let mut tokens = [_mm512_setzero_si512(); TILE_ROWS];
            for (pair, out) in tokens.iter_mut().enumerate() {
                let token = |t: usize| {
                    let mask = if rows.contains(&t) { mask as u16 } else { 0 };
                    finite(_mm256_maskz_loadu_epi16(mask, v.as_ptr().wrapping_add(t * parts.head_dim + first).cast()))
                };
                *out = rounded_pairs(token(2 * pair), token(2 * pair + 1));
            }
            let out = parts.values.add((block * PAGES + page) * TILE_BYTES);
            for (element, row) in transpose(tokens).into_iter().enumerate() {
                _mm512_store_si512(out.add(element * TILE_WIDTH).cast(), row);
            }
        }
    }
}

/// To float32, and what is not finite to the ends of half precision: one token's accident must not reach the others.
#[inline(always)]
unsafe fn finite(halves: __m256i) -> __m512 {
    unsafe {
        let x = _mm512_max_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(-65504.0));
        _mm512_min_ps(x, _mm512_set1_ps(65504.0))
    }
}

/// Adds what tokens `from..from + TOKENS` contribute to a block of queries.
///
/// # Safety
/// As [`attend_with`].
unsafe fn attend_block<U: Unit>(block: usize, from: usize, softcap: Option<f32>, parts: &Parts) {
    // SAFETY: as demanded; all offsets are within the parts.
    unsafe {
        let state = &mut *parts.states.add(block);
        let (first, last) = (state.first.max(from), state.last.min(from + TOKENS));
        if first >= last {
            return;
        }
        let pages = (first - from) / PAGE_TOKENS..(last - from).div_ceil(PAGE_TOKENS);
        let tiles = parts.steps() * TILE_BYTES;
        for page in pages.clone() {
            let scores = Block {
                x: parts.keys.add(page * 2 * tiles),
                x_next: tiles,
                w: parts.queries.add(block * 2 * tiles),
                w_next: tiles,
                rows: Rows::Two,
                groups: Groups::Two,
                sums: parts.scores.add(page * PAGE_TOKENS * QUERIES),
                sums_stride: QUERIES * size_of::<f32>(),
                add: false,
            };
            U::begin(&scores);
            U::add(&scores, 0..parts.steps());
            U::end(&scores);
        }
        let sums = parts.sums.add(block * QUERIES * parts.elements);
        for half in 0..2 {
            softmax(state, half, from, pages.clone(), softcap, sums, parts);
        }
        for rows in 0..parts.elements / (2 * TILE_ROWS) {
            let result = Block {
                x: parts.values.add((rows * 2 * PAGES + pages.start) * TILE_BYTES),
                x_next: PAGES * TILE_BYTES,
                w: parts.weights.add(pages.start * TILE_BYTES),
                w_next: PAGES * TILE_BYTES,
                rows: Rows::Two,
                groups: Groups::Two,
                sums: sums.add(rows * 2 * TILE_ROWS * QUERIES),
                sums_stride: QUERIES * size_of::<f32>(),
                add: true,
            };
            U::begin(&result);
            U::add(&result, 0..pages.len());
            U::end(&result);
        }
    }
}

/// Turns scores of 16 queries over some pages into weights. If they raise a greatest score, what was summed before shrinks.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn softmax(
    state: &mut State,
    half: usize,
    from: usize,
    pages: Range<usize>,
    softcap: Option<f32>,
    sums: *mut f32,
    parts: &Parts,
) {
    // SAFETY: all offsets are within the parts and the state.
    unsafe {
        let lanes = half * TILE_ROWS;
        let scores = parts.scores.add(lanes);
        let before = _mm512_load_ps(state.max.as_ptr().add(lanes));
        let mut greatest = before;
        for page in pages.clone() {
            greatest = _mm512_max_ps(greatest, page_max(state, lanes, from, page, softcap, scores));
        }
        let raised = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(greatest, before);
        let mut total = _mm512_load_ps(state.total.as_ptr().add(lanes));
        if raised != 0 {
            _mm512_store_ps(state.max.as_mut_ptr().add(lanes), greatest);
            let shrink = exp2(_mm512_sub_ps(before, greatest));
            total = _mm512_mul_ps(total, shrink);
            for element in 0..parts.elements {
                let sum = sums.add(element * QUERIES + lanes);
                _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), shrink));
            }
        }
        // Weights greater by LESS, whose upper halves are then as good as rounded; `finish` takes it out of the total.
        let offset = _mm512_sub_ps(_mm512_set1_ps(LESS.log2()), greatest);
        let weights = parts.weights.add(half * PAGES * TILE_BYTES);
        let mut totals = [total, _mm512_setzero_ps()];
        for pair in pages.start * PAGE_TOKENS / 2..pages.end * PAGE_TOKENS / 2 {
            let score = scores.add(2 * pair * QUERIES);
            let even = exp2(_mm512_add_ps(_mm512_load_ps(score), offset));
            let odd = exp2(_mm512_add_ps(_mm512_load_ps(score.add(QUERIES)), offset));
            totals = [_mm512_add_ps(totals[0], even), _mm512_add_ps(totals[1], odd)];
            _mm512_store_si512(weights.add(pair * TILE_WIDTH).cast(), pairs(even, odd));
        }
        _mm512_store_ps(state.total.as_mut_ptr().add(lanes), _mm512_add_ps(totals[0], totals[1]));
    }
}

/// The greatest scores of a page, which are capped, and lowest where a query does not attend.
#[inline(always)]
unsafe fn page_max(
    state: &State,
    lanes: usize,
    from: usize,
    page: usize,
    softcap: Option<f32>,
    scores: *mut f32,
) -> __m512 {
    // SAFETY: as the caller's.
    unsafe {
        let scores = scores.add(page * PAGE_TOKENS * QUERIES);
        let begin = _mm512_load_si512(state.begin.as_ptr().add(lanes).cast());
        let end = _mm512_load_si512(state.end.as_ptr().add(lanes).cast());
        let start = (from + page * PAGE_TOKENS) as i32;
        let whole = _mm512_cmple_epi32_mask(begin, _mm512_set1_epi32(start))
            & _mm512_cmpge_epi32_mask(end, _mm512_set1_epi32(start + PAGE_TOKENS as i32));
        if let Some(cap) = softcap {
            let (scaled, reciprocal) =
                (F32x16(_mm512_set1_ps(cap * std::f32::consts::LOG2_E)), F32x16(_mm512_set1_ps(1.0 / cap)));
            for t in 0..PAGE_TOKENS {
                let score = scores.add(t * QUERIES);
                _mm512_store_ps(score, softcap_lanes(F32x16(_mm512_load_ps(score)), scaled, reciprocal).0);
            }
        }
        if whole != u16::MAX {
            for t in 0..PAGE_TOKENS {
                let (score, token) = (scores.add(t * QUERIES), _mm512_set1_epi32(start + t as i32));
                let seen = _mm512_cmple_epi32_mask(begin, token) & _mm512_cmpgt_epi32_mask(end, token);
                _mm512_store_ps(score, _mm512_mask_blend_ps(seen, _mm512_set1_ps(LOWEST), _mm512_load_ps(score)));
            }
        }
        let mut greatest = [_mm512_set1_ps(LOWEST); 4];
        for t in (0..PAGE_TOKENS).step_by(4) {
            for (i, greatest) in greatest.iter_mut().enumerate() {
                *greatest = _mm512_max_ps(_mm512_load_ps(scores.add((t + i) * QUERIES)), *greatest);
            }
        }
        _mm512_max_ps(_mm512_max_ps(greatest[0], greatest[1]), _mm512_max_ps(greatest[2], greatest[3]))
    }
}

/// `2ˣ` within 8·10⁻⁵ of it, for x up to 1; 2⁻¹⁰⁰ is the least: subnormal results would cost some processors a
/// hundred cycles each. The weights have 8 bits.
#[inline(always)]
unsafe fn exp2(x: __m512) -> __m512 {
    unsafe {
        let x = _mm512_max_ps(x, _mm512_set1_ps(LEAST_EXPONENT));
        let n = _mm512_roundscale_ps::<0>(x);
        let r = _mm512_sub_ps(x, n);
        let mut p = _mm512_set1_ps(COEFFICIENT3);
        for coefficient in [COEFFICIENT2, COEFFICIENT1, COEFFICIENT0] {
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
        }
        _mm512_scalef_ps(p, n)
    }
}

// The polynomial of degree 3 with the least relative error on −½..½.
const COEFFICIENT0: f32 = 0.999_928_07;
const COEFFICIENT1: f32 = 0.693_260_99;
const COEFFICIENT2: f32 = 0.242_611_12;
const COEFFICIENT3: f32 = 0.055_171_67;

/// Writes the results: sums over totals.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn finish(pass: &mut [Query<'_>], parts: &Parts) {
    // SAFETY: all offsets are within the parts.
    unsafe {
        for (b, block) in pass.chunks_mut(QUERIES).enumerate() {
            let state = &*parts.states.add(b);
            for (half, queries) in block.chunks_mut(TILE_ROWS).enumerate() {
                let lanes = half * TILE_ROWS;
                let totals = _mm512_load_ps(state.total.as_ptr().add(lanes));
                let factor = _mm512_div_ps(_mm512_set1_ps(LESS), totals);
                for first in (0..parts.head_dim).step_by(TILE_ROWS) {
                    let mut elements = [_mm512_setzero_si512(); TILE_ROWS];
                    for (i, row) in elements.iter_mut().enumerate() {
                        let sum = parts.sums.add((b * parts.elements + first + i) * QUERIES + lanes);
                        *row = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(sum), factor));
                    }
                    let n = (parts.head_dim - first).min(TILE_ROWS);
                    for (query, row) in queries.iter_mut().zip(transpose(elements)) {
                        let empty = query.begin >= query.end;
                        let row = if empty { _mm512_setzero_ps() } else { _mm512_castsi512_ps(row) };
                        let mask = (u32::MAX >> (32 - n)) as u16;
                        _mm512_mask_storeu_ps(query.out.as_mut_ptr().add(first), mask, row);
                    }
                }
            }
        }
    }
}
