//! The verbs on a device.
//!
//! A step of few rows is put off, launch by launch, and sent as one when its logits are asked for ([`super::plan`]); a
//! step of many rows is sent as it comes, a few layers ahead of the device at most, so that it can be cancelled.
//!
//! With one row each verb is one launch: kernels normalise and quantise their input for themselves, and attention
//! rotates and appends. With more rows these are launches of their own.

use super::HipBackend;
use super::args::*;
use super::device::Buffer;
use super::module::{Kernel, Launch};
use super::pages::DevicePage;
use super::tuning::{self, Family, HALF_ROWS, ROW_THREADS};
use super::weights::{DeviceMatrix, is_quantized, kernel_suffix};
use super::work::{ACT_BLOCK, FEW_ROWS, MAX_SPLITS, Pending, Work};
use crate::backend::*;
use crate::error::{Error, Result};

/// Keys that a share of attention should have at least.
const SPLIT_KEYS: usize = 64;

fn work_of(work: &mut Workspace) -> Result<&mut Work> {
    work.0.downcast_mut().ok_or_else(|| foreign("workspace"))
}

fn matrix_of(matrix: &Matrix) -> Result<&DeviceMatrix> {
    matrix.placed.downcast_ref().ok_or_else(|| foreign("matrix"))
}

fn vector_of(vector: &Vector) -> Result<u64> {
    vector.placed.downcast_ref::<Buffer>().map(Buffer::address).ok_or_else(|| foreign("vector"))
}

fn bias_of(linear: &Linear) -> Result<u64> {
    linear.bias.as_ref().map_or(Ok(0), vector_of)
}

fn norm_of(norm: &Norm) -> Result<NormArg> {
    Ok(NormArg { gain: vector_of(norm.gain)?, epsilon: norm.epsilon, unused: 0 })
}

fn optional_norm(norm: &Option<Norm>) -> Result<NormArg> {
    norm.as_ref().map_or(Ok(NormArg::default()), norm_of)
}

/// A product that a verb asks for: the matrix, its bias, where the result goes.
#[derive(Clone, Copy)]
struct Product<'a> {
    matrix: &'a DeviceMatrix,
    bias: u64,
    out: u64,
    out_stride: usize,
}

impl<'a> Product<'a> {
    fn new(linear: &'a Linear, out: &Buffer, out_stride: usize) -> Result<Product<'a>> {
        Ok(Product { matrix: matrix_of(&linear.weight)?, bias: bias_of(linear)?, out: out.address(), out_stride })
    }

    fn part(&self, which: u32) -> MatmulPart {
        MatmulPart {
            matrix: self.matrix.arg(),
            bias: self.bias,
            out: self.out,
            out_stride: self.out_stride as u32,
            which,
        }
    }
}

/// What a verb multiplies by: rows at an address, and the norm that comes before.
#[derive(Clone, Copy)]
struct Input {
    rows: u64,
    n: usize,
    columns: usize,
    norm: NormArg,
}

impl HipBackend {
    /// Sends a launch, or puts it off.
    fn emit(&self, work: &mut Work, launch: Launch) -> Result<()> {
        if work.deferred() {
            work.plan.push(launch);
            return Ok(());
        }
        launch.send(&self.device, &work.stream)
    }

    /// Runs `body` on this backend's device; a failure marks the workspace.
    fn verb<T>(&self, work: &mut Workspace, body: impl FnOnce(&Self, &mut Work) -> Result<T>) -> Result<T> {
        let _entered = self.device.enter()?;
        let work = work_of(work)?;
        let result = body(self, work);
        if result.is_err() {
            work.dirty = true;
            work.plan.clear();
        }
        result
    }

    /// Normalises and quantises rows for products that do not do it themselves: what they read.
    fn prepare(&self, work: &mut Work, input: &Input, floats: bool, quants: bool) -> Result<(u64, QuantArg)> {
        let quants = quants && input.columns.is_multiple_of(ACT_BLOCK);
        if !quants && input.norm.gain == 0 {
            return Ok((input.rows, QuantArg::default()));
        }
        let args = NormQuantizeArgs {
            x: input.rows,
            out: if floats { work.normed.address() } else { 0 },
            acts: if quants { work.acts() } else { QuantArg::default() },
            norm: input.norm,
            n: input.n as u32,
            columns: input.columns as u32,
        };
        let launch = self.kernels.norm_quantize.launch([input.n as u32, 1, 1], ROW_THREADS, 0, &args);
        self.emit(work, launch)?;
        Ok((args.out, args.acts))
    }

    /// Products of the same input: as few launches as their formats allow.
    fn multiply(
        &self,
        work: &mut Work,
        input: &Input,
        products: &[Product],
        epilogue: u32,
        softcap: f32,
    ) -> Result<()> {
        let exact = work.shape.exact;
        let fits = |p: &Product| self.tuning.row_fits(input.columns, p.matrix.is_quantized());
        let fused = input.n == 1 && !exact && products.iter().all(fits);
        let (rows, acts) = match fused {
            true => (input.rows, QuantArg::default()),
            false => {
                let quantized = |p: &Product| p.matrix.is_quantized() && !exact;
                self.prepare(work, input, !products.iter().all(quantized), products.iter().any(quantized))?
            }
        };
        let mut args = MatmulArgs {
            n: input.n as u32,
            columns: input.columns as u32,
            epilogue,
            x: rows,
            norm: if fused { input.norm } else { NormArg::default() },
            acts,
            softcap,
            ..Default::default()
        };
        let mut left: Vec<&Product> = products.iter().collect();
        while let Some(&first) = left.first() {
            let (kernel, family, second) = self.kernel_for(first, &left, input.n, fused, exact)?;
            let one = first.matrix.tensor_type;
            let (now, later): (Vec<&Product>, _) =
                left.iter().partition(|p| p.matrix.tensor_type == one || Some(p.matrix.tensor_type) == second);
            args.part = Default::default();
            for (part, product) in args.part.iter_mut().zip(&now) {
                *part = product.part(u32::from(product.matrix.tensor_type != one));
            }
            args.parts = now.len() as u32;
            let launch = self.tuning.matmul(&kernel, family, &args, is_quantized(one));
            self.emit(work, launch)?;
            left = later;
        }
        Ok(())
    }

    /// The kernel for `first`, its family, and the second format that it serves in the same launch.
    fn kernel_for(
        &self,
        first: &Product,
        left: &[&Product],
        n: usize,
        fused: bool,
        exact: bool,
    ) -> Result<(Kernel<MatmulArgs>, Family, Option<TensorType>)> {
        let matrix = first.matrix;
        let one = matrix.tensor_type;
        if exact {
            return Ok((matrix.exact.clone(), Family::Exact, None));
        }
        match n {
            1 if fused => {
                let other = left.iter().map(|p| p.matrix.tensor_type).find(|&t| t != one);
                if let Some(other) = other {
                    let name = format!("gemv_{}_{}", kernel_suffix(one), kernel_suffix(other));
                    if let Some(mixed) = self.module.find(&name)? {
                        return Ok((mixed, Family::One, Some(other)));
                    }
                }
                Ok((matrix.gemv.clone(), Family::One, None))
            }
            1..=FEW_ROWS => Ok((matrix.batch.clone(), Family::Few, None)),
            _ => {
                let mut together = left.iter().filter(|p| p.matrix.tensor_type == one);
                let halves = n > HALF_ROWS && together.all(|p| p.matrix.gemm_half.is_some());
                match matrix.gemm_half.as_ref().filter(|_| halves) {
                    Some(kernel) => Ok((kernel.clone(), Family::ManyHalf, None)),
                    None => Ok((matrix.gemm.clone(), Family::Many, None)),
                }
            }
        }
    }

    /// Gate and up: one launch where the kernels can join them, else two and a third.
    fn gate_up(&self, work: &mut Work, input: &Input, products: [Product; 2], epilogue: u32) -> Result<()> {
        let [gate, up] = products;
        let same = gate.matrix.tensor_type == up.matrix.tensor_type;
        if same && input.n <= FEW_ROWS && !work.shape.exact {
            let up = Product { out: gate.out, ..up };
            return self.multiply(work, input, &[gate, up], epilogue, 0.0);
        }
        self.multiply(work, input, &[gate, up], EPILOGUE_STORE, 0.0)?;
        let args = GateUpArgs {
            gate: gate.out,
            up: up.out,
            out: gate.out,
            n: input.n as u32,
            columns: work.shape.n_ff as u32,
            epilogue,
            unused: 0,
        };
        let blocks = (input.n * work.shape.n_ff).div_ceil(4 * ROW_THREADS as usize).min(65_535) as u32;
        self.emit(work, self.kernels.gate_up.launch([blocks, 1, 1], ROW_THREADS, 0, &args))
    }

    fn linear_add(&self, work: &mut Work, source: u64, columns: usize, args: &LinearAdd) -> Result<()> {
        let n_embd = work.shape.n_embd;
        let input = Input { rows: source, n: work.n, columns, norm: NormArg::default() };
        let Some(norm) = &args.post_norm else {
            let product = Product::new(args.linear, &work.x, n_embd)?;
            return self.multiply(work, &input, &[product], EPILOGUE_ADD, 0.0);
        };
        let norm = norm_of(norm)?;
        let product = Product::new(args.linear, &work.projected, n_embd)?;
        self.multiply(work, &input, &[product], EPILOGUE_STORE, 0.0)?;
        let args = NormAddArgs {
            y: work.projected.address(),
            x: work.x.address(),
            norm,
            n: work.n as u32,
            columns: n_embd as u32,
        };
        self.emit(work, self.kernels.norm_add.launch([work.n as u32, 1, 1], ROW_THREADS, 0, &args))
    }

    /// Attention of rows `first..first + n`, each against its own sequence, by the kernel that divides the cache.
    fn attend_decode(&self, work: &mut Work, args: &AttendArgs, n: usize, longest: usize) -> Result<()> {
        let s = work.shape;
        // Enough shares to fill the device, of some length; a power of two, so that the launch stays the same for long.
        let blocks = 2 * self.device.info.multiprocessors as usize;
        let heads = s.n_head_kv * tuning::attend_decode_parts(s.exact, s.head_dim, s.n_head / s.n_head_kv);
        let wanted = blocks.div_ceil(heads * n).min(longest.div_ceil(SPLIT_KEYS)).max(1);
        let splits = wanted.next_power_of_two().min(MAX_SPLITS);
        let args = AttendArgs {
            n: n as u32,
            splits: splits as u32,
            partial: work.partial.address(),
            counters: work.counters.address(),
            ..*args
        };
        let kernel = self.kernels.attend_decode(s.exact);
        let grid = [heads as u32, splits as u32, n as u32];
        self.emit(work, self.tuning.attend_decode(kernel, grid, &args))
    }
}

impl Backend for HipBackend {
    fn matrix(
        &self,
        _: Part,
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: TensorData,
    ) -> Result<Matrix> {
        let placed = self.uploader.matrix(tensor_type, rows, columns, &data)?;
        Ok(Matrix { rows, columns, tensor_type, bytes: placed.bytes(), placed: Box::new(placed) })
    }

    fn vector(&self, _: Part, values: &[f32]) -> Result<Vector> {
        Ok(Vector { len: values.len(), placed: Box::new(self.uploader.vector(values)?) })
    }

    fn best_batch(&self) -> usize {
        512
    }

    fn workspace(&self, shape: &WorkShape) -> Result<Workspace> {
        // The first workspace comes after the last weight.
        self.uploader.finish()?;
        let _entered = self.device.enter()?;
        Ok(Workspace(Box::new(Work::new(&self.device, shape)?)))
    }

    fn kv_page(&self, shape: &KvShape) -> Result<KvPage> {
        Ok(KvPage(Box::new(self.pages.page(shape)?)))
    }

    fn begin(&self, work: &mut Workspace, batch: &Batch, ropes: &[Rope]) -> Result<()> {
        self.verb(work, |_, work| {
            if batch.tokens.len() > work.shape.rows {
                return Err(Error::Internal(format!("a step of {} rows", batch.tokens.len())));
            }
            let mut pages = Vec::new();
            for page in batch.spans.iter().flat_map(|span| span.pages.iter()) {
                let page: &DevicePage = page.0.downcast_ref().ok_or_else(|| foreign("page"))?;
                pages.push(page.address);
            }
            work.begin(batch, ropes, &pages)
        })
    }

    fn embed(&self, work: &mut Workspace, batch: &Batch, table: &Matrix, scale: f32) -> Result<()> {
        let matrix = matrix_of(table)?;
        if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= table.rows) {
            return Err(Error::Internal(format!("token {token} is outside the embedding")));
        }
        self.verb(work, |this, work| {
            let args =
                EmbedArgs { table: matrix.arg(), tokens: work.tokens(), x: work.x.address(), scale, n: work.n as u32 };
            this.emit(work, matrix.embed.launch([work.n as u32, 1, 1], ROW_THREADS, 0, &args))
        })
    }

    fn qkv_rope_append(&self, work: &mut Workspace, batch: &mut Batch, args: &QkvRopeAppend) -> Result<()> {
        for span in &mut batch.spans {
            let written = span.position / PAGE_TOKENS..(span.position + span.rows.len()).div_ceil(PAGE_TOKENS);
            let pages = span.pages.get_mut(written);
            let pages = pages.ok_or_else(|| Error::Internal("too few pages for a step".into()))?;
            if pages.iter_mut().any(|page| std::sync::Arc::get_mut(page).is_none()) {
                return Err(Error::Internal("a shared page would be written".into()));
            }
        }
        let (q_norm, k_norm) = (optional_norm(&args.q_norm)?, optional_norm(&args.k_norm)?);
        self.verb(work, |this, work| {
            let s = work.shape;
            let (n_q, n_kv) = (s.n_head * s.head_dim, s.n_head_kv * s.head_dim);
            let input = Input { rows: work.x.address(), n: work.n, columns: s.n_embd, norm: norm_of(&args.norm)? };
            let products = [
                Product::new(args.q, &work.q, n_q)?,
                Product::new(args.k, &work.k, n_kv)?,
                Product::new(args.v, &work.v, n_kv)?,
            ];
            this.multiply(work, &input, &products, EPILOGUE_STORE, 0.0)?;
            let rope = work.rope_arg(args.rope, q_norm, k_norm)?;
            let raw = work.single_rows && work.n <= FEW_ROWS;
            work.pending = Some(Pending { rope, raw });
            if raw {
                return Ok(());
            }
            let append = RopeAppendArgs {
                q: work.q.address(),
                k: work.k.address(),
                v: work.v.address(),
                step: work.step_arg(0),
                rope,
                shape: this.heads(&s, args.layer),
                n: work.n as u32,
                unused: 0,
            };
            let kernel = this.kernels.rope_append(s.exact);
            this.emit(work, this.tuning.rope_append(kernel, &s, &append))
        })
    }

    fn attend(&self, work: &mut Workspace, batch: &Batch, args: &Attend) -> Result<()> {
        self.verb(work, |this, work| {
            let s = work.shape;
            let pending = work.pending.ok_or_else(|| Error::Internal("attention before its rows".into()))?;
            let (n_q, raw) = (s.n_head * s.head_dim, pending.raw);
            let whole = AttendArgs {
                q: work.q.address(),
                k: if raw { work.k.address() } else { 0 },
                v: if raw { work.v.address() } else { 0 },
                out: work.attended.address(),
                step: work.step_arg(0),
                rope: pending.rope,
                shape: this.heads(&s, args.layer),
                scale: args.scale,
                softcap: args.softcap.unwrap_or(0.0),
                window: args.window.unwrap_or(0) as u32,
                ..Default::default()
            };
            if work.n <= FEW_ROWS {
                let longest = batch.spans.iter().map(|span| span.position + span.rows.len()).max().unwrap_or(1);
                return this.attend_decode(work, &whole, work.n, longest);
            }
            let from = |work: &Work, first: usize, n: usize| AttendArgs {
                q: whole.q + (first * n_q * 4) as u64,
                out: whole.out + (first * n_q * 4) as u64,
                step: work.step_arg(first),
                n: n as u32,
                ..whole
            };
            if work.single_rows {
                for spans in batch.spans.chunks(FEW_ROWS) {
                    let longest = spans.iter().map(|span| span.position + 1).max().unwrap_or(1);
                    let first = spans.first().map_or(0, |span| span.rows.start);
                    let args = from(work, first, spans.len());
                    this.attend_decode(work, &args, spans.len(), longest)?;
                }
                return Ok(());
            }
            for span in &batch.spans {
                let args = from(work, span.rows.start, span.rows.len());
                let kernel = this.kernels.attend_prefill(s.exact);
                this.emit(work, this.tuning.attend_prefill(kernel, &s, &args))?;
            }
            Ok(())
        })
    }

    fn proj_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        self.verb(work, |this, work| {
            let columns = work.shape.n_head * work.shape.head_dim;
            this.linear_add(work, work.attended.address(), columns, args)
        })
    }

    fn norm_gate_up_act(&self, work: &mut Workspace, args: &NormGateUpAct) -> Result<()> {
        self.verb(work, |this, work| {
            let s = work.shape;
            let input = Input { rows: work.x.address(), n: work.n, columns: s.n_embd, norm: norm_of(&args.norm)? };
            let products = [Product::new(args.gate, &work.gate, s.n_ff)?, Product::new(args.up, &work.up, s.n_ff)?];
            let epilogue = match args.activation {
                Activation::Silu => EPILOGUE_SILU,
                Activation::GeluTanh => EPILOGUE_GELU_TANH,
            };
            this.gate_up(work, &input, products, epilogue)
        })
    }

    fn down_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        self.verb(work, |this, work| {
            this.linear_add(work, work.gate.address(), work.shape.n_ff, args)?;
            if !work.deferred() {
                work.throttle.mark(&work.stream)?;
            }
            Ok(())
        })
    }

    fn logits<'w>(&self, work: &'w mut Workspace, args: &Logits) -> Result<&'w [f32]> {
        let rows = args.rows.len();
        self.verb(work, |this, work| {
            let s = work.shape;
            if rows > s.logit_rows || args.rows.end > work.n {
                return Err(Error::Internal(format!("logits of rows {:?} in a step of {}", args.rows, work.n)));
            }
            let first = (args.rows.start * s.n_embd * 4) as u64;
            let input =
                Input { rows: work.x.address() + first, n: rows, columns: s.n_embd, norm: norm_of(&args.norm)? };
            let product =
                Product { matrix: matrix_of(args.output)?, bias: 0, out: work.logits.address(), out_stride: s.n_vocab };
            this.multiply(work, &input, &[product], EPILOGUE_STORE, args.softcap.unwrap_or(0.0))?;
            work.plan.flush(&work.stream)?;
            work.stream.download(&work.host_logits, &work.logits, 0, rows * s.n_vocab * 4)?;
            work.stream.synchronize()
        })?;
        let work = work_of(work)?;
        let n_vocab = work.shape.n_vocab;
        work.host_logits(0..rows * n_vocab)
    }

    fn residual(&self, work: &mut Workspace, out: &mut [f32]) -> Result<()> {
        self.verb(work, |this, work| {
            let bytes = work.n * work.shape.n_embd * 4;
            if out.len() * 4 != bytes {
                return Err(Error::Internal(format!("a residual stream of {}", out.len())));
            }
            work.plan.flush(&work.stream)?;
            let pinned = this.device.allocate_pinned(bytes)?;
            work.stream.download(&pinned, &work.x, 0, bytes)?;
            work.stream.synchronize()?;
            bytemuck::cast_slice_mut(out).copy_from_slice(pinned.as_slice());
            Ok(())
        })
    }

    fn set_residual(&self, work: &mut Workspace, values: &[f32]) -> Result<()> {
        self.verb(work, |this, work| {
            let source: &[u8] = bytemuck::cast_slice(values);
            if source.len() != work.n * work.shape.n_embd * 4 {
                return Err(Error::Internal(format!("a residual stream of {}", values.len())));
            }
            let mut pinned = this.device.allocate_pinned(source.len())?;
            pinned.as_mut_slice().copy_from_slice(source);
            work.stream.upload(&work.x, 0, &pinned, 0, source.len())?;
            work.stream.synchronize()
        })
    }
}

impl HipBackend {
    fn heads(&self, s: &WorkShape, layer: usize) -> HeadShape {
        HeadShape {
            n_head: s.n_head as u32,
            n_head_kv: s.n_head_kv as u32,
            head_dim: s.head_dim as u32,
            layer: layer as u32,
        }
    }
}
