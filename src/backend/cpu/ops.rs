//! The verbs on the CPU.
//!
//! Each is at most a few parallel regions: the rows' own work (norm, rotation, activation), their quantisation, and the
//! matrix products, all of a verb in one. A step of one token keeps the rows' own work on the calling thread.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;

use super::CpuBackend;
use super::acts::Acts;
use super::amx;
use super::attention::{self, Query, Scores, Scratch};
use super::cache::{CacheRows, CpuPage, KEYS, PageHeads, VALUES};
use super::features::Isa;
use super::matmul::{GateScratch, Job, matmul, matmul_gated};
use super::matrix::Matrix as CpuMatrix;
use super::memory::AlignedBuf;
use super::pool::free;
use super::rows::Rows;
use super::vector;
use crate::backend::*;
use crate::error::{Error, Result};
use crate::load::TensorData;
use crate::quant::TensorType;

/// Rows of one task of attention: a page of keys and values is used for all of them.
const QUERY_TILE: usize = 16;
/// The same in bf16 at most: a page is converted before it is used.
const BF16_QUERY_TILE: usize = 128;

thread_local! {
    /// A row on its way from the norm to tiles.
    static NORMED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The activations of a step.
struct Work {
    shape: WorkShape,
    /// Rows of this step.
    n: usize,
    /// Residual stream, `[rows][n_embd]`.
    x: Vec<f32>,
    /// What the next matrix product multiplies.
    acts: Acts,
    /// `[rows][n_head · head_dim]`.
    q: Vec<f32>,
    /// `[rows][n_head_kv · head_dim]`.
    k: Vec<f32>,
    /// `[rows][n_head_kv · head_dim]`.
    v: Vec<f32>,
    /// What the activations become in a feed-forward block, in exchange for those before.
    gated: AlignedBuf,
    gate_scratch: GateScratch,
    /// A projection before its post norm, `[rows][n_embd]`.
    projected: Vec<f32>,
    /// Per rope: style, and for each row the cosines and then the sines.
    rotations: Vec<Rotation>,
    /// `[logit_rows][n_vocab]`.
    logits: Vec<f32>,
    /// For each thread; a task takes one that is free.
    scratches: Vec<Mutex<Scratch>>,
    /// The same for prompts in bf16; none where the processor does not multiply that.
    tile_scratches: Vec<Mutex<amx::attention::Scratch>>,
}

struct Rotation {
    style: RopeStyle,
    /// Pairs of a head.
    pairs: usize,
    /// `[rows][cos.. sin..]`.
    table: Vec<f32>,
}

fn buffer(rows: usize, width: usize, what: &str) -> Result<Vec<f32>> {
    let len = rows.checked_mul(width).filter(|len| isize::try_from(len.saturating_mul(4)).is_ok());
    let out_of_memory =
        || Error::OutOfMemory { bytes: rows as u64 * width as u64 * 4, what: format!("{what} of {rows} rows") };
    let len = len.ok_or_else(out_of_memory)?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| out_of_memory())?;
    buffer.resize(len, 0.0);
    Ok(buffer)
}

fn work_of(work: &mut Workspace) -> Result<&mut Work> {
    work.0.downcast_mut().ok_or_else(|| foreign("workspace"))
}

fn matrix_of(matrix: &Matrix) -> Result<&CpuMatrix> {
    matrix.placed.downcast_ref().ok_or_else(|| foreign("matrix"))
}

fn vector_of(vector: &Vector) -> Result<&[f32]> {
    vector.placed.downcast_ref::<Vec<f32>>().map(Vec::as_slice).ok_or_else(|| foreign("vector"))
}

/// Each row's position in its sequence.
fn positions(batch: &Batch) -> Vec<usize> {
    batch.spans.iter().flat_map(|span| span.position..span.position + span.rows.len()).collect()
}

fn bias_of(linear: &Linear) -> Result<Option<&[f32]>> {
    linear.bias.as_ref().map(vector_of).transpose()
}

/// A norm with its gain unwrapped.
#[derive(Clone, Copy)]
struct Gain<'a> {
    gain: &'a [f32],
    epsilon: f32,
}

fn gain_of<'a>(norm: &Norm<'a>) -> Result<Gain<'a>> {
    Ok(Gain { gain: vector_of(norm.gain)?, epsilon: norm.epsilon })
}

impl CpuBackend {
    /// `acts = norm(x)` for rows `first..first + n` of the residual stream, as the products with `matrices` want them.
    fn norm_to_acts(&self, work: &mut Work, first: usize, n: usize, norm: Gain, matrices: &[&CpuMatrix]) {
        let (width, exact) = (work.shape.n_embd, work.shape.exact);
        let x = &work.x;
        let normed = |i: usize, out: &mut [f32]| {
            let row = &x[(first + i) * width..(first + i + 1) * width];
            vector::rms_norm(self.isa, row, norm.gain, norm.epsilon, out);
        };
        let on_tiles = !exact && matrices.iter().all(|matrix| amx::multiplies(matrix));
        if let Some(tiles) = on_tiles.then(|| work.acts.written_in_tiles(n, width)).flatten() {
            self.pool.each_row(n.next_multiple_of(amx::rows::LEAST_ROWS), &|i| {
                NORMED.with_borrow_mut(|row| {
                    row.resize(width, 0.0);
                    (i < n).then(|| normed(i, row));
                    // SAFETY: there are tiles only with AMX; each row is written by one task.
                    unsafe { amx::rows::round(&tiles, i, (i < n).then_some(row)) };
                });
            });
            return;
        }
        work.acts.set_shape(n, width);
        let acts = Rows::new(work.acts.values_mut(), width);
        // SAFETY: each row is written by one task.
        self.pool.each_row(n, &|i| normed(i, unsafe { acts.row(i) }));
    }

    /// Residual stream += linear(acts), normalised before the addition if there is a post norm.
    fn linear_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        let work = work_of(work)?;
        let (n, width, exact) = (work.n, work.shape.n_embd, work.shape.exact);
        let (matrix, bias) = (matrix_of(&args.linear.weight)?, bias_of(args.linear)?);
        let Some(norm) = &args.post_norm else {
            let out = &mut work.x[..n * width];
            matmul(&self.pool, self.isa, &mut work.acts, &mut [Job { matrix, out, bias, accumulate: true }], exact);
            return Ok(());
        };
        let norm = gain_of(norm)?;
        let out = &mut work.projected[..n * width];
        matmul(&self.pool, self.isa, &mut work.acts, &mut [Job { matrix, out, bias, accumulate: false }], exact);
        let projected = Rows::new(&mut work.projected, width);
        let x = Rows::new(&mut work.x, width);
        self.pool.each_row(n, &|i| {
            // SAFETY: each row is written by one task.
            let (row, x) = unsafe { (projected.row(i), x.row(i)) };
            vector::rms_norm_in_place(self.isa, row, norm.gain, norm.epsilon);
            vector::add_assign(self.isa, x, row);
        });
        Ok(())
    }
}

/// What happens to one head between projection and cache.
struct HeadWork<'a> {
    norm: Option<Gain<'a>>,
    style: RopeStyle,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl CpuBackend {
    fn finish_head(&self, head: &mut [f32], work: &HeadWork) {
        if let Some(norm) = work.norm {
            vector::rms_norm_in_place(self.isa, head, norm.gain, norm.epsilon);
        }
        let head_dim = head.len();
        match work.style {
            RopeStyle::Norm => vector::rope_norm(self.isa, head, head_dim, work.cos, work.sin),
            RopeStyle::Neox => vector::rope_neox(self.isa, head, head_dim, work.cos, work.sin),
        }
    }
}

impl Backend for CpuBackend {
    fn matrix(
        &self,
        part: Part,
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: TensorData,
    ) -> Result<Matrix> {
        let placed = CpuMatrix::place(
            tensor_type,
            rows,
            columns,
            &data,
            // Rows that are only looked up lie best as they are.
            (self.packed && part != Part::Embedding).then_some(self.isa),
            &self.pool,
            &self.store,
        )?;
        Ok(Matrix { rows, columns, tensor_type, bytes: placed.bytes(), placed: Box::new(placed) })
    }

    fn vector(&self, _: Part, values: &[f32]) -> Result<Vector> {
        Ok(Vector { len: values.len(), placed: Box::new(values.to_vec()) })
    }

    /// On AMX each thread takes rows of its own, and unfolds all weights for them.
    fn best_batch(&self) -> usize {
        if self.isa == Isa::Amx { 256 * self.pool.threads().min(2) } else { 256 }
    }

    fn workspace(&self, shape: &WorkShape) -> Result<Workspace> {
        let s = *shape;
        let (n_q, n_kv) = (s.n_head * s.head_dim, s.n_head_kv * s.head_dim);
        let widest = s.n_embd.max(n_q).max(s.n_ff);
        let group = s.n_head / s.n_head_kv;
        let on_tiles = amx::attention::serves(self.isa) && !s.exact && s.rows >= amx::rows::LEAST_ROWS;
        let acts = Acts::new(s.rows, widest, self.isa)?;
        let gated = AlignedBuf::zeroed(acts.values_bytes())?;
        Ok(Workspace(Box::new(Work {
            shape: s,
            n: 0,
            x: buffer(s.rows, s.n_embd, "the residual stream")?,
            acts,
            q: buffer(s.rows, n_q, "queries")?,
            k: buffer(s.rows, n_kv, "keys")?,
            v: buffer(s.rows, n_kv, "values")?,
            gated,
            gate_scratch: GateScratch::new(s.rows, self.isa, &self.pool)?,
            projected: buffer(s.rows, s.n_embd, "projections")?,
            rotations: Vec::new(),
            logits: buffer(s.logit_rows, s.n_vocab, "logits")?,
            scratches: (0..self.pool.threads())
                .map(|_| Scratch::new(s.head_dim, QUERY_TILE.min(s.rows) * group).map(Mutex::new))
                .collect::<Result<Vec<_>>>()?,
            tile_scratches: (0..if on_tiles { self.pool.threads() } else { 0 })
                .map(|_| amx::attention::Scratch::new(s.head_dim, BF16_QUERY_TILE.min(s.rows) * group).map(Mutex::new))
                .collect::<Result<Vec<_>>>()?,
        })))
    }

    fn kv_page(&self, shape: &KvShape) -> Result<KvPage> {
        Ok(KvPage(Box::new(CpuPage::new(shape)?)))
    }

    fn begin(&self, work: &mut Workspace, batch: &Batch, ropes: &[Rope]) -> Result<()> {
        let work = work_of(work)?;
        work.n = batch.tokens.len();
        if work.n > work.shape.rows {
            return Err(Error::Internal(format!("a step of {} rows in a workspace for {}", work.n, work.shape.rows)));
        }
        work.rotations.resize_with(ropes.len(), || Rotation { style: RopeStyle::Norm, pairs: 0, table: Vec::new() });
        for (rope, rotation) in ropes.iter().zip(&mut work.rotations) {
            let pairs = rope.frequencies.len();
            rotation.style = rope.style;
            rotation.pairs = pairs;
            rotation.table.resize(work.n * 2 * pairs, 0.0);
            let table = Rows::new(&mut rotation.table, 2 * pairs);
            let positions = positions(batch);
            self.pool.each_row(work.n, &|i| {
                // SAFETY: each row is written by one task.
                let (cos, sin) = unsafe { table.row(i) }.split_at_mut(pairs);
                for ((cos, sin), &frequency) in cos.iter_mut().zip(sin).zip(&rope.frequencies) {
                    // In double: at position 10⁵ a float's angle would be off by a hundredth of a radian.
                    let (s, c) = (positions[i] as f64 * f64::from(frequency)).sin_cos();
                    *cos = c as f32 * rope.magnitude;
                    *sin = s as f32 * rope.magnitude;
                }
            });
        }
        Ok(())
    }

    fn embed(&self, work: &mut Workspace, batch: &Batch, table: &Matrix, scale: f32) -> Result<()> {
        let work = work_of(work)?;
        let matrix = matrix_of(table)?;
        if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= table.rows) {
            return Err(Error::Internal(format!("token {token} is outside the embedding")));
        }
        let x = Rows::new(&mut work.x, work.shape.n_embd);
        self.pool.each_row(work.n, &|i| {
            // SAFETY: each row is written by one task.
            let row = unsafe { x.row(i) };
            matrix.row(batch.tokens[i] as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= scale);
            }
        });
        Ok(())
    }

    fn qkv_rope_append(&self, work: &mut Workspace, batch: &mut Batch, args: &QkvRopeAppend) -> Result<()> {
        let work = work_of(work)?;
        let (n, s) = (work.n, work.shape);
        let (n_q, n_kv) = (s.n_head * s.head_dim, s.n_head_kv * s.head_dim);
        let matrices = [matrix_of(&args.q.weight)?, matrix_of(&args.k.weight)?, matrix_of(&args.v.weight)?];
        self.norm_to_acts(work, 0, n, gain_of(&args.norm)?, &matrices);
        let mut jobs = [
            Job { matrix: matrices[0], out: &mut work.q[..n * n_q], bias: bias_of(args.q)?, accumulate: false },
            Job { matrix: matrices[1], out: &mut work.k[..n * n_kv], bias: bias_of(args.k)?, accumulate: false },
            Job { matrix: matrices[2], out: &mut work.v[..n * n_kv], bias: bias_of(args.v)?, accumulate: false },
        ];
        matmul(&self.pool, self.isa, &mut work.acts, &mut jobs, s.exact);

        let rotation =
            work.rotations.get(args.rope).ok_or_else(|| Error::Internal("a rope that was not begun".into()))?;
        let q_norm = args.q_norm.as_ref().map(gain_of).transpose()?;
        let k_norm = args.k_norm.as_ref().map(gain_of).transpose()?;
        let (q, k) = (Rows::new(&mut work.q, n_q), Rows::new(&mut work.k, n_kv));
        // For each row its sequence's cache and its position there.
        let mut caches = Vec::with_capacity(batch.spans.len());
        let mut places = Vec::with_capacity(n);
        for span in &mut batch.spans {
            places.extend((0..span.rows.len()).map(|i| (caches.len(), span.position + i)));
            caches.push(CacheRows::new(span.pages, span.position, span.rows.len())?);
        }
        let v = &work.v;
        self.pool.each_row(n, &|i| {
            let (cos, sin) = rotation.table[i * 2 * rotation.pairs..][..2 * rotation.pairs].split_at(rotation.pairs);
            // SAFETY: each row is written by one task.
            let (q, k) = unsafe { (q.row(i), k.row(i)) };
            let head_work = HeadWork { norm: q_norm, style: rotation.style, cos, sin };
            q.chunks_exact_mut(s.head_dim).for_each(|head| self.finish_head(head, &head_work));
            let head_work = HeadWork { norm: k_norm, ..head_work };
            k.chunks_exact_mut(s.head_dim).for_each(|head| self.finish_head(head, &head_work));
            let v = &v[i * n_kv..(i + 1) * n_kv];
            let (cache, position) = places[i];
            for (head, (k, v)) in k.chunks_exact(s.head_dim).zip(v.chunks_exact(s.head_dim)).enumerate() {
                // SAFETY: the token's place in the cache is written by its row's task alone.
                unsafe {
                    caches[cache].store(self.isa, position, args.layer, KEYS, head, k);
                    caches[cache].store(self.isa, position, args.layer, VALUES, head, v);
                }
            }
        });
        Ok(())
    }

    fn attend(&self, work: &mut Workspace, batch: &Batch, args: &Attend) -> Result<()> {
        let work = work_of(work)?;
        let (n, s) = (work.n, work.shape);
        let (n_q, group) = (s.n_head * s.head_dim, s.n_head / s.n_head_kv);
        work.acts.set_shape(n, n_q);
        let mut tasks = Vec::new();
        for span in &batch.spans {
            let pages = span.pages.iter().map(|page| CpuPage::of(page)).collect::<Result<Vec<_>>>()?;
            let pages: Arc<[&CpuPage]> = pages.into();
            let on_tiles = !work.tile_scratches.is_empty() && span.rows.len() >= amx::rows::LEAST_ROWS;
            // Two tasks for each thread, if tiles of 32 rows are as many.
            let wanted = (2 * self.pool.threads()).div_ceil(s.n_head_kv);
            let height = match on_tiles {
                true => span.rows.len().div_ceil(wanted).next_multiple_of(32).min(BF16_QUERY_TILE),
                false => QUERY_TILE,
            };
            for tile in (0..span.rows.len()).step_by(height) {
                let rows = tile..span.rows.len().min(tile + height);
                tasks.extend(
                    (0..s.n_head_kv)
                        .map(|head| (span.rows.start, span.position, rows.clone(), head, pages.clone(), on_tiles)),
                );
            }
        }
        {
            let out = Rows::new(work.acts.values_mut(), n_q);
            let (q, scratches, tile_scratches) = (&work.q, &work.scratches, &work.tile_scratches);
            self.pool.run_in_order(tasks.len(), &|i| {
                let (first, position, rows, kv_head, pages, on_tiles) = &tasks[i];
                let mut queries = Vec::with_capacity(rows.len() * group);
                for row in rows.clone() {
                    let end = position + row + 1;
                    let begin = args.window.map_or(0, |window| end.saturating_sub(window));
                    for head in kv_head * group..(kv_head + 1) * group {
                        let at = (first + row) * n_q + head * s.head_dim;
                        // SAFETY: a head of a row belongs to one task.
                        let out = unsafe { out.part(first + row, head * s.head_dim, s.head_dim) };
                        queries.push(Query { q: &q[at..at + s.head_dim], out, begin, end });
                    }
                }
                let heads = PageHeads { pages, layer: args.layer, head: *kv_head };
                let scores = Scores { scale: args.scale, softcap: args.softcap };
                if *on_tiles {
                    let mut scratch = free(tile_scratches);
                    return amx::attention::attend(self.isa, &mut queries, &|p| heads.page(p), scores, &mut scratch);
                }
                attention::attend(self.isa, &mut queries, &|p| heads.page(p), scores, &mut free(scratches));
            });
        }
        Ok(())
    }

    fn proj_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        self.linear_add(work, args)
    }

    fn norm_gate_up_act(&self, work: &mut Workspace, args: &NormGateUpAct) -> Result<()> {
        let work = work_of(work)?;
        let (n, exact) = (work.n, work.shape.exact);
        let (gate, up) = (matrix_of(&args.gate.weight)?, matrix_of(&args.up.weight)?);
        self.norm_to_acts(work, 0, n, gain_of(&args.norm)?, &[gate, up]);
        let activate = |gate: &[f32], up: &[f32], out: &mut [f32]| match args.activation {
            Activation::Silu => vector::mul_silu(self.isa, gate, up, out),
            Activation::GeluTanh => vector::mul_gelu_tanh(self.isa, gate, up, out),
        };
        let gated =
            amx::Gated { gate, gate_bias: bias_of(args.gate)?, up, up_bias: bias_of(args.up)?, activate: &activate };
        let Work { acts, gated: values, gate_scratch, .. } = work;
        matmul_gated(&self.pool, self.isa, acts, &gated, values, gate_scratch, exact);
        Ok(())
    }

    fn down_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        self.linear_add(work, args)
    }

    fn logits<'w>(&self, work: &'w mut Workspace, args: &Logits) -> Result<&'w [f32]> {
        let work = work_of(work)?;
        let (rows, n_vocab, exact) = (args.rows.len(), work.shape.n_vocab, work.shape.exact);
        if rows > work.shape.logit_rows || args.rows.end > work.n {
            return Err(Error::Internal(format!("logits of rows {:?} in a step of {}", args.rows, work.n)));
        }
        let matrix = matrix_of(args.output)?;
        self.norm_to_acts(work, args.rows.start, rows, gain_of(&args.norm)?, &[matrix]);
        let out = &mut work.logits[..rows * n_vocab];
        let job = Job { matrix, out, bias: None, accumulate: false };
        matmul(&self.pool, self.isa, &mut work.acts, &mut [job], exact);
        if let Some(cap) = args.softcap {
            vector::softcap(self.isa, &mut work.logits[..rows * n_vocab], cap);
        }
        Ok(&work.logits[..rows * n_vocab])
    }

    fn residual(&self, work: &mut Workspace, out: &mut [f32]) -> Result<()> {
        let work = work_of(work)?;
        let stream = work.x.get(..work.n * work.shape.n_embd).filter(|x| x.len() == out.len());
        out.copy_from_slice(stream.ok_or_else(|| Error::Internal(format!("a residual stream of {}", out.len())))?);
        Ok(())
    }

    fn set_residual(&self, work: &mut Workspace, values: &[f32]) -> Result<()> {
        let work = work_of(work)?;
        let stream = work.x.get_mut(..work.n * work.shape.n_embd).filter(|x| x.len() == values.len());
        stream
            .ok_or_else(|| Error::Internal(format!("a residual stream of {}", values.len())))?
            .copy_from_slice(values);
        Ok(())
    }
}
