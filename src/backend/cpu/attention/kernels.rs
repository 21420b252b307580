//! Attention over registers of [`Lanes`](super::super::vector::lanes::Lanes): per page, transpose and
//! convert once, then for each block of up to [`MAX_BLOCK`] queries scores, softmax, weighted values.
//!
//! # Safety
//! Every function demands that the processor has the instruction set of `V` and that the calling
//! function enables it. Pointers are into [`Parts`], whose shapes are stated there.
#![allow(clippy::missing_safety_doc)]

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

use half::f16;

use super::super::vector::kernels::{exp_bounded, softcap_lanes};
use super::lanes::{AttentionLanes, ELEMENTS};
use super::{
    HeadPage, HeadPages, LINE, LINE_BYTES, MAX_BLOCK, PAGE_TOKENS, Parts, Query, Running, Scores, Scratch, checked_page,
};

/// The number of each row of a page, to be compared with the ends of a range.
static ROW_NUMBERS: [f32; PAGE_TOKENS] = {
    let mut numbers = [0.0; PAGE_TOKENS];
    let mut i = 0;
    while i < PAGE_TOKENS {
        numbers[i] = i as f32;
        i += 1;
    }
    numbers
};

/// See [`super::attend`]; at most as many queries as the scratch holds, each of its head size.
#[inline(always)]
pub unsafe fn attend<V: AttentionLanes>(
    queries: &mut [Query<'_>],
    pages: &HeadPages<'_, '_>,
    scores: Scores,
    scratch: &mut Scratch,
) {
    let head_dim = scratch.head_dim;
    let mut parts = scratch.parts();
    start(queries, scores, &mut parts);
    let attended = |q: &&Query<'_>| q.begin < q.end;
    let begin = queries.iter().filter(attended).map(|q| q.begin / PAGE_TOKENS).min().unwrap_or(0);
    let end = queries.iter().filter(attended).map(|q| q.end.div_ceil(PAGE_TOKENS)).max().unwrap_or(0);
    for p in begin..end {
        let count = queries.iter().filter(|q| q.is_in(p)).count();
        if count == 0 {
            continue;
        }
        let page = checked_page(pages, p, head_dim);
        let next = queries.iter().any(|q| q.is_in(p + 1)).then(|| checked_page(pages, p + 1, head_dim));
        let mut direct = match page {
            HeadPage::F16 { k, v } if count <= V::BLOCK && head_dim.is_multiple_of(LINE) => {
                Some(Direct { k, v, next: next.and_then(HeadPage::halves) })
            }
            _ => {
                next.inspect(|&next| prefetch(next));
                // SAFETY: as the caller's; the page is of `head_dim`.
                unsafe { load_page::<V>(page, head_dim, &mut parts) };
                None
            }
        };
        let mut at = 0;
        while at < queries.len() {
            let count = queries[at..].iter().take(V::BLOCK).take_while(|q| q.is_in(p)).count();
            if count == 0 {
                at += 1;
                continue;
            }
            let block = Block { at, queries: &queries[at..at + count], page: p, direct, head_dim, scores };
            // SAFETY: as the caller's; `block` has as many queries as the constant says.
            unsafe {
                match count {
                    1 => V::attend_block::<1>(&block, &mut parts),
                    2 => V::attend_block::<2>(&block, &mut parts),
                    3 => V::attend_block::<3>(&block, &mut parts),
                    4 => V::attend_block::<4>(&block, &mut parts),
                    5 => V::attend_block::<5>(&block, &mut parts),
                    6 => V::attend_block::<6>(&block, &mut parts),
                    7 if V::BLOCK >= 7 => V::attend_block::<7>(&block, &mut parts),
                    _ if V::BLOCK >= MAX_BLOCK => V::attend_block::<MAX_BLOCK>(&block, &mut parts),
                    _ => unreachable!("a block is at most V::BLOCK queries"),
                }
            }
            if let Some(direct) = &mut direct {
                direct.next = None; // asked for once
            }
            at += count;
        }
    }
    // SAFETY: as the caller's.
    unsafe { finish::<V>(queries, &parts) }
}

/// Asks for a page's lines, into the second-level cache. Pages lie anywhere and are 4 to 16 KiB long:
/// too short for the processor's own prefetcher to find its stride in time.
fn prefetch(page: HeadPage<'_>) {
    fn lines<T>(part: &[T]) {
        for line in part.chunks(LINE_BYTES / size_of::<T>()) {
            // SAFETY: a hint, which may name any address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
    match page {
        HeadPage::F16 { k, v } => [k, v].into_iter().for_each(lines),
        HeadPage::F32 { k, v } => [k, v].into_iter().for_each(lines),
    }
}

/// Scales the queries into scratch and clears the sums.
fn start(queries: &[Query<'_>], scores: Scores, parts: &mut Parts<'_>) {
    for (query, row) in queries.iter().zip(parts.q.chunks_exact_mut(parts.stride)) {
        for (scaled, q) in row.iter_mut().zip(query.q) {
            *scaled = q * scores.scale;
        }
    }
    parts.sums[..queries.len() * parts.stride].fill(0.0);
    parts.running[..queries.len()].fill(Running::START);
}

/// Divides by the sum of weights.
#[inline(always)]
unsafe fn finish<V: AttentionLanes>(queries: &mut [Query<'_>], parts: &Parts<'_>) {
    for ((query, sums), running) in queries.iter_mut().zip(parts.sums.chunks_exact(parts.stride)).zip(&*parts.running) {
        // SAFETY: a line holds at least a register.
        let sum = unsafe { V::load(running.sum.as_ptr()).reduce_add() };
        let factor = if query.begin < query.end { 1.0 / sum } else { 0.0 };
        for (out, s) in query.out.iter_mut().zip(sums) {
            *out = s * factor;
        }
    }
}

/// Fills the rows of `keys` from element `from` on, one element at a time.
fn transpose_plainly(keys: &mut [f32], from: usize, element: impl Fn(usize, usize) -> f32) {
    for (i, row) in keys.chunks_exact_mut(PAGE_TOKENS).enumerate().skip(from) {
        for (token, key) in row.iter_mut().enumerate() {
            *key = element(token, i);
        }
    }
}

/// Brings a page to f32: keys with the tokens side by side, values as they are.
#[inline(always)]
unsafe fn load_page<V: AttentionLanes>(page: HeadPage<'_>, head_dim: usize, parts: &mut Parts<'_>) {
    let rows = parts.values.chunks_exact_mut(parts.stride);
    match page {
        HeadPage::F16 { k, v } => {
            let whole = head_dim - head_dim % ELEMENTS;
            for i in (0..whole).step_by(ELEMENTS) {
                for token in (0..PAGE_TOKENS).step_by(2 * V::N) {
                    // SAFETY: elements `i..i + 8` of `2 N` tokens are in the page, their place in `keys`.
                    unsafe {
                        let elements = V::transpose(k.as_ptr().add(token * head_dim + i), head_dim);
                        for (j, halves) in elements.into_iter().enumerate() {
                            let out = parts.keys.as_mut_ptr().add((i + j) * PAGE_TOKENS + token);
                            let keys = V::widen(halves);
                            keys[0].store(out);
                            keys[1].store(out.add(V::N));
                        }
                    }
                }
            }
            transpose_plainly(parts.keys, whole, |token, i| k[token * head_dim + i].to_f32());
            let whole = head_dim - head_dim % V::N;
            for (row, v) in rows.zip(v.chunks_exact(head_dim)) {
                for i in (0..whole).step_by(V::N) {
                    // SAFETY: `i + N` is within both rows.
                    unsafe { V::load_f16(v.as_ptr().add(i)).store(row.as_mut_ptr().add(i)) };
                }
                for i in whole..head_dim {
                    row[i] = v[i].to_f32();
                }
            }
        }
        HeadPage::F32 { k, v } => {
            transpose_plainly(parts.keys, 0, |token, i| k[token * head_dim + i]);
            for (row, v) in rows.zip(v.chunks_exact(head_dim)) {
                row[..head_dim].copy_from_slice(v);
            }
        }
    }
}

/// Neighbours in a tile that all attend to some rows of a page.
pub struct Block<'a, 'q> {
    /// The first one's place in the tile.
    at: usize,
    queries: &'a [Query<'q>],
    page: usize,
    /// Where to read the page from, if not from scratch.
    direct: Option<Direct<'a>>,
    head_dim: usize,
    scores: Scores,
}

/// Keys and values as they lie in a page: where they serve one block only, they are not worth a stay in scratch.
#[derive(Clone, Copy)]
struct Direct<'a> {
    k: &'a [f16],
    v: &'a [f16],
    /// The keys and values of the next page, to be asked for on the way.
    next: Option<[&'a [f16]; 2]>,
}

/// Adds what the page contributes to each of the block's `M` queries.
#[inline(always)]
pub unsafe fn attend_block<V: AttentionLanes, const M: usize>(block: &Block<'_, '_>, parts: &mut Parts<'_>) {
    let stride = parts.stride;
    // SAFETY: queries `at..at + M` have rows in `q`, `sums` and `running`; rows of a page are under PAGE_TOKENS.
    unsafe {
        let weights = parts.weights.as_mut_ptr();
        let q = parts.q.as_ptr().add(block.at * stride);
        let sums = parts.sums.as_mut_ptr().add(block.at * stride);
        match &block.direct {
            Some(page) => direct_scores_of::<V, M>(q, block.head_dim, page, weights),
            None => scores_of::<V, M>(q, stride, block.head_dim, parts.keys.as_ptr(), weights),
        }
        let mut ranges = [(0, 0); M];
        for (i, range) in ranges.iter_mut().enumerate() {
            *range = block.queries[i].rows(block.page);
            let running = &mut parts.running[block.at + i];
            let sums = sums.add(i * stride);
            V::softmax(weights.add(i * PAGE_TOKENS), *range, block.scores.softcap, running, sums, stride);
        }
        match &block.direct {
            Some(page) => add_page::<V, f16, M>(weights, ranges, page.v.as_ptr(), sums, stride),
            None => add_page::<V, f32, M>(weights, ranges, parts.values.as_ptr(), sums, stride),
        }
    }
}

/// `weights[M][PAGE_TOKENS] = q[M][head_dim] · keys[head_dim][PAGE_TOKENS]`.
#[inline(always)]
unsafe fn scores_of<V: AttentionLanes, const M: usize>(
    q: *const f32,
    stride: usize,
    head_dim: usize,
    keys: *const f32,
    weights: *mut f32,
) {
    // SAFETY: offsets are within the shapes above.
    unsafe {
        for token in (0..PAGE_TOKENS).step_by(2 * V::N) {
            let mut dots = [[V::splat(0.0); 2]; M];
            for element in 0..head_dim {
                let key = keys.add(element * PAGE_TOKENS + token);
                let key = [V::load(key), V::load(key.add(V::N))];
                add_products(&mut dots, q.add(element), stride, key);
            }
            store_scores(dots, weights.add(token));
        }
    }
}

/// [`scores_of`] for keys as they lie in a page, `[PAGE_TOKENS][head_dim]`, with whole lines of elements.
#[inline(always)]
unsafe fn direct_scores_of<V: AttentionLanes, const M: usize>(
    q: *const f32,
    head_dim: usize,
    page: &Direct<'_>,
    weights: *mut f32,
) {
    // SAFETY: offsets are within the shapes above; whole lines are whole groups of ELEMENTS.
    unsafe {
        for token in (0..PAGE_TOKENS).step_by(2 * V::N) {
            let mut dots = [[V::splat(0.0); 2]; M];
            for first in (0..head_dim).step_by(ELEMENTS) {
                let elements = V::transpose(page.k.as_ptr().add(token * head_dim + first), head_dim);
                if let Some(next) = page.next {
                    // As much of the next page as this step reads of this one; all at once would fill the queue of
                    // misses and hold up everything else.
                    let from = token * head_dim + first * 2 * V::N;
                    for at in (from..from + ELEMENTS * 2 * V::N).step_by(LINE_BYTES / size_of::<f16>()) {
                        for part in next {
                            _mm_prefetch::<_MM_HINT_T1>(part.as_ptr().add(at).cast());
                        }
                    }
                }
                for (element, halves) in elements.into_iter().enumerate() {
                    add_products(&mut dots, q.add(first + element), head_dim, V::widen(halves));
                }
            }
            store_scores(dots, weights.add(token));
        }
    }
}

/// Adds to `M` queries' scores of `2 · N` keys the product of one element.
#[inline(always)]
unsafe fn add_products<V: AttentionLanes, const M: usize>(
    dots: &mut [[V; 2]; M],
    q: *const f32,
    stride: usize,
    key: [V; 2],
) {
    for (i, dots) in dots.iter_mut().enumerate() {
        // SAFETY: as the caller's.
        unsafe {
            let q = V::splat(*q.add(i * stride));
            *dots = [q.mul_add(key[0], dots[0]), q.mul_add(key[1], dots[1])];
        }
    }
}

/// Stores `M` queries' scores of `2 · N` keys.
#[inline(always)]
unsafe fn store_scores<V: AttentionLanes, const M: usize>(dots: [[V; 2]; M], weights: *mut f32) {
    for (i, dots) in dots.into_iter().enumerate() {
        // SAFETY: as the caller's.
        unsafe {
            dots[0].store(weights.add(i * PAGE_TOKENS));
            dots[1].store(weights.add(i * PAGE_TOKENS + V::N));
        }
    }
}

/// Turns one query's scores into weights `e^(score - max)`, 0 outside `rows`. If they raise the
/// greatest score, what was summed before shrinks.
#[inline(always)]
pub unsafe fn softmax<V: AttentionLanes>(
    weights: *mut f32,
    rows: (usize, usize),
    softcap: Option<f32>,
    running: &mut Running,
    sums: *mut f32,
    stride: usize,
) {
    // SAFETY: `weights` has PAGE_TOKENS elements, `sums` has `stride`, `running.sum` has LINE: all whole registers.
    unsafe {
        let starts = || (0..PAGE_TOKENS).step_by(V::N);
        if let Some(cap) = softcap {
            let (cap, reciprocal) = (V::splat(cap), V::splat(1.0 / cap));
            for at in starts() {
                softcap_lanes(V::load(weights.add(at)), cap, reciprocal).store(weights.add(at));
            }
        }
        if rows != (0, PAGE_TOKENS) {
            let (first, last) = (V::splat(rows.0 as f32), V::splat(rows.1 as f32));
            let nothing = V::splat(f32::NEG_INFINITY);
            for at in starts() {
                let number = V::load(ROW_NUMBERS.as_ptr().add(at));
                let score = V::select_lt(number, last, V::load(weights.add(at)), nothing);
                V::select_lt(number, first, nothing, score).store(weights.add(at));
            }
        }
        let mut greatest = V::load(weights);
        for at in starts().skip(1) {
            greatest = greatest.max(V::load(weights.add(at)));
        }
        if greatest.any_gt(V::splat(running.max)) {
            let max = greatest.reduce_max();
            let shrink = exp_bounded(V::splat(running.max - max));
            running.max = max;
            let sum = running.sum.as_mut_ptr();
            V::load(sum).mul(shrink).store(sum);
            for at in (0..stride).step_by(V::N) {
                V::load(sums.add(at)).mul(shrink).store(sums.add(at));
            }
        }
        let max = V::splat(running.max);
        let mut sum = V::load(running.sum.as_ptr());
        for at in starts() {
            let weight = exp_bounded(V::load(weights.add(at)).sub(max));
            weight.store(weights.add(at));
            sum = sum.add(weight);
        }
        sum.store(running.sum.as_mut_ptr());
    }
}

/// An element of values in memory.
pub trait Element: Copy {
    /// A register of them.
    unsafe fn load<V: AttentionLanes>(p: *const Self) -> V;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<V: AttentionLanes>(p: *const f32) -> V {
        // SAFETY: as the caller's.
        unsafe { V::load(p) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<V: AttentionLanes>(p: *const f16) -> V {
        // SAFETY: as the caller's.
        unsafe { V::load_f16(p) }
    }
}

/// Adds to each query's sums the values of its rows. Rows that all queries attend to are shared; each
/// has its own before and after, so that a weight of 0 never meets a value that is not finite.
#[inline(always)]
unsafe fn add_page<V: AttentionLanes, E: Element, const M: usize>(
    weights: *const f32,
    ranges: [(usize, usize); M],
    values: *const E,
    sums: *mut f32,
    stride: usize,
) {
    let first = ranges.iter().fold(0, |all, range| range.0.max(all));
    let last = ranges.iter().fold(PAGE_TOKENS, |all, range| range.1.min(all)).max(first);
    let mut before = ranges;
    let mut after = ranges;
    for (before, after) in before.iter_mut().zip(&mut after) {
        before.1 = before.1.min(first);
        after.0 = after.0.max(last);
    }
    // SAFETY: as the caller's.
    unsafe {
        add_own_values::<V, E, M>(weights, before, values, sums, stride);
        if first < last {
            add_values::<V, E, M>(weights, (first, last), values, sums, stride);
        }
        add_own_values::<V, E, M>(weights, after, values, sums, stride);
    }
}

/// [`add_values`] for each query over rows of its own, which may be none.
#[inline(always)]
unsafe fn add_own_values<V: AttentionLanes, E: Element, const M: usize>(
    weights: *const f32,
    rows: [(usize, usize); M],
    values: *const E,
    sums: *mut f32,
    stride: usize,
) {
    for (i, (from, to)) in rows.into_iter().enumerate() {
        if from < to {
            // SAFETY: as the caller's.
            unsafe { V::add_values(weights.add(i * PAGE_TOKENS), (from, to), values, sums.add(i * stride), stride) };
        }
    }
}

/// `sums[M][stride] += weights[M][rows] · values[rows][stride]`.
#[inline(always)]
pub unsafe fn add_values<V: AttentionLanes, E: Element, const M: usize>(
    weights: *const f32,
    rows: (usize, usize),
    values: *const E,
    sums: *mut f32,
    stride: usize,
) {
    // SAFETY: `stride` is a multiple of the register, so each step stays within a row.
    unsafe {
        let mut at = 0;
        if M <= V::BLOCK / 2 {
            while at + 4 * V::N <= stride {
                add_columns::<V, E, M, 4>(weights, rows, values.add(at), sums.add(at), stride);
                at += 4 * V::N;
            }
        }
        while at + 2 * V::N <= stride {
            add_columns::<V, E, M, 2>(weights, rows, values.add(at), sums.add(at), stride);
            at += 2 * V::N;
        }
        if at < stride {
            add_columns::<V, E, M, 1>(weights, rows, values.add(at), sums.add(at), stride);
        }
    }
}

/// [`add_values`] for `W` registers of columns.
#[inline(always)]
unsafe fn add_columns<V: AttentionLanes, E: Element, const M: usize, const W: usize>(
    weights: *const f32,
    rows: (usize, usize),
    values: *const E,
    sums: *mut f32,
    stride: usize,
) {
    // SAFETY: offsets are within the shapes of `add_values`.
    unsafe {
        let mut totals = [[V::splat(0.0); W]; M];
        for (i, totals) in totals.iter_mut().enumerate() {
            for (j, total) in totals.iter_mut().enumerate() {
                *total = V::load(sums.add(i * stride + j * V::N));
            }
        }
        for row in rows.0..rows.1 {
            let mut value = [V::splat(0.0); W];
            for (j, value) in value.iter_mut().enumerate() {
                *value = E::load(values.add(row * stride + j * V::N));
            }
            for (i, totals) in totals.iter_mut().enumerate() {
                let weight = V::splat(*weights.add(i * PAGE_TOKENS + row));
                for (total, value) in totals.iter_mut().zip(value) {
                    *total = weight.mul_add(value, *total);
                }
            }
        }
        for (i, totals) in totals.into_iter().enumerate() {
            for (j, total) in totals.into_iter().enumerate() {
                total.store(sums.add(i * stride + j * V::N));
            }
        }
    }
}
