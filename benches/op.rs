//! How fast the matrix products are: `cargo bench --bench op [-- THREADS [TYPE...]]`.
//!
//! For each tensor type and instruction set: one row of activations on weights that no cache holds, in GB/s of what is
//! read, as a share of what the same threads read when they do nothing else; and 8, 32 and 512 rows on weights that the
//! caches hold, in tera-operations per second (a multiplication and an addition are two), as a share of what the
//! multiply-and-add instructions of the set do when nothing has to be loaded. Both peaks are measured here.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rocmforge::backend::cpu::acts::Acts;
use rocmforge::backend::cpu::features::{Isa, ShortFloat};
use rocmforge::backend::cpu::matmul::{Job, matmul};
use rocmforge::backend::cpu::matrix::Matrix;
use rocmforge::backend::cpu::memory::AlignedBuf;
use rocmforge::backend::cpu::packfile::Store;
use rocmforge::backend::cpu::pool::Pool;
use rocmforge::load::TensorBytes;
use rocmforge::quant::{FORMATS, TensorType};

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
    let mut memory = AlignedBuf::zeroed(STREAMED).expect("memory");
    // Memory that was never written is one page of zeros, which a cache holds.
    memory.as_mut_slice().fill(1);
    let words: &[u64] = bytemuck::cast_slice(memory.as_slice());
    let pieces: Vec<&[u64]> = words.chunks(1 << 15).collect();
    let total = AtomicU64::new(0);
    let seconds = best(8, || {
        pool.run(pieces.len(), &|i| {
            let (words, _) = pieces[i].as_chunks::<32>();
            let mut sums = [0u64; 32];
            for words in words {
                // As the kernels do: the processor alone does not look far enough ahead.
                #[cfg(target_arch = "x86_64")]
                for line in 0..4 {
                    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                    // SAFETY: a prefetch may name any address.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(1024 + 8 * line).cast()) };
                }
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

    /// 32 products of bytes.
    #[target_feature(enable = "avx2,avxvnni")]
    pub fn avxvnni_bytes(seed: i32) -> i32 {
        let (w, x) = (_mm256_set1_epi32(seed), _mm256_set1_epi32(!seed));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..TURNS {
            sums.iter_mut().for_each(|sum| *sum = _mm256_dpbusd_avx_epi32(*sum, w, x));
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm256_extract_epi32::<3>(sum))
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

    /// 8192 products of bf16, in one of four tiles that are summed.
    ///
    /// # Safety
    /// AMX, permitted.
    #[cfg(target_os = "linux")]
    pub unsafe fn amx_floats(turns: usize) -> i32 {
        // Palette 1; eight tiles of 16 rows of 64 bytes.
        let mut configuration = [0u8; 64];
        configuration[0] = 1;
        configuration[16..32].iter_mut().step_by(2).for_each(|bytes| *bytes = 64);
        configuration[48..56].fill(16);
        // SAFETY: as demanded; no memory but the configuration is read.
        unsafe {
            std::arch::asm!(
                "ldtilecfg [{configuration}]",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", "tilezero tmm4", "tilezero tmm5",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm5", "tdpbf16ps tmm1, tmm4, tmm5",
                "tdpbf16ps tmm2, tmm4, tmm5", "tdpbf16ps tmm3, tmm4, tmm5",
                "dec {turns}", "jnz 2b",
                "tilerelease",
                configuration = in(reg) configuration.as_ptr(), turns = inout(reg) turns => _, options(nostack)
            );
        }
        0
    }

    /// 32 products of bf16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn avx512_bf16(seed: i32) -> i32 {
        // SAFETY: a vector is as well one of bf16 as one of integers.
        let w = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(seed)) };
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..TURNS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, w, w));
        }
        sums.iter().map(|&sum| _mm512_reduce_add_ps(sum)).sum::<f32>() as i32
    }

    /// 32 products of F16.
    ///
    /// # Safety
    /// AVX512_FP16.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512_f16(seed: i32) -> i32 {
        let w = _mm512_set1_epi32(seed);
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                // SAFETY: registers alone are touched. (The intrinsic is younger than this crate's oldest compiler.)
                unsafe {
                    std::arch::asm!("vfmadd231ph {}, {}, {}", inout(zmm_reg) *sum, in(zmm_reg) w, in(zmm_reg) w,
                        options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm512_reduce_add_epi32(sum))
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

/// What all threads do in a second, in operations.
struct Peaks {
    bytes: f64,
    floats: f64,
    /// Of F16 and BF16, if not that of floats.
    halves: Option<f64>,
}

#[cfg(target_arch = "x86_64")]
fn compute_peaks(isa: Isa, pool: &Pool) -> Peaks {
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
        #[cfg(target_os = "linux")]
        Isa::Amx => {
            // Products are of floats, whatever the type.
            let turns = peaks::TURNS * peaks::SUMS / 32;
            // SAFETY: only instruction sets that the processor has and the system permits come here.
            let floats = rate(4 * 8192 / 32, &|_| unsafe { peaks::amx_floats(turns) });
            Peaks { bytes: floats, floats, halves: None }
        }
        Isa::Scalar => Peaks { bytes: f64::NAN, floats: f64::NAN, halves: None },
        Isa::Avx512Vnni => Peaks {
            // SAFETY: as above.
            bytes: rate(64, &|x| unsafe { peaks::avx512_bytes(x) }),
            // SAFETY: as above.
            floats: rate(16, &|x| unsafe { peaks::avx512_floats(x) }),
            halves: Isa::short_float().map(|short| match short {
                // SAFETY: the processor multiplies these.
                ShortFloat::Bf16 => rate(32, &|x| unsafe { peaks::avx512_bf16(x) }),
                // SAFETY: as above.
                ShortFloat::F16 => rate(32, &|x| unsafe { peaks::avx512_f16(x) }),
            }),
        },
        Isa::AvxVnni => Peaks {
            // SAFETY: as above.
            bytes: rate(32, &|x| unsafe { peaks::avxvnni_bytes(x) }),
            // SAFETY: as above.
            floats: rate(8, &|x| unsafe { peaks::avx2_floats(x) }),
            halves: None,
        },
        Isa::Avx2 => Peaks {
            // SAFETY: as above.
            bytes: rate(32, &|x| unsafe { peaks::avx2_bytes(x) }),
            // SAFETY: as above.
            floats: rate(8, &|x| unsafe { peaks::avx2_floats(x) }),
            halves: None,
        },
        #[cfg(not(target_os = "linux"))]
        Isa::Amx => Peaks { bytes: f64::NAN, floats: f64::NAN, halves: None },
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn compute_peaks(_: Isa, _: &Pool) -> Peaks {
    Peaks { bytes: f64::NAN, floats: f64::NAN, halves: None }
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
    let mut acts = Acts::new(n, COLUMNS, isa).expect("activations");
    acts.set_shape(n, COLUMNS);
    acts.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 17) as f32 - 8.0);
    let mut out = vec![0.0; n * matrix.rows()];
    best(runs, || {
        matmul(pool, isa, &mut acts, &mut [Job { matrix, out: &mut out, bias: None, accumulate: false }], false)
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let threads = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1);
    let types: Vec<_> = words.iter().filter(|word| word.parse::<usize>().is_err()).collect();
    let wanted = |t: &TensorType| types.is_empty() || types.iter().any(|word| word.eq_ignore_ascii_case(t.name()));
    let pool = Pool::new(threads).expect("threads");
    let read = read_peak(&pool);
    println!("{threads} threads read {:.1} GB/s", read / 1e9);
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        let Peaks { bytes, floats, halves } = compute_peaks(isa, &pool);
        println!("\n{}: {:.2} TOPS of bytes, {:.3} of floats", isa.name(), bytes / 1e12, floats / 1e12);
        if let Some(halves) = halves {
            println!("{:.3} of bf16", halves / 1e12);
        }
        println!(
            "{:8} {:>10} {:>5}   {:>9} {:>5}   {:>9} {:>5}   {:>9} {:>5}",
            "", "1 row GB/s", "%", "8 rows", "%", "32 rows", "%", "512 rows", "%"
        );
        let types = FORMATS.iter().filter(|format| format.decode.is_some()).map(|format| &format.tensor_type);
        for tensor_type in types.filter(|t| wanted(t)) {
            let row = tensor_type.row_bytes(COLUMNS).expect("whole blocks");
            let large = matrix(*tensor_type, STREAMED / row, isa, &pool);
            let gbps = large.bytes() as f64 / product(&large, 1, isa, &pool, 5);
            drop(large);
            let small = matrix(*tensor_type, CACHED_ROWS, isa, &pool);
            let ops = |n: usize, runs| (2 * n * CACHED_ROWS * COLUMNS) as f64 / product(&small, n, isa, &pool, runs);
            let (few, more, many) = (ops(8, 50), ops(32, 20), ops(512, 5));
            let peak = match tensor_type {
                TensorType::F32 => floats,
                TensorType::F16 | TensorType::BF16 => halves.unwrap_or(floats),
                _ => bytes,
            };
            println!(
                "{:8} {:>10.1} {:>5.0}   {:>9.3} {:>5.0}   {:>9.3} {:>5.0}   {:>9.3} {:>5.0}",
                tensor_type.name(),
                gbps / 1e9,
                100.0 * gbps / read,
                few / 1e12,
                100.0 * few / peak,
                more / 1e12,
                100.0 * more / peak,
                many / 1e12,
                100.0 * many / peak
            );
        }
    }
}
