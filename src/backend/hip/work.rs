//! The activations of a step on a device, and the block that says where its rows stand.

use std::ops::Range;
use std::sync::Arc;

use super::args::{NormArg, QuantArg, RopeArg, StepArg};
use super::device::{Buffer, Device, Event, Pinned, Stream};
use super::driver::Address;
use super::plan::Plan;
use crate::backend::{Batch, Rope, RopeStyle, WorkShape};
use crate::error::{Error, Result};

/// Elements of a block of quantised activations.
pub const ACT_BLOCK: usize = 32;
/// Rows that the kernels for few rows serve, which read weights once for all of them.
pub const FEW_ROWS: usize = 8;
/// Shares into which attention divides a cache at most.
pub const MAX_SPLITS: usize = 64;

/// Device memory of `f32`s.
fn floats(device: &Arc<Device>, rows: usize, width: usize, what: &str) -> Result<Buffer> {
    bytes(device, rows, width, 4, what)
}

fn bytes(device: &Arc<Device>, rows: usize, width: usize, size: usize, what: &str) -> Result<Buffer> {
    let bytes = rows.checked_mul(width).and_then(|n| n.checked_mul(size));
    let bytes = bytes.ok_or_else(|| Error::OutOfMemory { bytes: u64::MAX, what: what.into() })?;
    device.allocate(bytes, what)
}

/// What [`crate::backend::Backend::qkv_rope_append`] left for attention to do.
#[derive(Clone, Copy)]
pub struct Pending {
    /// Head norms and rotation of the rows.
    pub rope: RopeArg,
    /// Attention normalises, rotates and appends for itself.
    pub raw: bool,
}

/// The activations of a step.
pub struct Work {
    pub shape: WorkShape,
    pub device: Arc<Device>,
    pub stream: Stream,
    pub plan: Plan,
    /// Rows of this step.
    pub n: usize,
    /// Each row is a sequence of its own.
    pub single_rows: bool,
    pub pending: Option<Pending>,
    /// Residual stream, `[rows][n_embd]`.
    pub x: Buffer,
    /// A row's vector before it is quantised, `[rows][widest]`.
    pub normed: Buffer,
    pub q: Buffer,
    pub k: Buffer,
    pub v: Buffer,
    /// Attention's result, `[rows][n_head · head_dim]`.
    pub attended: Buffer,
    /// `[rows][n_ff]`.
    pub gate: Buffer,
    /// `[rows][n_ff]`.
    pub up: Buffer,
    /// A projection before its post norm, `[rows][n_embd]`.
    pub projected: Buffer,
    /// Quantised activations, `[rows][widest]` and their scales.
    acts: Buffer,
    act_scales: Buffer,
    /// Attention's shares before they are merged.
    pub partial: Buffer,
    /// How many of a head's shares are there; zero between launches.
    pub counters: Buffer,
    pub logits: Buffer,
    /// `[logit_rows][n_vocab]` on the host.
    pub host_logits: Pinned,
    /// A launch may have been cut off: counters are not to be trusted.
    pub dirty: bool,
    /// Marks in the stream by which a long step is kept from running far ahead of its cancellation.
    pub throttle: Throttle,
    step: StepBlock,
}

/// The last few marks in a stream.
pub struct Throttle {
    events: [Event; 3],
    next: usize,
}

impl Throttle {
    fn new(device: &Arc<Device>) -> Result<Throttle> {
        Ok(Throttle { events: [device.event()?, device.event()?, device.event()?], next: 0 })
    }

    /// Waits until the mark before the last has passed, then sets a new one.
    pub fn mark(&mut self, stream: &Stream) -> Result<()> {
        let [a, b, c] = &self.events;
        let event = match self.next {
            0 => a,
            1 => b,
            _ => c,
        };
        event.synchronize()?;
        stream.record(event)?;
        self.next = (self.next + 1) % self.events.len();
        Ok(())
    }
}

/// The block that is uploaded once a step: tokens, positions, first pages, rotations, pages.
struct StepBlock {
    pinned: Pinned,
    buffer: Buffer,
    uploaded: Event,
    layout: StepLayout,
}

#[derive(Default, Clone)]
struct StepLayout {
    positions: usize,
    first_page: usize,
    /// Per rope.
    rotations: Vec<(usize, u32, u32)>,
    pages: usize,
    end: usize,
}

impl StepBlock {
    fn new(device: &Arc<Device>, bytes: usize) -> Result<StepBlock> {
        Ok(StepBlock {
            pinned: device.allocate_pinned(bytes)?,
            buffer: device.allocate(bytes, "the rows of a step")?,
            uploaded: device.event()?,
            layout: StepLayout::default(),
        })
    }
}

/// Writes `values` at `*at` of `bytes` and moves `*at` behind them.
fn put<T: bytemuck::NoUninit>(bytes: &mut [u8], at: usize, values: &[T]) -> Result<()> {
    let source = bytemuck::cast_slice(values);
    let place = bytes.get_mut(at..at + source.len());
    place.ok_or_else(|| Error::Internal("a step larger than its block".into()))?.copy_from_slice(source);
    Ok(())
}

impl Work {
    /// Room for steps of `shape` on `device`.
    pub fn new(device: &Arc<Device>, shape: &WorkShape) -> Result<Work> {
        let s = *shape;
        let (n_q, n_kv) = (s.n_head * s.head_dim, s.n_head_kv * s.head_dim);
        let widest = s.n_embd.max(n_q).max(s.n_ff).next_multiple_of(ACT_BLOCK);
        let few = s.rows.min(FEW_ROWS);
        let logits = s.logit_rows.checked_mul(s.n_vocab).and_then(|n| n.checked_mul(4));
        let logits = logits.ok_or_else(|| Error::OutOfMemory { bytes: u64::MAX, what: "logits".into() })?;
        Ok(Work {
            shape: s,
            stream: device.stream()?,
            plan: Plan::new(device),
            n: 0,
            single_rows: false,
            pending: None,
            x: floats(device, s.rows, s.n_embd, "the residual stream")?,
            normed: floats(device, s.rows, widest, "normalised rows")?,
            q: floats(device, s.rows, n_q, "queries")?,
            k: floats(device, s.rows, n_kv, "keys")?,
            v: floats(device, s.rows, n_kv, "values")?,
            attended: floats(device, s.rows, n_q, "attention")?,
            gate: floats(device, s.rows, s.n_ff, "the feed-forward block")?,
            up: floats(device, s.rows, s.n_ff, "the feed-forward block")?,
            projected: floats(device, s.rows, s.n_embd, "projections")?,
            acts: bytes(device, s.rows, widest, 1, "quantised rows")?,
            act_scales: bytes(device, s.rows, widest / ACT_BLOCK, 8, "quantised rows")?,
            partial: floats(device, few * s.n_head * MAX_SPLITS, s.head_dim + 2, "attention")?,
            counters: bytes(device, few, s.n_head, 4, "attention")?,
            logits: device.allocate(logits, "logits")?,
            host_logits: device.allocate_pinned(logits)?,
            dirty: true,
            throttle: Throttle::new(device)?,
            step: StepBlock::new(device, 1 << 16)?,
            device: device.clone(),
        })
    }

    /// The quantised rows.
    pub fn acts(&self) -> QuantArg {
        QuantArg { q: self.acts.address(), scales: self.act_scales.address() }
    }

    /// Whether verbs are put off and replayed as one: steps of few rows, whose launches cost more than their work.
    pub fn deferred(&self) -> bool {
        self.n <= FEW_ROWS
    }

    /// Takes in a step's rows: their tokens, positions, pages (as addresses, sequence by sequence) and rotations.
    pub fn begin(&mut self, batch: &Batch, ropes: &[Rope], pages: &[u64]) -> Result<()> {
        self.plan.flush(&self.stream)?;
        if self.dirty {
            self.stream.fill(&self.counters, 0)?;
            self.dirty = false;
        }
        self.n = batch.tokens.len();
        self.single_rows = batch.spans.iter().all(|span| span.rows.len() == 1);
        self.pending = None;
        let layout = self.lay_out(ropes, pages.len());
        // What the last step's upload reads must not change under it.
        self.step.uploaded.synchronize()?;
        if layout.end > self.step.buffer.bytes() {
            self.stream.synchronize()?;
            self.step = StepBlock::new(&self.device, layout.end.next_power_of_two())?;
        }
        self.fill(batch, ropes, pages, &layout)?;
        let step = &self.step;
        self.stream.upload(&step.buffer, 0, &step.pinned, 0, layout.end)?;
        self.stream.record(&step.uploaded)?;
        self.step.layout = layout;
        Ok(())
    }

    fn lay_out(&self, ropes: &[Rope], pages: usize) -> StepLayout {
        let n = self.n;
        let mut at = 12 * n;
        let mut rotations: Vec<(usize, u32, u32)> = Vec::with_capacity(ropes.len());
        for (i, rope) in ropes.iter().enumerate() {
            let style = match rope.style {
                RopeStyle::Norm => super::args::ROPE_NORM,
                RopeStyle::Neox => super::args::ROPE_NEOX,
            };
            // Networks with one kind of layer have the same rope twice.
            let same = ropes.iter().take(i).position(|other| other == rope).and_then(|j| rotations.get(j)).copied();
            rotations.push(same.unwrap_or((at, rope.frequencies.len() as u32, style)));
            if same.is_none() {
                at += n * 2 * rope.frequencies.len() * 4;
            }
        }
        let pages_at = at.next_multiple_of(8);
        StepLayout { positions: 4 * n, first_page: 8 * n, rotations, pages: pages_at, end: pages_at + 8 * pages }
    }

    fn fill(&mut self, batch: &Batch, ropes: &[Rope], pages: &[u64], layout: &StepLayout) -> Result<()> {
        let bytes = self.step.pinned.as_mut_slice();
        put(bytes, 0, batch.tokens)?;
        let (mut positions, mut first_pages) = (Vec::with_capacity(self.n), Vec::with_capacity(self.n));
        let mut first_page = 0;
        for span in &batch.spans {
            positions.extend((0..span.rows.len()).map(|i| (span.position + i) as u32));
            first_pages.extend(span.rows.clone().map(|_| first_page));
            first_page += span.pages.len() as u32;
        }
        put(bytes, layout.positions, &positions)?;
        put(bytes, layout.first_page, &first_pages)?;
        put(bytes, layout.pages, pages)?;
        for (i, (rope, &(at, pairs, _))) in ropes.iter().zip(&layout.rotations).enumerate() {
            if layout.rotations.iter().take(i).any(|&(other, ..)| other == at) {
                continue;
            }
            let pairs = pairs as usize;
            let mut row = vec![0.0f32; 2 * pairs];
            for (r, &position) in positions.iter().enumerate() {
                let (cos, sin) = row.split_at_mut(pairs);
                for ((cos, sin), &frequency) in cos.iter_mut().zip(sin).zip(&rope.frequencies) {
                    // In double: at position 10⁵ a float's angle would be off by a hundredth of a radian.
                    let (s, c) = (f64::from(position) * f64::from(frequency)).sin_cos();
                    *cos = c as f32 * rope.magnitude;
                    *sin = s as f32 * rope.magnitude;
                }
                put(bytes, at + r * 8 * pairs, &row)?;
            }
        }
        Ok(())
    }

    fn in_block(&self, offset: usize) -> Address {
        self.step.buffer.address() + offset as u64
    }

    /// The tokens on the device.
    pub fn tokens(&self) -> Address {
        self.in_block(0)
    }

    /// Where the rows from `first` on stand.
    pub fn step_arg(&self, first: usize) -> StepArg {
        let layout = &self.step.layout;
        StepArg {
            positions: self.in_block(layout.positions + 4 * first),
            first_page: self.in_block(layout.first_page + 4 * first),
            pages: self.in_block(layout.pages),
        }
    }

    /// Head norms and the rotation of rope `index`.
    pub fn rope_arg(&self, index: usize, q_norm: NormArg, k_norm: NormArg) -> Result<RopeArg> {
        let &(at, pairs, style) =
            self.step.layout.rotations.get(index).ok_or_else(|| Error::Internal("a rope that was not begun".into()))?;
        Ok(RopeArg { q_norm, k_norm, rotation: self.in_block(at), pairs, style })
    }

    /// The logits on the host, once they are there.
    pub fn host_logits(&self, range: Range<usize>) -> Result<&[f32]> {
        let all: &[f32] = bytemuck::try_cast_slice(self.host_logits.as_slice())
            .map_err(|_| Error::Internal("logits out of place".into()))?;
        all.get(range).ok_or_else(|| Error::Internal("logits out of range".into()))
    }
}
