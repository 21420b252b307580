//! Backends: where weights live and the verbs run.
//!
//! A [`Backend`] offers *fused decode verbs*, not tensor operations: each method is one stage of a transformer
//! block, as few as the data allows, so that a backend may keep what is between two of its inner steps in registers,
//! caches or shared memory. The same verbs serve one token, a prompt of many, and a batch over many sequences.
//!
//! What a backend places it alone can read: [`Matrix`], [`Vector`], [`KvPage`] and [`Workspace`] are opaque to
//! everyone else. A backend never names a model.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::load::TensorData;
use crate::quant::TensorType;

pub mod cpu;
pub mod hip;
pub mod split;
pub mod stages;

/// Tokens of one page of the key-value cache.
pub const PAGE_TOKENS: usize = 32;

/// Which part of a network a weight belongs to: a backend of several devices places it by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The token embedding, of which rows are looked up and nothing else.
    Embedding,
    /// A layer.
    Layer(usize),
    /// The last norm and the head, which may be the embedding as well.
    Output,
}

/// A weight matrix in a backend's own layout.
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// The type that the file has.
    pub tensor_type: TensorType,
    /// Bytes that a multiplication reads.
    pub bytes: usize,
    /// What the backend made of it.
    pub placed: Box<dyn Any + Send + Sync>,
}

/// A vector of float32 (a norm's gain, a bias) in a backend's own place.
pub struct Vector {
    /// Elements.
    pub len: usize,
    /// What the backend made of it.
    pub placed: Box<dyn Any + Send + Sync>,
}

/// `y = W·x + b`.
pub struct Linear {
    /// `W`.
    pub weight: Matrix,
    /// `b`.
    pub bias: Option<Vector>,
}

/// The element type of the key-value cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// IEEE half precision: the default.
    F16,
    /// Single precision: reference mode.
    F32,
}

impl KvType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F16 => 2,
            KvType::F32 => 4,
        }
    }
}

/// What a page of the key-value cache has to hold: for each layer `[k | v][n_head_kv][PAGE_TOKENS][head_dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Key-value heads of a layer.
    pub n_head_kv: usize,
    /// Elements of a head, of keys and of values alike.
    pub head_dim: usize,
    /// The elements' type.
    pub kv_type: KvType,
}

impl KvShape {
    /// Bytes of one page; `None` on overflow.
    pub fn page_bytes(&self) -> Option<usize> {
        [2, self.n_head_kv, PAGE_TOKENS, self.head_dim, self.kv_type.bytes()]
            .iter()
            .try_fold(self.layers, |product, &factor| product.checked_mul(factor))
    }
}

/// Keys and values of [`PAGE_TOKENS`] consecutive tokens in all layers.
pub struct KvPage(pub Box<dyn Any + Send + Sync>);

/// The sizes that a workspace has to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkShape {
    /// Rows (tokens) of one step at most.
    pub rows: usize,
    /// Rows of logits computed at a time.
    pub logit_rows: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Width of the feed-forward block.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key-value heads.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Vocabulary.
    pub n_vocab: usize,
    /// Multiply by unquantised activations: slower, nearest to float32.
    pub exact: bool,
}

/// The activations of one step, in a backend's own place.
pub struct Workspace(pub Box<dyn Any + Send>);

/// How rotary pairs are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours: (0, 1), (2, 3), … (GGUF files of the llama family are permuted for it).
    Norm,
    /// Halves: (0, n/2), (1, n/2 + 1), …
    Neox,
}

/// Rotary position embedding with every scaling method folded into one frequency per pair.
///
/// Su et al., *RoFormer*, 2021; the angle of pair `i` at position `p` is `p · frequencies[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// How pairs are formed.
    pub style: RopeStyle,
    /// Radians per position; twice as many leading elements of each head rotate.
    pub frequencies: Vec<f32>,
    /// Factor on cosine and sine (YaRN's and LongRoPE's attention scaling).
    pub magnitude: f32,
}

/// One sequence's rows in a step.
pub struct Span<'a> {
    /// Its rows in the step.
    pub rows: Range<usize>,
    /// Position in the sequence of its first row.
    pub position: usize,
    /// The sequence's pages, enough for its last row; those that are written are not shared.
    pub pages: &'a mut [Arc<KvPage>],
}

/// The rows of one step.
pub struct Batch<'a> {
    /// The tokens, one for each row.
    pub tokens: &'a [u32],
    /// The sequences that the rows belong to; their ranges cover all rows in order.
    pub spans: Vec<Span<'a>>,
}

/// Root-mean-square normalisation: `x / √(mean(x²) + epsilon) · gain` (Zhang & Sennrich, 2019).
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// One factor for each element.
    pub gain: &'a Vector,
    /// Keeps the root from zero.
    pub epsilon: f32,
}

/// Arguments of [`Backend::qkv_rope_append`].
pub struct QkvRopeAppend<'a> {
    /// Before the projections.
    pub norm: Norm<'a>,
    /// Queries.
    pub q: &'a Linear,
    /// Keys.
    pub k: &'a Linear,
    /// Values.
    pub v: &'a Linear,
    /// Over each head of the queries.
    pub q_norm: Option<Norm<'a>>,
    /// Over each head of the keys.
    pub k_norm: Option<Norm<'a>>,
    /// Which of the ropes given to [`Backend::begin`] turns this layer.
    pub rope: usize,
    /// The layer, for the cache.
    pub layer: usize,
}

/// Arguments of [`Backend::attend`].
pub struct Attend {
    /// The layer, for the cache.
    pub layer: usize,
    /// Factor on the scores, usually `1/√head_dim`.
    pub scale: f32,
    /// `c · tanh(score / c)` on the scores.
    pub softcap: Option<f32>,
    /// A row sees itself and the `window − 1` tokens before it; all of them if `None`.
    pub window: Option<usize>,
}

/// The activation of a gated feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`.
    Silu,
    /// The tanh form of GELU (Hendrycks & Gimpel, 2016).
    GeluTanh,
}

/// Arguments of [`Backend::norm_gate_up_act`].
pub struct NormGateUpAct<'a> {
    /// Before the projections.
    pub norm: Norm<'a>,
    /// The gate, which the activation bends.
    pub gate: &'a Linear,
    /// What the gate multiplies.
    pub up: &'a Linear,
    /// The activation.
    pub activation: Activation,
}

/// Arguments of [`Backend::proj_add`] and [`Backend::down_add`].
pub struct LinearAdd<'a> {
    /// The projection back to the residual stream.
    pub linear: &'a Linear,
    /// Over the projection's result, before it is added.
    pub post_norm: Option<Norm<'a>>,
}

/// Arguments of [`Backend::logits`].
pub struct Logits<'a> {
    /// Before the head.
    pub norm: Norm<'a>,
    /// The head: vocabulary × `n_embd`.
    pub output: &'a Matrix,
    /// `c · tanh(logit / c)`.
    pub softcap: Option<f32>,
    /// The rows that are wanted, at most `logit_rows` of the workspace.
    pub rows: Range<usize>,
}

/// Places weights and runs the verbs.
///
/// The verbs do not fail on the CPU; on a device they may (it can be lost), which is why all return a `Result`. A device
/// may put verbs off until their result is asked for: a failure can then surface in a later verb of the same step.
pub trait Backend: Send + Sync {
    /// Places a matrix of `rows` rows of `columns` elements.
    fn matrix(
        &self,
        part: Part,
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: TensorData,
    ) -> Result<Matrix>;

    /// Places a vector.
    fn vector(&self, part: Part, values: &[f32]) -> Result<Vector>;

    /// Whether the head needs a matrix of its own even where it is the embedding: the two are in different places.
    fn separate_output(&self) -> bool {
        false
    }

    /// Rows of a prompt that are best computed at a time.
    fn best_batch(&self) -> usize {
        256
    }

    /// Makes room for steps of a shape.
    fn workspace(&self, shape: &WorkShape) -> Result<Workspace>;

    /// Makes one page of the key-value cache.
    fn kv_page(&self, shape: &KvShape) -> Result<KvPage>;

    /// Begins a step: the rows' positions, from which the rotations of every rope are prepared once for all layers.
    fn begin(&self, work: &mut Workspace, batch: &Batch, ropes: &[Rope]) -> Result<()>;

    /// Residual stream = the tokens' rows of `table`, times `scale`.
    fn embed(&self, work: &mut Workspace, batch: &Batch, table: &Matrix, scale: f32) -> Result<()>;

    /// Normalises, projects to queries, keys and values, normalises heads, rotates, and appends keys and values to
    /// the cache.
    fn qkv_rope_append(&self, work: &mut Workspace, batch: &mut Batch, args: &QkvRopeAppend) -> Result<()>;

    /// Attention of every row over the cache up to itself.
    fn attend(&self, work: &mut Workspace, batch: &Batch, args: &Attend) -> Result<()>;

    /// Residual stream += projection of the attention's result.
    fn proj_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()>;

    /// Normalises, projects to gate and up, and forms `activation(gate) · up`.
    fn norm_gate_up_act(&self, work: &mut Workspace, args: &NormGateUpAct) -> Result<()>;

    /// Residual stream += projection of what [`Backend::norm_gate_up_act`] formed.
    fn down_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()>;

    /// Logits of some rows: `[rows][n_vocab]`, borrowed from the workspace until its next use.
    fn logits<'w>(&self, work: &'w mut Workspace, args: &Logits) -> Result<&'w [f32]>;

    /// Copies the residual stream of all rows of the step, `[rows][n_embd]`: what another backend goes on with, and what
    /// tests compare.
    fn residual(&self, work: &mut Workspace, out: &mut [f32]) -> Result<()>;

    /// Replaces the residual stream of all rows of the step, after [`Backend::begin`].
    fn set_residual(&self, work: &mut Workspace, values: &[f32]) -> Result<()>;
}

/// The error for a handle that another backend made.
pub(crate) fn foreign(what: &str) -> Error {
    Error::Internal(format!("a {what} of another backend was given"))
}
