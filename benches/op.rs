//! How fast the matrix products are: `cargo bench --bench op [-- THREADS [TYPE...]]`.
//!
//! For each tensor type and instruction set: one row of activations on weights that no cache holds, in GB/s of what is
//! read, as a share of what the same threads read when they do nothing else; and 8 and 256 rows on weights that the
//! caches hold, in tera-operations per second (a multiplication and an addition are two), as a share of what the
//! multiply-and-add instructions of the set do when nothing has to be loaded. Both peaks are measured here.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rocmforge::backend::cpu::acts::Acts;
use rocmforge::backend::cpu::features::Isa;
use rocmforge::backend::cpu::matmul::{Job, matmul};
use rocmforge::backend::cpu::matrix::Matrix;
use rocmforge::backend::cpu::memory::AlignedBuf;
use rocmforge::backend::cpu::packfile::Store;
use rocmforge::backend::cpu::pool::Pool;
use rocmforge::load::TensorBytes;
use rocmforge::quant::TensorType;

const TYPES: [TensorType; 16] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
    TensorType::IQ4_NL,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
];

/// Inputs of the matrices.
const COLUMNS: usize = 2048;
/// Bytes of weights that no cache holds.
const STREAMED: usize = 160 << 20;
/// Rows of a matrix that caches hold.
const CACHED_ROWS: usize = 512;

/// The least time of several runs of `f`, in seconds: what the machine can do, not what its other work left.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    f();
    let timed = |_| {
        let began = Instant::now();
        f();
        began.elapsed().as_secs_f64()
    };
    (0..runs).map(timed).fold(f64::INFINITY, f64::min)
}

/// Bytes per second that the threads read.
fn read_peak(pool: &Pool) -> f64 {
    let memory = AlignedBuf::zeroed(STREAMED).expect("memory");
    let words: &[u64] = bytemuck::cast_slice(memory.as_slice());
    let pieces: Vec<&[u64]> = words.chunks(1 << 15).collect();
    let total = AtomicU64::new(0);
    let seconds = best(8, || {
        pool.run(pieces.len(), &|i| {
            let (words, _) = pieces[i].as_chunks::<32>();
            let mut sums = [0u64; 32];
            for words in words {
                sums.iter_mut().zip(words).for_each(|(sum, word)| *sum |= word);
            }
            total.fetch_or(sums.iter().fold(0, |a, b| a | b), Ordering::Relaxed);
        });
    });
    black_box(total);
    STREAMED as f64 / seconds
}

/// Multiplications and additions of 8-bit integers and of floats that need no memory.
#[cfg(target_arch = "x86_64")]
mod peaks {
    use std::arch::x86_64::*;

    /// Turns of each loop, and independent sums: enough to hide the instructions' latency.
    pub const TURNS: usize = 100_000;
    pub const SUMS: usize = 12;

    /// 64 products of bytes a sum and turn.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn avx512_bytes(seed: i32) -> i32 {
        let (w, x) = (_mm512_set1_epi32(seed), _mm512_set1_epi32(!seed));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..TURNS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, w, x));
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm512_reduce_add_epi32(sum))
    }

    /// 32 products of bytes. The sum is its own operand, or the product would be computed once.
    #[target_feature(enable = "avx2")]
    pub fn avx2_bytes(seed: i32) -> i32 {
        let (w, ones) = (_mm256_set1_epi32(seed), _mm256_set1_epi16(1));
        let mut sums = [_mm256_set1_epi32(!seed); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, *sum), ones));
            }
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm256_extract_epi32::<3>(sum))
    }

    /// 16 products of floats.
    #[target_feature(enable = "avx512f")]
    pub fn avx512_floats(seed: i32) -> i32 {
        let (w, x) = (_mm512_set1_ps(seed as f32), _mm512_set1_ps(0.5));
        let mut sums = [w; SUMS];
        for _ in 0..TURNS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(*sum, x, w));
        }
        sums.iter().map(|&sum| _mm512_reduce_add_ps(sum)).sum::<f32>() as i32
    }

    /// 8 products of floats.
    #[target_feature(enable = "avx2,fma")]
    pub fn avx2_floats(seed: i32) -> i32 {
        let (w, x) = (_mm256_set1_ps(seed as f32), _mm256_set1_ps(0.5));
        let mut sums = [w; SUMS];
        for _ in 0..TURNS {
            sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(*sum, x, w));
        }
        sums.iter().map(|&sum| _mm256_cvtss_f32(sum)).sum::<f32>() as i32
    }
}

/// Operations per second of all threads: of bytes, and of floats.
#[cfg(target_arch = "x86_64")]
fn compute_peaks(isa: Isa, pool: &Pool) -> (f64, f64) {
    let threads = pool.threads();
    // The threads' tasks must not be claimed by one of them: each is long, and there are several of each.
    let rate = |products: usize, f: &(dyn Fn(i32) -> i32 + Sync)| {
        let seconds = best(5, || {
            pool.run(8 * threads, &|i| {
                black_box(f(black_box(i as i32)));
            })
        });
        (16 * threads * peaks::TURNS * peaks::SUMS * products) as f64 / seconds
    };
    match isa {
        // SAFETY: only instruction sets that the processor has come here.
        Isa::Avx512Vnni => unsafe { (rate(64, &|x| peaks::avx512_bytes(x)), rate(16, &|x| peaks::avx512_floats(x))) },
        // SAFETY: as above.
        Isa::Avx2 => unsafe { (rate(32, &|x| peaks::avx2_bytes(x)), rate(8, &|x| peaks::avx2_floats(x))) },
        Isa::Scalar => (f64::NAN, f64::NAN),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn compute_peaks(_: Isa, _: &Pool) -> (f64, f64) {
    (f64::NAN, f64::NAN)
}

/// A matrix of about `rows` rows whose scales, wherever they stand in a block, are finite and normal.
fn matrix(tensor_type: TensorType, rows: usize, isa: Isa, pool: &Pool) -> Matrix {
    let len = rows * tensor_type.row_bytes(COLUMNS).expect("whole blocks");
    let bytes: Vec<u8> = (0..len as u32).map(|i| 0x20 | (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x1f).collect();
    let bytes = TensorBytes::new(Arc::new(bytes), 0, len).expect("all of them");
    Matrix::place(tensor_type, rows, COLUMNS, &bytes.into(), Some(isa), pool, &Store::default()).expect("a matrix")
}

/// Seconds of one product with `n` rows of activations.
fn product(matrix: &Matrix, n: usize, isa: Isa, pool: &Pool, runs: usize) -> f64 {
    let mut acts = Acts::new(n, COLUMNS).expect("activations");
    acts.set_shape(n, COLUMNS);
    acts.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 17) as f32 - 8.0);
    acts.quantize(isa, pool);
    let mut out = vec![0.0; n * matrix.rows()];
    best(runs, || matmul(pool, isa, &acts, &mut [Job { matrix, out: &mut out, bias: None, accumulate: false }], false))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let threads = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1);
    let wanted = |t: &TensorType| words.iter().all(|w| w.parse::<usize>().is_ok() || w.eq_ignore_ascii_case(t.name()));
    let pool = Pool::new(threads).expect("threads");
    let read = read_peak(&pool);
    println!("{threads} threads read {:.1} GB/s", read / 1e9);
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        let (bytes, floats) = compute_peaks(isa, &pool);
        println!("\n{}: {:.2} TOPS of bytes, {:.3} of floats", isa.name(), bytes / 1e12, floats / 1e12);
        println!(
            "{:8} {:>10} {:>5}   {:>9} {:>5}   {:>9} {:>5}",
            "", "1 row GB/s", "%", "8 rows", "%", "256 rows", "%"
        );
        for tensor_type in TYPES.iter().filter(|t| wanted(t)) {
            let row = tensor_type.row_bytes(COLUMNS).expect("whole blocks");
            let large = matrix(*tensor_type, STREAMED / row, isa, &pool);
            let gbps = large.bytes() as f64 / product(&large, 1, isa, &pool, 5);
            drop(large);
            let small = matrix(*tensor_type, CACHED_ROWS, isa, &pool);
            let ops = |n: usize, runs| (2 * n * CACHED_ROWS * COLUMNS) as f64 / product(&small, n, isa, &pool, runs);
            let (few, many) = (ops(8, 50), ops(256, 8));
            let float = matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::BF16);
            let peak = if float { floats } else { bytes };
            println!(
                "{:8} {:>10.1} {:>5.0}   {:>9.3} {:>5.0}   {:>9.3} {:>5.0}",
                tensor_type.name(),
                gbps / 1e9,
                100.0 * gbps / read,
                few / 1e12,
                100.0 * few / peak,
                many / 1e12,
                100.0 * many / peak
            );
        }
    }
}
