//! stub
use super::features::Isa;
pub fn rms_norm(_: Isa, x: &[f32], g: &[f32], eps: f32, out: &mut [f32]) {
    let s: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / x.len() as f64;
    let k = (1.0 / (s + f64::from(eps)).sqrt()) as f32;
    for i in 0..x.len() { out[i] = x[i] * k * g[i]; }
}
pub fn rms_norm_in_place(i: Isa, x: &mut [f32], g: &[f32], eps: f32) { let y = x.to_vec(); rms_norm(i, &y, g, eps, x); }
pub fn add_assign(_: Isa, x: &mut [f32], y: &[f32]) { for i in 0..x.len() { x[i] += y[i]; } }
pub fn rope_norm(_: Isa, h: &mut [f32], c: &[f32], s: &[f32]) { for i in 0..c.len() { let (a, b) = (h[2*i], h[2*i+1]); h[2*i] = a*c[i]-b*s[i]; h[2*i+1] = a*s[i]+b*c[i]; } }
pub fn rope_neox(_: Isa, h: &mut [f32], c: &[f32], s: &[f32]) { let n = c.len(); for i in 0..n { let (a, b) = (h[i], h[i+n]); h[i] = a*c[i]-b*s[i]; h[i+n] = a*s[i]+b*c[i]; } }
pub fn mul_silu(_: Isa, g: &[f32], u: &[f32], o: &mut [f32]) { for i in 0..g.len() { o[i] = g[i] / (1.0 + (-g[i]).exp()) * u[i]; } }
pub fn mul_gelu_tanh(_: Isa, g: &[f32], u: &[f32], o: &mut [f32]) { for i in 0..g.len() { let x = g[i]; o[i] = 0.5*x*(1.0+(0.797_884_6*(x+0.044715*x*x*x)).tanh()) * u[i]; } }
pub fn softcap(_: Isa, x: &mut [f32], c: f32) { for v in x { *v = c * (*v / c).tanh(); } }
