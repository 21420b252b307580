//! Attention in plain Rust, one query and one key after the other: what the other forms are tested
//! against, and what other processors run.

use super::{HeadPage, HeadPages, PAGE_TOKENS, Query, Scores, Scratch, checked_page};

/// A row of a page as f32 elements.
fn row<'a>(page: HeadPage<'a>, r: usize, head_dim: usize, of_keys: bool) -> impl Iterator<Item = f32> + 'a {
    let range = r * head_dim..(r + 1) * head_dim;
    let (halves, singles) = match page {
        HeadPage::F16 { k, v } => (&(if of_keys { k } else { v })[range], [].as_slice()),
        HeadPage::F32 { k, v } => ([].as_slice(), &(if of_keys { k } else { v })[range]),
    };
    halves.iter().map(|h| h.to_f32()).chain(singles.iter().copied())
}

/// See [`super::attend`].
pub fn attend(queries: &mut [Query<'_>], pages: &HeadPages<'_, '_>, scores: Scores, scratch: &Scratch) {
    let head_dim = scratch.head_dim;
    for query in queries {
        query.out.fill(0.0);
        let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
        for p in query.begin / PAGE_TOKENS..query.end.div_ceil(PAGE_TOKENS) {
            let page = checked_page(pages, p, head_dim);
            let (first, last) = query.rows(p);
            for r in first..last {
                let dot: f32 =
                    query.q.iter().zip(row(page, r, head_dim, true)).map(|(q, k)| q * scores.scale * k).sum();
                let score = scores.softcap.map_or(dot, |cap| cap * (dot / cap).tanh());
                if score > max {
                    let shrink = (max - score).exp();
                    query.out.iter_mut().for_each(|out| *out *= shrink);
                    sum *= shrink;
                    max = score;
                }
                let weight = (score - max).exp();
                sum += weight;
                for (out, v) in query.out.iter_mut().zip(row(page, r, head_dim, false)) {
                    *out += weight * v;
                }
            }
        }
        if query.begin < query.end {
            query.out.iter_mut().for_each(|out| *out /= sum);
        }
    }
}
