//! stub
use super::acts::Acts;
use super::features::Isa;
use super::matrix::Matrix;
use super::pool::Pool;
pub struct Job<'a> { pub matrix: &'a Matrix, pub out: &'a mut [f32], pub bias: Option<&'a [f32]>, pub accumulate: bool }
pub fn matmul(_: &Pool, _: Isa, acts: &Acts, jobs: &mut [Job], _: bool) {
    for j in jobs {
        let mut w = vec![0.0; j.matrix.cols];
        for r in 0..j.matrix.rows {
            j.matrix.row(r, &mut w);
            for t in 0..acts.n {
                let x = &acts.v[t * acts.cols..(t + 1) * acts.cols];
                let mut s = [0.0f32; 16];
                for (a, b) in x.chunks(16).zip(w.chunks(16)) { for i in 0..a.len() { s[i] += a[i] * b[i]; } }
                let mut y: f32 = s.iter().sum();
                if let Some(b) = j.bias { y += b[r]; }
                let o = &mut j.out[t * j.matrix.rows + r];
                *o = if j.accumulate { *o + y } else { y };
            }
        }
    }
}
