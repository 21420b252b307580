//! Attention of one key-value head over paged keys and values, without a buffer of all scores.
//!
//! A *tile* is all queries that share a key-value head: its group of query heads times some rows
//! (tokens) of one sequence. Each page is brought to f32 once per tile and serves every query in it.
//! Softmax runs online: a query carries the greatest score so far, the sum of its exponentials and
//! the weighted sum of values, which are rescaled when a page raises the greatest score.
//!
//! The result of a query is the same bits whatever else is in its tile: each score is one chain of
//! fused multiply-adds over the head's elements, each output element one chain over the keys, and the
//! register tiles only choose how many chains run side by side. So a decode step and a prefill agree.
//!
//! Layout of a page, for one layer and one key-value head: keys `[PAGE_TOKENS][head_dim]`, values
//! likewise. Token `t` of a sequence is row `t % PAGE_TOKENS` of its page `t / PAGE_TOKENS`.
// Elsewhere only the scalar form runs, which needs no scratch.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

use half::f16;

use super::features::Isa;
use crate::backend::PAGE_TOKENS;
use crate::error::{Error, Result};

#[cfg(target_arch = "x86_64")]
mod kernels;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod scalar;

/// The part of one page that belongs to one layer and one key-value head; each slice is
/// `[PAGE_TOKENS][head_dim]`. Rows that no query attends to may hold anything.
#[derive(Debug, Clone, Copy)]
pub enum HeadPage<'a> {
    /// [`KvType::F16`].
    F16 {
        /// Keys.
        k: &'a [f16],
        /// Values.
        v: &'a [f16],
    },
    /// [`KvType::F32`].
    F32 {
        /// Keys.
        k: &'a [f32],
        /// Values.
        v: &'a [f32],
    },
}

impl<'a> HeadPage<'a> {
    /// Keys and values, if they are of [`KvType::F16`].
    fn halves(self) -> Option<[&'a [f16]; 2]> {
        match self {
            HeadPage::F16 { k, v } => Some([k, v]),
            HeadPage::F32 { .. } => None,
        }
    }
}

/// The pages of one sequence as one layer and one key-value head sees them: the call with `p` gives tokens from
/// `p · PAGE_TOKENS` on. Called for each page that some query attends to.
pub type HeadPages<'f, 'kv> = dyn Fn(usize) -> HeadPage<'kv> + 'f;

/// One query head of one token.
#[derive(Debug)]
pub struct Query<'a> {
    /// The query, `[head_dim]`, after rotary embedding and before the scale.
    pub q: &'a [f32],
    /// The result, `[head_dim]`; zeros if the range is empty.
    pub out: &'a mut [f32],
    /// The first token that it attends to: 0, or where its sliding window begins.
    pub begin: usize,
    /// One past the last token that it attends to: its own position plus one, if the mask is causal.
    pub end: usize,
}

impl Query<'_> {
    /// The rows of page `p` that the query attends to, as `(first, one past the last)`; empty if not first < last.
    fn rows(&self, p: usize) -> (usize, usize) {
        let start = p * PAGE_TOKENS;
        (self.begin.saturating_sub(start), self.end.saturating_sub(start).min(PAGE_TOKENS))
    }

    /// Whether it attends to any row of page `p`.
    fn is_in(&self, p: usize) -> bool {
        let (first, last) = self.rows(p);
        first < last
    }
}

/// What every query of a tile has in common.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    /// The factor of each dot product, usually `1 / √head_dim`.
    pub scale: f32,
    /// Gemma's soft-capping: scores become `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// Working memory of one tile at a time, so that [`attend`] never allocates.
#[derive(Debug)]
pub struct Scratch {
    head_dim: usize,
    /// Queries that are served in one pass over the pages.
    capacity: usize,
    lines: Vec<Line>,
    running: Vec<Running>,
}

/// A cache line, so that no register that is loaded from scratch straddles two.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct Line([f32; LINE]);
/// Elements in a line.
const LINE: usize = 16;
/// Bytes in a line.
const LINE_BYTES: usize = size_of::<Line>();

/// The state of one query's softmax.
#[repr(align(64))]
#[derive(Debug, Clone, Copy)]
struct Running {
    /// The sum of exponentials, over as many lanes as the register has.
    sum: [f32; LINE],
    /// The greatest score so far.
    max: f32,
}

impl Running {
    const START: Running = Running { sum: [0.0; LINE], max: f32::NEG_INFINITY };
}

/// The most queries whose scores are computed side by side.
const MAX_BLOCK: usize = 8;

/// [`Scratch`] cut into its parts. Rows are `stride` apart, a multiple of [`LINE`].
struct Parts<'a> {
    stride: usize,
    /// Keys of the page at hand, `[head_dim][PAGE_TOKENS]`.
    keys: &'a mut [f32],
    /// Values of the page at hand, `[PAGE_TOKENS][stride]`.
    values: &'a mut [f32],
    /// Scores, then weights, of a block of queries, `[MAX_BLOCK][PAGE_TOKENS]`.
    weights: &'a mut [f32],
    /// Scaled queries, `[capacity][stride]`.
    q: &'a mut [f32],
    /// Weighted sums of values, `[capacity][stride]`.
    sums: &'a mut [f32],
    running: &'a mut [Running],
}

impl Scratch {
    /// For heads of `head_dim` elements and tiles of up to `queries` queries (larger ones take several passes over the
    /// pages). Holds about `8 · head_dim · (queries + PAGE_TOKENS)` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Argument`] if `head_dim` is 0 or over 65536.
    pub fn new(head_dim: usize, queries: usize) -> Result<Scratch> {
        if !(1..=1 << 16).contains(&head_dim) {
            return Err(Error::argument(format!("attention heads of {head_dim} elements: 1 to 65536 are possible")));
        }
        let capacity = queries.max(1);
        let stride = head_dim.next_multiple_of(LINE);
        let page = head_dim * PAGE_TOKENS + PAGE_TOKENS * stride + MAX_BLOCK * PAGE_TOKENS;
        let floats = capacity.saturating_mul(2 * stride).saturating_add(page);
        let (mut lines, mut running) = (Vec::new(), Vec::new());
        let refused =
            |_| Error::OutOfMemory { bytes: (floats as u64).saturating_mul(4), what: "attention scratch".into() };
        lines.try_reserve_exact(floats / LINE).map_err(refused)?;
        running.try_reserve_exact(capacity).map_err(refused)?;
        lines.resize(floats / LINE, Line([0.0; LINE]));
        running.resize(capacity, Running::START);
        Ok(Scratch { head_dim, capacity, lines, running })
    }

    /// The head size that it was made for.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    fn parts(&mut self) -> Parts<'_> {
        let stride = self.head_dim.next_multiple_of(LINE);
        let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut self.lines);
        let (keys, floats) = floats.split_at_mut(self.head_dim * PAGE_TOKENS);
        let (values, floats) = floats.split_at_mut(PAGE_TOKENS * stride);
        let (weights, floats) = floats.split_at_mut(MAX_BLOCK * PAGE_TOKENS);
        let (q, sums) = floats.split_at_mut(self.capacity * stride);
        Parts { stride, keys, values, weights, q, sums, running: &mut self.running }
    }
}

/// Computes `out = softmax(scale · q Kᵀ) V` for every query of a tile, each over its own range of tokens.
///
/// Queries may come in any order; it is fastest if neighbours have similar ranges (rows outermost, heads within).
/// `scratch` decides the head size. Runs the instance that `isa` names, or the best one that this processor may run.
///
/// # Panics
/// If a query, a result or a page does not have the head size of `scratch`.
pub fn attend(isa: Isa, queries: &mut [Query<'_>], pages: &HeadPages<'_, '_>, scores: Scores, scratch: &mut Scratch) {
    for query in &*queries {
        assert_eq!(query.q.len(), scratch.head_dim, "query of another head size");
        assert_eq!(query.out.len(), scratch.head_dim, "result of another head size");
    }
    for pass in queries.chunks_mut(scratch.capacity) {
        attend_pass(isa, pass, pages, scores, scratch);
    }
}

/// [`attend`] for as many queries as the scratch holds.
#[cfg(target_arch = "x86_64")]
fn attend_pass(isa: Isa, queries: &mut [Query<'_>], pages: &HeadPages<'_, '_>, scores: Scores, scratch: &mut Scratch) {
    use super::vector::{F32x8, F32x16};

    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2(queries: &mut [Query<'_>], pages: &HeadPages<'_, '_>, scores: Scores, scratch: &mut Scratch) {
        // SAFETY: these are the features of F32x8; `attend` has checked the lengths.
        unsafe { kernels::attend::<F32x8>(queries, pages, scores, scratch) }
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn avx512(queries: &mut [Query<'_>], pages: &HeadPages<'_, '_>, scores: Scores, scratch: &mut Scratch) {
        // SAFETY: these are the features of F32x16; `attend` has checked the lengths.
        unsafe { kernels::attend::<F32x16>(queries, pages, scores, scratch) }
    }
    match Isa::up_to(isa.vectors()) {
        Isa::Scalar => scalar::attend(queries, pages, scores, scratch),
        // SAFETY: `Isa::up_to` has found the features.
        Isa::Avx2 | Isa::AvxVnni => unsafe { avx2(queries, pages, scores, scratch) },
        // SAFETY: as above.
        _ => unsafe { avx512(queries, pages, scores, scratch) },
    }
}

/// [`attend`] for as many queries as the scratch holds.
#[cfg(not(target_arch = "x86_64"))]
fn attend_pass(_: Isa, queries: &mut [Query<'_>], pages: &HeadPages<'_, '_>, scores: Scores, scratch: &mut Scratch) {
    scalar::attend(queries, pages, scores, scratch);
}

/// Page `p`, checked to be of `head_dim`.
fn checked_page<'kv>(pages: &HeadPages<'_, 'kv>, p: usize, head_dim: usize) -> HeadPage<'kv> {
    let page = pages(p);
    let lengths = match page {
        HeadPage::F16 { k, v } => [k.len(), v.len()],
        HeadPage::F32 { k, v } => [k.len(), v.len()],
    };
    assert_eq!(lengths, [PAGE_TOKENS * head_dim; 2], "page of another head size");
    page
}

/// One row of a page to write to, `[head_dim]`.
#[derive(Debug)]
pub enum KvRow<'a> {
    /// [`KvType::F16`].
    F16(&'a mut [f16]),
    /// [`KvType::F32`].
    F32(&'a mut [f32]),
}

/// Stores the key or value of one head and token. A value beyond the range of f16 becomes the greatest finite one: an
/// infinity among the keys would turn every later result of the session into NaN.
///
/// # Panics
/// If the lengths differ.
pub fn store_kv(isa: Isa, row: &[f32], page_row: KvRow<'_>) {
    match page_row {
        KvRow::F16(out) => super::vector::f32_to_f16_saturating(isa, row, out),
        KvRow::F32(out) => out.copy_from_slice(row),
    }
}

#[cfg(test)]
mod tests;
