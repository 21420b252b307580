//! Where the time of a step goes: a [`Backend`] around another that times its verbs.
//!
//! For backends that do a verb's work within its call, as the CPU's does; a device puts work off until results are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;

/// The verbs, in the order of a step.
pub const NAMES: [&str; 8] =
    ["begin", "embed", "qkv_rope_append", "attend", "proj_add", "norm_gate_up_act", "down_add", "logits"];

/// What a verb took and did in all its calls.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stage {
    /// Calls.
    pub calls: u64,
    /// Time within them.
    pub time: Duration,
    /// Bytes of weights, or of keys and values, that have to be read: each once a call.
    pub bytes: u64,
    /// Multiplications and additions, two to a term.
    pub operations: u64,
}

/// The sums of all verbs, as [`NAMES`] has them.
#[derive(Default)]
pub struct Stages {
    totals: Mutex<[Stage; NAMES.len()]>,
    /// Rows of the step.
    rows: AtomicUsize,
    /// Query elements of a row, and bytes of a token in the cache of one layer.
    attention: [AtomicUsize; 2],
}

impl Stages {
    /// The sums since the last call.
    pub fn take(&self) -> [Stage; NAMES.len()] {
        std::mem::take(&mut *self.totals.lock())
    }

    /// Adds a call of verb `i`.
    fn timed<T>(&self, i: usize, (bytes, operations): (usize, usize), verb: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let result = verb()?;
        let time = began.elapsed();
        let stage = &mut self.totals.lock()[i];
        stage.calls += 1;
        stage.time += time;
        stage.bytes += bytes as u64;
        stage.operations += operations as u64;
        Ok(result)
    }

    /// Bytes and operations of products of `rows` rows with matrices.
    fn products(&self, matrices: &[&Matrix], rows: usize) -> (usize, usize) {
        let bytes = matrices.iter().map(|m| m.bytes).sum();
        (bytes, 2 * rows * matrices.iter().map(|m| m.rows * m.columns).sum::<usize>())
    }

    fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }
}

/// A backend whose verbs are timed.
pub struct Timed {
    /// Who does the work.
    pub inner: Arc<dyn Backend>,
    /// Where the times go.
    pub stages: Arc<Stages>,
}

impl Backend for Timed {
    fn matrix(
        &self,
        part: Part,
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: TensorData,
    ) -> Result<Matrix> {
        self.inner.matrix(part, tensor_type, rows, columns, data)
    }

    fn vector(&self, part: Part, values: &[f32]) -> Result<Vector> {
        self.inner.vector(part, values)
    }

    fn separate_output(&self) -> bool {
        self.inner.separate_output()
    }

    fn best_batch(&self) -> usize {
        self.inner.best_batch()
    }

    fn workspace(&self, shape: &WorkShape) -> Result<Workspace> {
        self.stages.attention[0].store(shape.n_head * shape.head_dim, Ordering::Relaxed);
        self.inner.workspace(shape)
    }

    fn kv_page(&self, shape: &KvShape) -> Result<KvPage> {
        let token = 2 * shape.n_head_kv * shape.head_dim * shape.kv_type.bytes();
        self.stages.attention[1].store(token, Ordering::Relaxed);
        self.inner.kv_page(shape)
    }

    fn begin(&self, work: &mut Workspace, batch: &Batch, ropes: &[Rope]) -> Result<()> {
        self.stages.rows.store(batch.tokens.len(), Ordering::Relaxed);
        self.stages.timed(0, (0, 0), || self.inner.begin(work, batch, ropes))
    }

    fn embed(&self, work: &mut Workspace, batch: &Batch, table: &Matrix, scale: f32) -> Result<()> {
        let bytes = table.bytes / table.rows.max(1) * self.stages.rows();
        self.stages.timed(1, (bytes, 0), || self.inner.embed(work, batch, table, scale))
    }

    fn qkv_rope_append(&self, work: &mut Workspace, batch: &mut Batch, args: &QkvRopeAppend) -> Result<()> {
        let matrices = [&args.q.weight, &args.k.weight, &args.v.weight];
        let done = self.stages.products(&matrices, self.stages.rows());
        self.stages.timed(2, done, || self.inner.qkv_rope_append(work, batch, args))
    }

    fn attend(&self, work: &mut Workspace, batch: &Batch, args: &Attend) -> Result<()> {
        let [elements, token] = [0, 1].map(|i| self.stages.attention[i].load(Ordering::Relaxed));
        let (mut bytes, mut operations) = (0, 0);
        for span in &batch.spans {
            let seen = |row: usize| (span.position + row + 1).min(args.window.unwrap_or(usize::MAX));
            bytes += token * seen(span.rows.len().saturating_sub(1));
            // A score and a weighted value for each element.
            operations += (0..span.rows.len()).map(|row| 4 * elements * seen(row)).sum::<usize>();
        }
        self.stages.timed(3, (bytes, operations), || self.inner.attend(work, batch, args))
    }

    fn proj_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        let done = self.stages.products(&[&args.linear.weight], self.stages.rows());
        self.stages.timed(4, done, || self.inner.proj_add(work, args))
    }

    fn norm_gate_up_act(&self, work: &mut Workspace, args: &NormGateUpAct) -> Result<()> {
        let done = self.stages.products(&[&args.gate.weight, &args.up.weight], self.stages.rows());
        self.stages.timed(5, done, || self.inner.norm_gate_up_act(work, args))
    }

    fn down_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        let done = self.stages.products(&[&args.linear.weight], self.stages.rows());
        self.stages.timed(6, done, || self.inner.down_add(work, args))
    }

    fn logits<'w>(&self, work: &'w mut Workspace, args: &Logits) -> Result<&'w [f32]> {
        let done = self.stages.products(&[args.output], args.rows.len());
        self.stages.timed(7, done, || self.inner.logits(work, args))
    }

    fn residual(&self, work: &mut Workspace, out: &mut [f32]) -> Result<()> {
        self.inner.residual(work, out)
    }

    fn set_residual(&self, work: &mut Workspace, values: &[f32]) -> Result<()> {
        self.inner.set_residual(work, values)
    }
}
