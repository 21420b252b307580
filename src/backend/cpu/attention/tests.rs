//! Attention of each instruction set against a plain softmax in f64, and against itself in other tiles.

use super::*;
use crate::backend::KvType;

/// Numbers in `-1..1` (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next().abs() * n as f32) as usize % n
    }

    fn vec(&mut self, n: usize, range: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * range).collect()
    }
}

/// The cache of one head: `tokens` keys and values, in pages that lie in memory in another order.
struct Cache {
    head_dim: usize,
    kv_type: KvType,
    /// Where each page lies.
    order: Vec<usize>,
    halves: [Vec<f16>; 2],
    singles: [Vec<f32>; 2],
}

impl Cache {
    /// Rows beyond the tokens are NaN.
    fn new(kv_type: KvType, head_dim: usize, k: &[f32], v: &[f32]) -> Cache {
        let tokens = k.len() / head_dim;
        let count = tokens.div_ceil(PAGE_TOKENS) + 1;
        let order: Vec<usize> = (0..count).map(|p| (p * 5 + 3) % count).collect();
        let order = if count.is_multiple_of(5) { (0..count).rev().collect() } else { order };
        let n = count * PAGE_TOKENS * head_dim;
        let mut cache = Cache {
            head_dim,
            kv_type,
            order,
            halves: [vec![f16::NAN; n], vec![f16::NAN; n]],
            singles: [vec![f32::NAN; n], vec![f32::NAN; n]],
        };
        for (which, rows) in [k, v].into_iter().enumerate() {
            for (t, row) in rows.chunks_exact(head_dim).enumerate() {
                let at = (cache.order[t / PAGE_TOKENS] * PAGE_TOKENS + t % PAGE_TOKENS) * head_dim;
                let to = match kv_type {
                    KvType::F16 => KvRow::F16(&mut cache.halves[which][at..at + head_dim]),
                    KvType::F32 => KvRow::F32(&mut cache.singles[which][at..at + head_dim]),
                };
                store_kv(Isa::detect(), row, to);
            }
        }
        cache
    }

    /// Element `i` of token `t` as it is stored.
    fn stored(&self, which: usize, t: usize, i: usize) -> f64 {
        let at = (self.order[t / PAGE_TOKENS] * PAGE_TOKENS + t % PAGE_TOKENS) * self.head_dim + i;
        match self.kv_type {
            KvType::F16 => self.halves[which][at].to_f64(),
            KvType::F32 => f64::from(self.singles[which][at]),
        }
    }

    /// Softmax attention of one query in f64.
    fn naive(&self, q: &[f32], begin: usize, end: usize, scores: Scores) -> Vec<f64> {
        let score = |t: usize| -> f64 {
            let dot: f64 = (0..q.len()).map(|i| f64::from(q[i]) * self.stored(0, t, i)).sum();
            let score = dot * f64::from(scores.scale);
            scores.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        };
        let all: Vec<f64> = (begin..end).map(score).collect();
        let max = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = all.iter().map(|s| (s - max).exp()).sum();
        let mean = |i| (begin..end).zip(&all).map(|(t, s)| (s - max).exp() / sum * self.stored(1, t, i)).sum();
        (0..q.len()).map(mean).collect()
    }

    fn page(&self, p: usize) -> HeadPage<'_> {
        let size = PAGE_TOKENS * self.head_dim;
        let range = self.order[p] * size..(self.order[p] + 1) * size;
        match self.kv_type {
            KvType::F16 => HeadPage::F16 { k: &self.halves[0][range.clone()], v: &self.halves[1][range] },
            KvType::F32 => HeadPage::F32 { k: &self.singles[0][range.clone()], v: &self.singles[1][range] },
        }
    }
}

/// Attends with `ranges.len()` queries in one tile; the results, one after the other.
fn tile(isa: Isa, q: &[f32], ranges: &[(usize, usize)], cache: &Cache, scores: Scores, capacity: usize) -> Vec<f32> {
    let mut scratch = Scratch::new(cache.head_dim, capacity).unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let rows = q.chunks_exact(cache.head_dim).zip(out.chunks_exact_mut(cache.head_dim)).zip(ranges);
    let mut queries: Vec<Query> = rows.map(|((q, out), &(begin, end))| Query { q, out, begin, end }).collect();
    attend(isa, &mut queries, &|p| cache.page(p), scores, &mut scratch);
    out
}

/// Causal ranges of `rows` rows that end with token `tokens`, for `group` heads each, with an optional window.
fn causal(tokens: usize, rows: usize, group: usize, window: Option<usize>) -> Vec<(usize, usize)> {
    let range = |end: usize| (window.map_or(0, |w| end.saturating_sub(w)), end);
    (tokens + 1 - rows..=tokens).flat_map(|end| std::iter::repeat_n(range(end), group)).collect()
}

/// Compares a tile with the plain softmax: values are in `-1..1`, so errors are absolute.
#[track_caller]
fn check(isa: Isa, noise: &mut Noise, cache: &Cache, ranges: &[(usize, usize)], scores: Scores) {
    let head_dim = cache.head_dim;
    let q = noise.vec(ranges.len() * head_dim, 4.0);
    let out = tile(isa, &q, ranges, cache, scores, ranges.len());
    for (i, &(begin, end)) in ranges.iter().enumerate() {
        let row = i * head_dim..(i + 1) * head_dim;
        for (got, want) in out[row.clone()].iter().zip(cache.naive(&q[row], begin, end, scores)) {
            let error = (f64::from(*got) - want).abs();
            let kv_type = cache.kv_type;
            assert!(
                error < 4e-6,
                "{isa:?} {kv_type:?} head {head_dim}, query {i} of {begin}..{end}: {got} is not {want}"
            );
        }
    }
}

fn plain(head_dim: usize) -> Scores {
    Scores { scale: 1.0 / (head_dim as f32).sqrt(), softcap: None }
}

#[test]
fn every_head_size_and_type_over_pages_in_any_order() {
    let mut noise = Noise(1);
    for head_dim in [1, 7, 8, 20, 40, 64, 80, 96, 112, 128, 256] {
        for kv_type in [KvType::F16, KvType::F32] {
            for tokens in [1, 31, 33, 150] {
                let (k, v) = (noise.vec(tokens * head_dim, 2.0), noise.vec(tokens * head_dim, 1.0));
                let cache = Cache::new(kv_type, head_dim, &k, &v);
                for isa in Isa::available() {
                    check(isa, &mut noise, &cache, &causal(tokens, tokens.min(5), 3, None), plain(head_dim));
                }
            }
        }
    }
}

#[test]
fn groups_windows_softcaps_and_ranges_at_random() {
    let mut noise = Noise(2);
    let (head_dim, tokens) = (64, 300);
    let (k, v) = (noise.vec(tokens * head_dim, 2.0), noise.vec(tokens * head_dim, 1.0));
    let cache = Cache::new(KvType::F16, head_dim, &k, &v);
    for isa in Isa::available() {
        for group in 1..=8 {
            check(isa, &mut noise, &cache, &causal(tokens, 1, group, None), plain(head_dim));
            check(isa, &mut noise, &cache, &causal(tokens - 7, 9, group, None), plain(head_dim));
        }
        for window in [1, 2, 31, 32, 33, 100] {
            check(isa, &mut noise, &cache, &causal(tokens, 40, 2, Some(window)), plain(head_dim));
        }
        let capped = Scores { scale: 1.0, softcap: Some(5.0) };
        check(isa, &mut noise, &cache, &causal(tokens, 7, 2, None), capped);
        let random: Vec<(usize, usize)> = (0..60)
            .map(|_| {
                let begin = noise.below(tokens);
                (begin, begin + 1 + noise.below(tokens - begin))
            })
            .collect();
        check(isa, &mut noise, &cache, &random, plain(head_dim));
    }
}

#[test]
fn a_query_has_the_same_bits_in_every_tile() {
    let mut noise = Noise(3);
    for (head_dim, kv_type) in [(64, KvType::F16), (80, KvType::F16), (128, KvType::F16), (36, KvType::F32)] {
        let tokens = 140;
        let (k, v) = (noise.vec(tokens * head_dim, 3.0), noise.vec(tokens * head_dim, 1.0));
        let cache = Cache::new(kv_type, head_dim, &k, &v);
        let scores = Scores { scale: 0.3, softcap: None };
        for (rows, group, window) in [(140, 1, None), (37, 3, None), (100, 3, Some(45)), (9, 8, None)] {
            let ranges = causal(tokens, rows, group, window);
            let q = noise.vec(ranges.len() * head_dim, 3.0);
            for isa in Isa::available() {
                let whole = tile(isa, &q, &ranges, &cache, scores, ranges.len());
                assert!(whole.iter().all(|v| v.is_finite()), "a row that nobody attends to shows: {isa:?}");
                for (i, range) in ranges.iter().enumerate() {
                    let row = i * head_dim..(i + 1) * head_dim;
                    let alone = tile(isa, &q[row.clone()], &[*range], &cache, scores, 1);
                    assert_eq!(alone, whole[row], "{isa:?} head {head_dim}, query {i} of {}", ranges.len());
                }
                assert_eq!(tile(isa, &q, &ranges, &cache, scores, 5), whole, "{isa:?}: several passes");
            }
        }
    }
}

/// What a later token stores must not reach an earlier query, not even an infinity.
#[test]
fn later_tokens_do_not_show() {
    let mut noise = Noise(4);
    let (head_dim, tokens) = (64, 40);
    let (mut k, mut v) = (noise.vec(tokens * head_dim, 1.0), noise.vec(tokens * head_dim, 1.0));
    let ranges = causal(tokens, 20, 2, None);
    let q = noise.vec(ranges.len() * head_dim, 1.0);
    let before = Cache::new(KvType::F32, head_dim, &k, &v);
    let spoilt = 30;
    k[spoilt * head_dim..].fill(f32::NAN);
    v[spoilt * head_dim..].fill(f32::INFINITY);
    let after = Cache::new(KvType::F32, head_dim, &k, &v);
    for isa in Isa::available() {
        let before = tile(isa, &q, &ranges, &before, plain(head_dim), 64);
        let after = tile(isa, &q, &ranges, &after, plain(head_dim), 64);
        let unaffected = ranges.iter().filter(|range| range.1 <= spoilt).count() * head_dim;
        assert!(unaffected > 0);
        assert_eq!(before[..unaffected], after[..unaffected], "{isa:?}");
        assert!(after[unaffected..].iter().any(|v| v.is_nan()), "{isa:?}");
    }
}

/// Scores of ±20 million, rising and falling over the pages: all weight is on the greatest.
#[test]
fn huge_scores_do_not_overflow() {
    let mut noise = Noise(5);
    let (head_dim, tokens) = (64, 100);
    for slope in [20.0, -20.0] {
        let mut k = vec![0.0; tokens * head_dim];
        for t in 0..tokens {
            k[t * head_dim] = slope * (t as f32 - 50.0);
        }
        let v = noise.vec(tokens * head_dim, 1.0);
        let cache = Cache::new(KvType::F16, head_dim, &k, &v);
        let mut q = vec![0.0; 3 * head_dim];
        for row in q.chunks_exact_mut(head_dim) {
            row[0] = 2e4;
        }
        let winner = if slope > 0.0 { tokens - 1 } else { 0 };
        for isa in Isa::available() {
            for softcap in [None, Some(1e6)] {
                let scores = Scores { scale: 1.0, softcap };
                let out = tile(isa, &q, &[(0, tokens); 3], &cache, scores, 3);
                let scores_tie = softcap.is_some(); // tanh saturates: many are as good as the winner
                for (i, got) in out.iter().enumerate() {
                    assert!(got.abs() <= 1.0, "{isa:?} {got}");
                    let want = cache.stored(1, winner, i % head_dim);
                    assert!(scores_tie || f64::from(*got) == want, "{isa:?} slope {slope}: {got} is not {want}");
                }
            }
        }
    }
}

#[test]
fn empty_ranges_give_zeros_and_touch_no_page() {
    let none = |_: usize| -> HeadPage<'static> { panic!("asked for a page") };
    for isa in Isa::available() {
        let mut scratch = Scratch::new(8, 4).unwrap();
        let (q, mut out) = ([1.0; 8], [f32::NAN; 16]);
        let (first, second) = out.split_at_mut(8);
        let mut queries =
            [Query { q: &q, out: first, begin: 0, end: 0 }, Query { q: &q, out: second, begin: 70, end: 40 }];
        attend(isa, &mut queries, &none, plain(8), &mut scratch);
        assert_eq!(out, [0.0; 16], "{isa:?}");
        attend(isa, &mut [], &none, plain(8), &mut scratch);
    }
}

/// Neighbours with an empty range and with ranges in different pages share a tile.
#[test]
fn mixed_tiles() {
    let mut noise = Noise(6);
    let (head_dim, tokens) = (64, 200);
    let (k, v) = (noise.vec(tokens * head_dim, 2.0), noise.vec(tokens * head_dim, 1.0));
    let cache = Cache::new(KvType::F16, head_dim, &k, &v);
    let ranges = [(0, 10), (190, 200), (50, 50), (0, 200), (20, 64), (64, 96), (97, 98)];
    let q = noise.vec(ranges.len() * head_dim, 2.0);
    for isa in Isa::available() {
        let out = tile(isa, &q, &ranges, &cache, plain(head_dim), 64);
        assert_eq!(out[2 * head_dim..3 * head_dim], [0.0; 64]);
        for (i, &range) in ranges.iter().enumerate() {
            let row = i * head_dim..(i + 1) * head_dim;
            assert_eq!(tile(isa, &q[row.clone()], &[range], &cache, plain(head_dim), 1), out[row], "{isa:?} {i}");
        }
    }
}

#[test]
fn storing_saturates_half_precision() {
    for isa in Isa::available() {
        let mut row = vec![0.1f32; 40];
        (row[3], row[20], row[39]) = (1e9, -1e9, 65504.0);
        let mut halves = vec![f16::ZERO; 40];
        store_kv(isa, &row, KvRow::F16(&mut halves));
        assert_eq!([halves[3], halves[20], halves[39], halves[0]], [f16::MAX, f16::MIN, f16::MAX, f16::from_f32(0.1)]);
        let mut singles = vec![0.0; 40];
        store_kv(isa, &row, KvRow::F32(&mut singles));
        assert_eq!(singles, row);
    }
}

#[test]
#[should_panic(expected = "page of another head size")]
fn pages_of_another_size_are_refused() {
    let cache = Cache::new(KvType::F16, 32, &[0.0; 64], &[0.0; 64]);
    let mut scratch = Scratch::new(64, 1).unwrap();
    let mut out = [0.0; 64];
    let query = Query { q: &[0.0; 64], out: &mut out, begin: 0, end: 2 };
    attend(Isa::detect(), &mut [query], &|p| cache.page(p), plain(64), &mut scratch);
}

#[test]
fn scratch_that_cannot_be_had_is_an_error() {
    for queries in [usize::MAX / 4096, usize::MAX] {
        assert!(matches!(Scratch::new(64, queries), Err(Error::OutOfMemory { .. })));
    }
    for head_dim in [0, usize::MAX] {
        assert!(matches!(Scratch::new(head_dim, 1), Err(Error::Argument(_))));
    }
}
