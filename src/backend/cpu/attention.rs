//! stub
use super::features::Isa;
pub struct Query<'a> { pub q: &'a [f32], pub out: &'a mut [f32], pub begin: usize, pub end: usize }
pub trait Heads { fn get(&self, tok: usize, part: usize, out: &mut [f32]); }
pub fn attend(_: Isa, qs: &mut [Query], h: &dyn Heads, scale: f32, cap: Option<f32>) {
    for q in qs {
        let d = q.q.len();
        let mut row = vec![0.0; d];
        let sc: Vec<f32> = (q.begin..q.end).map(|t| { h.get(t, 0, &mut row); let s: f32 = row.iter().zip(q.q).map(|(a, b)| a * b).sum::<f32>() * scale; cap.map_or(s, |c| c * (s / c).tanh()) }).collect();
        let m = sc.iter().copied().fold(f32::MIN, f32::max);
        let e: Vec<f32> = sc.iter().map(|s| (s - m).exp()).collect();
        let sum: f32 = e.iter().sum();
        q.out.fill(0.0);
        for (t, w) in (q.begin..q.end).zip(e) { h.get(t, 1, &mut row); for i in 0..d { q.out[i] += row[i] * w / sum; } }
    }
}
