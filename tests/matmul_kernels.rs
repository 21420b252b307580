//! The matrix kernels against decoded weights in double precision, on every GPU that there is; on an AMD card's emulator
//! where `ROCMFORGE_HIP_LIBRARY` names it.

use std::sync::Arc;

use rocmforge::backend::hip::args::{
    EPILOGUE_ADD, EPILOGUE_GELU_TANH, EPILOGUE_SILU, EPILOGUE_STORE, EmbedArgs, MatmulArgs, MatmulPart, MatrixArg,
    NormArg, QuantArg,
};
use rocmforge::backend::hip::device::{Buffer, Device, Stream};
use rocmforge::backend::hip::devices;
use rocmforge::backend::hip::module::Module;
use rocmforge::backend::hip::planes::Planes;
use rocmforge::quant::{FORMATS, TensorType};
use rocmforge::synth::Noise;

/// Weight rows of a block of the kernels for many rows.
const TILE_M: usize = 128;
const EPSILON: f32 = 1e-5;

/// Random blocks: every bit pattern of the numbers, scales that are finite and of moderate size.
fn random_rows(tensor_type: TensorType, rows: usize, columns: usize, noise: &mut Noise) -> Vec<u8> {
    let format = tensor_type.format();
    let n = rows * tensor_type.row_bytes(columns).expect("whole blocks");
    let mut bytes: Vec<u8> = (0..n).map(|_| noise.bits() as u8).collect();
    let halves: &[usize] = match tensor_type {
        TensorType::F32 | TensorType::BF16 | TensorType::MXFP4 => &[],
        TensorType::Q2_K => &[80, 82],
        TensorType::Q3_K => &[108],
        TensorType::Q6_K => &[208],
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes) {
        for &at in halves {
            let scale = half::f16::from_f32(noise.float() * 0.05);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        match tensor_type {
            TensorType::F32 => block.copy_from_slice(&noise.float().to_le_bytes()),
            TensorType::BF16 => block.copy_from_slice(&half::bf16::from_f32(noise.float()).to_le_bytes()),
            TensorType::MXFP4 => block[0] = 120 + block[0] % 8,
            _ => {}
        }
    }
    bytes
}

fn served() -> impl Iterator<Item = TensorType> {
    FORMATS.iter().filter(|format| format.decode.is_some()).map(|format| format.tensor_type)
}

fn is_float(tensor_type: TensorType) -> bool {
    matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}

fn suffix(tensor_type: TensorType) -> String {
    tensor_type.name().to_lowercase()
}

/// Blocks of 32 as `norm_quantize` makes them: the numbers, and `{d, d · Σq}`.
fn quantize(x: &[f32]) -> (Vec<i8>, Vec<[f32; 2]>) {
    let mut q = vec![0; x.len()];
    let scales = x.chunks(32).zip(q.chunks_mut(32)).map(|(x, q)| {
        let d = x.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        q.iter_mut().zip(x).for_each(|(q, x)| *q = (x * inverse).round_ties_even() as i8);
        [d, d * q.iter().map(|&q| i32::from(q)).sum::<i32>() as f32]
    });
    let scales = scales.collect();
    (q, scales)
}

struct Gpu {
    device: Arc<Device>,
    module: Arc<Module>,
    stream: Stream,
    noise: Noise,
}

/// A matrix on the device, and its numbers.
struct Weights {
    rows: usize,
    values: Vec<f32>,
    arg: MatrixArg,
    _buffer: Buffer,
}

/// One product.
#[derive(Clone, Copy)]
struct Case<'a> {
    kernel: &'a str,
    /// Type, rows, and which of the kernel's formats.
    parts: &'a [(TensorType, usize, u32)],
    columns: usize,
    n: usize,
    blocks: u32,
    epilogue: u32,
    bias: bool,
    norm: bool,
    softcap: f32,
}

impl<'a> Case<'a> {
    fn new(kernel: &'a str, parts: &'a [(TensorType, usize, u32)], columns: usize, n: usize) -> Case<'a> {
        let (blocks, epilogue) = (2, EPILOGUE_STORE);
        Case { kernel, parts, columns, n, blocks, epilogue, bias: false, norm: false, softcap: 0.0 }
    }

    /// One row, which the kernel normalises and quantises for itself.
    fn fused(&self) -> bool {
        self.kernel.starts_with("gemv_") && self.n == 1
    }

    fn quantized(&self) -> bool {
        !is_float(self.parts[0].0) && !self.kernel.starts_with("exact")
    }

    /// Multiplies by weights that were rounded to half precision.
    fn decodes(&self) -> bool {
        self.kernel.starts_with("gemm_half")
    }

    fn paired(&self) -> bool {
        self.epilogue >= EPILOGUE_SILU
    }

    /// Grid, threads, dynamic shared memory.
    fn shape(&self) -> ([u32; 3], u32, u32) {
        if self.kernel.starts_with("gemm") {
            let rows = self.parts.iter().map(|part| part.1).max().expect("parts");
            let tile_n = if self.decodes() { 128 } else { env!("RF_TILE_N").parse().expect("a number") };
            let grid = [rows.div_ceil(TILE_M), self.n.div_ceil(tile_n), self.parts.len()];
            return (grid.map(|n| n as u32), 256, 0);
        }
        let shared = match (self.fused(), self.quantized()) {
            (true, true) => self.columns.next_multiple_of(1024) / 32 * 40,
            (true, false) => self.columns.next_multiple_of(256) * 4,
            _ => 0,
        };
        ([self.blocks, 1, 1], env!("RF_BLOCK_SIZE").parse().expect("a number"), shared as u32)
    }
}

/// The activations that a kernel multiplies by, and how far it may be off for each.
struct Activations {
    x: Vec<f64>,
    slack: Vec<f64>,
}

impl Activations {
    fn of(case: &Case, x: &[f32], gain: &[f32], q: &[i8], scales: &[[f32; 2]]) -> Activations {
        let mut acts: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mut slack = vec![0.0; acts.len()];
        if case.norm {
            let mean = acts.iter().map(|x| x * x).sum::<f64>() / acts.len() as f64;
            let factor = 1.0 / (mean + f64::from(EPSILON)).sqrt();
            acts.iter_mut().zip(gain).for_each(|(x, &gain)| *x *= factor * f64::from(gain));
        }
        let largest = |block: &[f64]| block.iter().fold(0f64, |most, x| most.max(x.abs()));
        let halves = case.kernel.starts_with("gemm") && case.columns.is_multiple_of(32);
        for (block, (acts, slack)) in acts.chunks_mut(32).zip(slack.chunks_mut(32)).enumerate() {
            let most = largest(acts);
            for (i, (x, slack)) in acts.iter_mut().zip(slack).enumerate() {
                *slack = match case.parts[0].0 {
                    // Where the kernel quantises, numbers in the middle may go either way; all may, behind a norm.
                    _ if case.quantized() && case.norm => most / 127.0 * 0.505,
                    _ if case.quantized() => {
                        let d = f64::from(scales[block][0]);
                        let middle = case.fused() && ((*x / d).abs().fract() - 0.5).abs() < 1e-4;
                        *x = d * f64::from(q[block * 32 + i]);
                        x.abs() * 3e-7 + if middle { 1.01 * d } else { 0.0 }
                    }
                    TensorType::F16 if halves => (x.abs() * 0.5f64.powi(11)).max(most * 0.5f64.powi(24)),
                    TensorType::BF16 if halves => x.abs() * 0.5f64.powi(16),
                    _ => x.abs() * 1e-6,
                };
            }
        }
        Activations { x: acts, slack }
    }

    /// A row of weights times row `t`, and how far off it may be; `decoded` if weights are rounded to half precision.
    fn product(&self, weights: &Weights, r: usize, t: usize, columns: usize, decoded: bool) -> (f64, f64) {
        let row = &weights.values[r * columns..][..columns];
        let (x, slack) = (&self.x[t * columns..][..columns], &self.slack[t * columns..][..columns]);
        let largest = |block: &[f32]| f64::from(block.iter().fold(0f32, |most, w| most.max(w.abs())));
        let sizes = row.chunks(32).zip(x.chunks(32)).map(|(w, x)| largest(w) * x.iter().map(|x| x.abs()).sum::<f64>());
        let rounded = if decoded { sizes.sum::<f64>() * 2.0 * 0.5f64.powi(11) } else { 0.0 };
        row.iter().zip(x).zip(slack).fold((0.0, 1e-6 + rounded), |(sum, tolerance), ((&w, x), slack)| {
            let (w, term) = (f64::from(w), f64::from(w) * x);
            (sum + term, tolerance + 3e-6 * term.abs() + w.abs() * slack)
        })
    }
}

impl Gpu {
    /// Every device that runs our code.
    fn all() -> Vec<Gpu> {
        let found: Vec<Gpu> = devices()
            .into_iter()
            .filter(|found| found.info.unusable.is_empty())
            .map(|found| {
                let device = found.open().expect("a device");
                let module = Module::load(&device).expect("the kernels");
                let stream = device.stream().expect("a stream");
                Gpu { device, module, stream, noise: Noise::new(7) }
            })
            .collect();
        if found.is_empty() {
            eprintln!("SKIPPED: there is no GPU, and ROCMFORGE_HIP_LIBRARY names no emulator");
        }
        found
    }

    fn upload<T: bytemuck::NoUninit>(&self, values: &[T]) -> Buffer {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = self.device.allocate(bytes.len(), "a test").expect("memory");
        let mut pinned = self.device.allocate_pinned(bytes.len()).expect("memory");
        pinned.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        let _entered = self.device.enter().expect("a device");
        self.stream.upload(&buffer, 0, &pinned, 0, bytes.len()).expect("a copy");
        self.stream.synchronize().expect("a copy");
        buffer
    }

    fn download(&self, buffer: &Buffer) -> Vec<f32> {
        let pinned = self.device.allocate_pinned(buffer.bytes()).expect("memory");
        let _entered = self.device.enter().expect("a device");
        self.stream.download(&pinned, buffer, 0, buffer.bytes()).expect("a copy");
        self.stream.synchronize().expect("a copy");
        pinned.as_slice()[..buffer.bytes()].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn place(&mut self, tensor_type: TensorType, rows: usize, columns: usize) -> Weights {
        let file = random_rows(tensor_type, rows, columns, &mut self.noise);
        let mut values = vec![0.0; rows * columns];
        tensor_type.format().decode.expect("a decode")(&file, &mut values);
        let planes = Planes::of(tensor_type, rows, columns).expect("planes");
        let mut bytes = vec![0; planes.bytes];
        let mut pieces: Vec<&mut [u8]> = Vec::new();
        let (mut rest, mut at) = (&mut bytes[..], 0);
        for (&offset, row) in planes.offsets.iter().zip(&planes.row_bytes) {
            let (piece, behind) = std::mem::take(&mut rest)[offset - at..].split_at_mut(rows * row);
            pieces.push(piece);
            (rest, at) = (behind, offset + rows * row);
        }
        planes.pack_rows(&file, rows, &mut pieces);
        let buffer = self.upload(&bytes);
        let plane = [1, 2, 3].map(|i| planes.offsets.get(i).copied().unwrap_or(0) as u64);
        let arg = MatrixArg { data: buffer.address(), plane, rows: rows as u32, columns: columns as u32 };
        Weights { rows, values, arg, _buffer: buffer }
    }

    fn launch<A: bytemuck::NoUninit>(&self, kernel: &str, (grid, threads, shared): ([u32; 3], u32, u32), args: &A) {
        let kernel = self.module.kernel(kernel).unwrap_or_else(|e| panic!("{e}"));
        let _entered = self.device.enter().expect("a device");
        kernel.launch(grid, threads, shared, args).send(&self.device, &self.stream).unwrap_or_else(|e| panic!("{e}"));
        self.stream.synchronize().unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
    }

    /// Runs a case and compares every number that it stores; what lies beside them must stay.
    fn check(&mut self, case: &Case) {
        let (n, columns) = (case.n, case.columns);
        let weights: Vec<Weights> = case.parts.iter().map(|part| self.place(part.0, part.1, columns)).collect();
        let x: Vec<f32> = self.noise.floats(n * columns).into_iter().map(|x| x * 3.0).collect();
        let gain: Vec<f32> = self.noise.floats(columns).into_iter().map(|x| x + 1.2).collect();
        let (q, scales) = if columns.is_multiple_of(32) { quantize(&x) } else { Default::default() };
        let acts = Activations::of(case, &x, &gain, &q, &scales);
        let stride = |weights: &Weights| weights.rows + 5;
        let before: Vec<Vec<f32>> = weights.iter().map(|w| self.noise.floats(n * stride(w))).collect();
        let biases: Vec<Vec<f32>> = weights.iter().map(|w| self.noise.floats(w.rows)).collect();
        let (x_buffer, gain_buffer) = (self.upload(&x), self.upload(&gain));
        let quants = case.quantized() && !case.fused();
        let quant_buffers = quants.then(|| (self.upload(&q), self.upload(&scales)));
        let outs: Vec<Buffer> = before.iter().map(|values| self.upload(values)).collect();
        let bias_buffers: Vec<Buffer> = biases.iter().map(|values| self.upload(values)).collect();
        let mut args = MatmulArgs {
            parts: weights.len() as u32,
            n: n as u32,
            columns: columns as u32,
            epilogue: case.epilogue,
            x: if quants { 0 } else { x_buffer.address() },
            norm: NormArg { gain: if case.norm { gain_buffer.address() } else { 0 }, epsilon: EPSILON, unused: 0 },
            acts: quant_buffers
                .as_ref()
                .map_or(QuantArg::default(), |(q, scales)| QuantArg { q: q.address(), scales: scales.address() }),
            softcap: case.softcap,
            ..Default::default()
        };
        for (i, weights) in weights.iter().enumerate() {
            args.part[i] = MatmulPart {
                matrix: weights.arg,
                bias: if case.bias { bias_buffers[i].address() } else { 0 },
                out: outs[if case.paired() { 0 } else { i }].address(),
                out_stride: stride(weights) as u32,
                which: case.parts[i].2,
            };
        }
        self.launch(case.kernel, case.shape(), &args);
        for (i, part) in weights.iter().enumerate().take(if case.paired() { 1 } else { 3 }) {
            for (at, (&found, &before)) in self.download(&outs[i]).iter().zip(&before[i]).enumerate() {
                let (t, r) = (at / stride(part), at % stride(part));
                let (expected, tolerance) = match r < part.rows {
                    true => expect(case, &acts, &weights, &biases, i, r, t, before),
                    false => (f64::from(before), 0.0),
                };
                assert!(
                    (f64::from(found) - expected).abs() <= tolerance,
                    "{} of {:?} × {columns}, {n} rows, epilogue {}: part {i}, [{t}][{r}] is {found}, not {expected} ± {tolerance}",
                    case.kernel,
                    case.parts,
                    case.epilogue
                );
            }
        }
    }
}

/// What a kernel should store at row `r` of part `i`, and how far off it may be.
#[allow(clippy::too_many_arguments)]
fn expect(
    case: &Case,
    acts: &Activations,
    weights: &[Weights],
    biases: &[Vec<f32>],
    i: usize,
    r: usize,
    t: usize,
    before: f32,
) -> (f64, f64) {
    let linear = |i: usize| {
        let (y, tolerance) = acts.product(&weights[i], r, t, case.columns, case.decodes());
        (if case.bias { y + f64::from(biases[i][r]) } else { y }, tolerance)
    };
    let (mut y, tolerance) = linear(i);
    if case.softcap != 0.0 {
        let c = f64::from(case.softcap);
        return (
            c * (y / c).tanh() + if case.epilogue == EPILOGUE_ADD { f64::from(before) } else { 0.0 },
            tolerance + 1e-5,
        );
    }
    if case.epilogue == EPILOGUE_ADD {
        return (y + f64::from(before), tolerance + 1e-6);
    }
    if !case.paired() {
        return (y, tolerance);
    }
    let (up, up_tolerance) = linear(1);
    y = match case.epilogue {
        EPILOGUE_SILU => y / (1.0 + (-y).exp()),
        _ => 0.5 * y * (1.0 + (0.797_884_560_802_865_4 * (y + 0.044_715 * y * y * y)).tanh()),
    };
    // The activations' slope is 1.13 at most.
    (y * up, 1.2 * tolerance * (up.abs() + up_tolerance) + up_tolerance * y.abs() + 1e-5 * (y * up).abs())
}

/// Columns: less than a unit's worth for each lane, odd numbers for floats, several loads for each lane, more than one turn
/// of a block.
fn widths(tensor_type: TensorType) -> [usize; 6] {
    match tensor_type.format().block_elements {
        1 => [64, 576, 1152, 77, 2048, 4352],
        32 => [32, 576, 1184, 160, 2048, 4352],
        _ => [256, 512, 1280, 768, 2048, 4352],
    }
}

#[test]
fn one_row() {
    for mut gpu in Gpu::all() {
        for t in served() {
            let kernel = format!("gemv_{}", suffix(t));
            let w = widths(t);
            for columns in w {
                // One row of weights a group, two, and groups without any.
                for (rows, blocks) in [(1, 2), (37, 3), (150, 2)] {
                    gpu.check(&Case { blocks, ..Case::new(&kernel, &[(t, rows, 0)], columns, 1) });
                }
            }
            let three = [(t, 40, 0), (t, 17, 0), (t, 16, 0)];
            gpu.check(&Case { bias: true, ..Case::new(&kernel, &three, w[4], 1) });
            let three = [(t, 140, 0), (t, 33, 0), (t, 31, 0)];
            gpu.check(&Case { bias: true, norm: true, ..Case::new(&kernel, &three, w[2], 1) });
            gpu.check(&Case { norm: true, ..Case::new(&kernel, &three[..1], w[5], 1) });
            gpu.check(&Case { epilogue: EPILOGUE_ADD, norm: true, ..Case::new(&kernel, &three[..1], w[2], 1) });
            gpu.check(&Case { softcap: 30.0, norm: true, ..Case::new(&kernel, &[(t, 20, 0)], w[3], 1) });
            for epilogue in [EPILOGUE_SILU, EPILOGUE_GELU_TANH] {
                for columns in [w[1], w[3], w[4]] {
                    let pair = [(t, 50, 0), (t, 50, 0)];
                    let case = Case::new(&kernel, &pair, columns, 1);
                    gpu.check(&Case { epilogue, norm: columns == w[4], bias: columns == w[1], ..case });
                }
            }
        }
    }
}

#[test]
fn one_row_of_mixed_formats() {
    use TensorType::*;
    let mixed = [
        (Q4_K, Q6_K),
        (Q5_K, Q6_K),
        (Q4_K, Q5_K),
        (Q3_K, Q5_K),
        (Q3_K, Q4_K),
        (Q2_K, Q4_K),
        (Q5_0, Q8_0),
        (Q5_1, Q8_0),
        (IQ4_XS, Q5_K),
    ];
    for mut gpu in Gpu::all() {
        for (a, b) in mixed {
            let kernel = format!("gemv_{}_{}", suffix(a), suffix(b));
            for blocks in [1, 2, 3] {
                let parts = [(a, 70, 0), (a, 18, 0), (b, 18, 1)];
                gpu.check(&Case { blocks, norm: true, bias: true, ..Case::new(&kernel, &parts, 512, 1) });
                let parts = [(a, 250, 0), (b, 18, 1), (b, 18, 1)];
                gpu.check(&Case { blocks, ..Case::new(&kernel, &parts, 1280, 1) });
            }
        }
    }
}

#[test]
fn few_rows() {
    for mut gpu in Gpu::all() {
        for t in served() {
            let kernel = format!("gemv_batch_{}", suffix(t));
            let w = widths(t);
            for n in [2, 3, 4, 5, 8] {
                for columns in &w[..5] {
                    gpu.check(&Case::new(&kernel, &[(t, 45, 0)], *columns, n));
                }
            }
            let three = [(t, 140, 0), (t, 33, 0), (t, 31, 0)];
            gpu.check(&Case { bias: true, ..Case::new(&kernel, &three, w[2], 3) });
            let pair = [(t, 50, 0), (t, 50, 0)];
            gpu.check(&Case { epilogue: EPILOGUE_SILU, bias: true, ..Case::new(&kernel, &pair, w[1], 7) });
            gpu.check(&Case { epilogue: EPILOGUE_GELU_TANH, ..Case::new(&kernel, &pair, w[1], 2) });
            gpu.check(&Case { epilogue: EPILOGUE_ADD, ..Case::new(&kernel, &pair[..1], w[1], 6) });
        }
    }
}

#[test]
fn exact_products() {
    for mut gpu in Gpu::all() {
        for t in served() {
            let kernel = format!("exact_{}", suffix(t));
            let w = widths(t);
            for n in [1, 3, 8, 9, 17] {
                for columns in &w[..4] {
                    gpu.check(&Case::new(&kernel, &[(t, 25, 0)], *columns, n));
                }
            }
            let three = [(t, 14, 0), (t, 33, 0), (t, 31, 0)];
            gpu.check(&Case { bias: true, epilogue: EPILOGUE_ADD, ..Case::new(&kernel, &three, w[2], 11) });
        }
    }
}

#[test]
fn many_rows() {
    for mut gpu in Gpu::all() {
        for t in served() {
            for family in ["gemm", "gemm_half"] {
                let kernel = format!("{family}_{}", suffix(t));
                // Floats have one kernel, and so has everything on devices without matrix units.
                if gpu.module.find::<MatmulArgs>(&kernel).expect("a module").is_none() && family == "gemm_half" {
                    continue;
                }
                many_rows_by(&mut gpu, &kernel, t);
            }
        }
    }
}

fn many_rows_by(gpu: &mut Gpu, kernel: &str, t: TensorType) {
    let w = widths(t);
    let shapes = [(9, 0, 1), (16, 1, 130), (33, 2, 128), (64, 3, 40), (65, 1, 257), (70, 4, 16), (130, 1, 130)];
    for (n, width, rows) in shapes {
        gpu.check(&Case::new(kernel, &[(t, rows, 0)], w[width], n));
    }
    let three = [(t, 140, 0), (t, 33, 0), (t, 31, 0)];
    gpu.check(&Case { bias: true, ..Case::new(kernel, &three, w[2], 20) });
    let case = Case::new(kernel, &three[2..], w[2], 11);
    gpu.check(&Case { softcap: 20.0, epilogue: EPILOGUE_ADD, ..case });
}

#[test]
fn rows_of_the_embedding() {
    for mut gpu in Gpu::all() {
        for t in served() {
            let columns = widths(t)[3];
            let weights = gpu.place(t, 9, columns);
            let tokens = [3u32, 8, 0];
            let (token_buffer, out) = (gpu.upload(&tokens), gpu.upload(&vec![f32::NAN; 3 * columns]));
            let args = EmbedArgs {
                table: weights.arg,
                tokens: token_buffer.address(),
                x: out.address(),
                scale: 1.5,
                n: tokens.len() as u32,
            };
            gpu.launch(&format!("embed_{}", suffix(t)), ([3, 1, 1], 256, 0), &args);
            for (i, found) in gpu.download(&out).into_iter().enumerate() {
                let expected = weights.values[tokens[i / columns] as usize * columns + i % columns] * 1.5;
                assert!((found - expected).abs() <= 3e-7 * (expected.abs() + 1.0), "{t:?}: {found}, not {expected}");
            }
        }
    }
}

/// Activations beyond half precision's range, and far below it, come through the products of half-precision weights.
#[test]
fn halves_keep_the_range_of_float32() {
    for mut gpu in Gpu::all() {
        let (rows, columns, n) = (16, 64, 9);
        let weights = gpu.place(TensorType::F16, rows, columns);
        for magnitude in [1e-30f32, 1e-6, 1e6, 1e30] {
            let x: Vec<f32> = gpu.noise.floats(n * columns).into_iter().map(|x| x * magnitude).collect();
            let (x_buffer, out) = (gpu.upload(&x), gpu.upload(&vec![f32::NAN; n * rows]));
            let mut args = MatmulArgs {
                parts: 1,
                n: n as u32,
                columns: columns as u32,
                x: x_buffer.address(),
                ..Default::default()
            };
            args.part[0] =
                MatmulPart { matrix: weights.arg, out: out.address(), out_stride: rows as u32, ..Default::default() };
            gpu.launch("gemm_f16", ([1, 1, 1], 256, 0), &args);
            for (i, found) in gpu.download(&out).into_iter().enumerate() {
                let terms = weights.values[i % rows * columns..].iter().zip(&x[i / rows * columns..]).take(columns);
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), (&w, &x)| {
                    let term = f64::from(w) * f64::from(x);
                    (sum + term, size + term.abs())
                });
                assert!((f64::from(found) - sum).abs() <= 1e-3 * size, "{magnitude}: {found}, not {sum}");
            }
        }
    }
}
