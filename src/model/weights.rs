//! The weights of a network: fields are named as GGUF names its tensors, shapes are checked against the
//! configuration, and a tensor that nothing would use is refused by name rather than silently ignored.

use std::collections::HashSet;

use super::Config;
use crate::backend::{Backend, Linear, Matrix, Part, Vector};
use crate::error::{Error, Result};
use crate::load::{ModelFile, TensorData};
use crate::tensor::{Tensor, shape_text};

/// One layer.
pub struct Block {
    /// Before attention.
    pub attn_norm: Vector,
    /// Queries: `n_embd → n_head · head_dim`.
    pub attn_q: Linear,
    /// Keys: `n_embd → n_head_kv · head_dim`.
    pub attn_k: Linear,
    /// Values: `n_embd → n_head_kv · head_dim`.
    pub attn_v: Linear,
    /// Over each query head.
    pub attn_q_norm: Option<Vector>,
    /// Over each key head.
    pub attn_k_norm: Option<Vector>,
    /// `n_head · head_dim → n_embd`.
    pub attn_output: Linear,
    /// After attention, before the residual addition.
    pub post_attention_norm: Option<Vector>,
    /// Before the feed-forward block.
    pub ffn_norm: Vector,
    /// `n_embd → n_ff`.
    pub ffn_gate: Linear,
    /// `n_embd → n_ff`.
    pub ffn_up: Linear,
    /// `n_ff → n_embd`.
    pub ffn_down: Linear,
    /// After the feed-forward block, before the residual addition.
    pub post_ffw_norm: Option<Vector>,
}

/// All weights.
pub struct Weights {
    /// Vocabulary × `n_embd`.
    pub token_embd: Matrix,
    /// The layers.
    pub blk: Vec<Block>,
    /// Before the head.
    pub output_norm: Vector,
    /// Vocabulary × `n_embd`; `None`: the head is `token_embd`, in the same place.
    pub output: Option<Matrix>,
    /// Divisors of the rotary frequencies (Llama 3).
    pub rope_freqs: Option<Vec<f32>>,
    /// Divisors for long contexts (LongRoPE).
    pub rope_factors_long: Option<Vec<f32>>,
    /// Divisors for short contexts (LongRoPE).
    pub rope_factors_short: Option<Vec<f32>>,
}

impl Weights {
    /// Places all weights of `file` on `backend`; `progress(fraction)` returns false to cancel.
    pub fn load(
        file: &ModelFile,
        config: &Config,
        backend: &dyn Backend,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Weights> {
        let mut loader = Loader::new(file, config, backend, progress);
        let token_embd = loader.place_largest_first()?;
        let blk = (0..config.block_count).map(|i| loader.block(i)).collect::<Result<Vec<_>>>()?;
        let n_embd = config.embedding_length;
        let half = config.rope.dimension_count / 2;
        let weights = Weights {
            output_norm: loader.vector(Part::Output, "output_norm.weight", n_embd)?,
            output: loader.take_output(),
            rope_freqs: loader.optional_values("rope_freqs.weight", half)?,
            rope_factors_long: loader.optional_values("rope_factors_long.weight", half)?,
            rope_factors_short: loader.optional_values("rope_factors_short.weight", half)?,
            token_embd,
            blk,
        };
        loader.finish()?;
        Ok(weights)
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> usize {
        let head = self.output.as_ref().unwrap_or(&self.token_embd).bytes;
        let linears = |b: &Block| {
            [&b.attn_q, &b.attn_k, &b.attn_v, &b.attn_output, &b.ffn_gate, &b.ffn_up, &b.ffn_down]
                .iter()
                .map(|l| l.weight.bytes)
                .sum::<usize>()
        };
        head + self.blk.iter().map(linears).sum::<usize>()
    }
}

struct Loader<'a> {
    file: &'a ModelFile<'a>,
    config: &'a Config,
    backend: &'a dyn Backend,
    progress: &'a mut dyn FnMut(f32) -> bool,
    used: HashSet<String>,
    output: Option<Matrix>,
    done: u64,
    total: u64,
}

impl<'a> Loader<'a> {
    fn new(
        file: &'a ModelFile<'a>,
        config: &'a Config,
        backend: &'a dyn Backend,
        progress: &'a mut dyn FnMut(f32) -> bool,
    ) -> Self {
        let total = file.tensor_bytes().max(1);
        Loader { file, config, backend, progress, used: HashSet::new(), output: None, done: 0, total }
    }

    /// The embedding and the head come first: they are the largest tensors, and whoever has too little memory learns
    /// it soonest from them.
    fn place_largest_first(&mut self) -> Result<Matrix> {
        let n_embd = self.config.embedding_length;
        let rows = self.find("token_embd.weight")?.rows();
        if rows > u32::MAX as usize {
            return Err(self.malformed(format!("tensor 'token_embd.weight' has {rows} rows")));
        }
        let output = match self.file.tensors.get("output.weight") {
            Some(_) => Some("output.weight"),
            None => self.backend.separate_output().then_some("token_embd.weight"),
        };
        let part = if output.is_some() { Part::Embedding } else { Part::Output };
        let token_embd = self.matrix(part, "token_embd.weight", rows, n_embd)?;
        self.output = output.map(|name| self.matrix(Part::Output, name, rows, n_embd)).transpose()?;
        Ok(token_embd)
    }

    fn take_output(&mut self) -> Option<Matrix> {
        self.output.take()
    }

    fn block(&mut self, i: usize) -> Result<Block> {
        let c = self.config;
        let part = Part::Layer(i);
        let name = |tensor: &str| format!("blk.{i}.{tensor}");
        let (n_embd, n_ff) = (c.embedding_length, c.feed_forward_length);
        let (n_q, n_kv) = (c.head_count * c.head_dim, c.head_count_kv * c.head_dim);

        let [attn_q, attn_k, attn_v] = match self.file.tensors.get(&name("attn_qkv.weight")) {
            Some(_) => self.fused(part, &name("attn_qkv"), [n_q, n_kv, n_kv], n_embd)?,
            None => [
                self.linear(part, &name("attn_q"), n_q, n_embd)?,
                self.linear(part, &name("attn_k"), n_kv, n_embd)?,
                self.linear(part, &name("attn_v"), n_kv, n_embd)?,
            ],
        };
        let [ffn_gate, ffn_up] = match self.file.tensors.get(&name("ffn_gate.weight")) {
            Some(_) => {
                [self.linear(part, &name("ffn_gate"), n_ff, n_embd)?, self.linear(part, &name("ffn_up"), n_ff, n_embd)?]
            }
            // Without a gate of its own, `ffn_up` holds the gate's rows and then its own.
            None => self.fused(part, &name("ffn_up"), [n_ff, n_ff], n_embd)?,
        };
        Ok(Block {
            attn_norm: self.vector(part, &name("attn_norm.weight"), n_embd)?,
            attn_q,
            attn_k,
            attn_v,
            attn_q_norm: self.optional_vector(part, &name("attn_q_norm.weight"), c.head_dim)?,
            attn_k_norm: self.optional_vector(part, &name("attn_k_norm.weight"), c.head_dim)?,
            attn_output: self.linear(part, &name("attn_output"), n_embd, n_q)?,
            post_attention_norm: self.optional_vector(part, &name("post_attention_norm.weight"), n_embd)?,
            ffn_norm: self.vector(part, &name("ffn_norm.weight"), n_embd)?,
            ffn_gate,
            ffn_up,
            ffn_down: self.linear(part, &name("ffn_down"), n_embd, n_ff)?,
            post_ffw_norm: self.optional_vector(part, &name("post_ffw_norm.weight"), n_embd)?,
        })
    }

    /// Every tensor of the file must have been used: one that is not belongs to a network that this is not.
    fn finish(self) -> Result<()> {
        // Older converters stored the rotary frequencies of each layer, which follow from the configuration.
        let derived = |name: &str| name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rotary_emb.inv_freq");
        match self.file.tensors.iter().find(|t| !self.used.contains(&t.name) && !derived(&t.name)) {
            None => Ok(()),
            Some(t) => Err(Error::unsupported(
                self.file.name(),
                format!(
                    "tensor '{}' has no place in architecture '{}' as it is served here",
                    t.name, self.config.architecture
                ),
            )),
        }
    }

    fn malformed(&self, what: String) -> Error {
        Error::malformed(self.file.name(), what)
    }

    fn find(&self, name: &str) -> Result<&'a Tensor> {
        self.file.tensors.get(name).ok_or_else(|| self.malformed(format!("tensor '{name}' is missing")))
    }

    /// Finds `name`, checks its shape, and fetches its bytes.
    fn fetch(&mut self, name: &str, shape: &[usize]) -> Result<(&'a Tensor, TensorData<'a>)> {
        let tensor = self.find(name)?;
        if tensor.dimensions != shape {
            return Err(self.malformed(format!(
                "tensor '{name}' has the shape {}, the configuration asks for {}",
                tensor.shape_text(),
                shape_text(shape)
            )));
        }
        if tensor.tensor_type.format().decode.is_none() {
            return Err(Error::unsupported(
                self.file.name(),
                format!("tensor '{name}' has the type {}, which is not served", tensor.tensor_type.name()),
            ));
        }
        let data = self.file.data(tensor)?;
        self.used.insert(name.to_string());
        self.done += tensor.bytes as u64;
        if !(self.progress)((self.done as f64 / self.total as f64) as f32) {
            return Err(Error::Cancelled);
        }
        Ok((tensor, data))
    }

    fn matrix(&mut self, part: Part, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let (tensor, data) = self.fetch(name, &[columns, rows])?;
        self.backend.matrix(part, tensor.tensor_type, rows, columns, data)
    }

    /// `<name>.weight` and, where the file has it, `<name>.bias`.
    fn linear(&mut self, part: Part, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let weight = self.matrix(part, &format!("{name}.weight"), rows, columns)?;
        let bias = self.optional_vector(part, &format!("{name}.bias"), rows)?;
        Ok(Linear { weight, bias })
    }

    /// Projections that the file keeps as one matrix, the rows of one after those of the other.
    fn fused<const N: usize>(
        &mut self,
        part: Part,
        name: &str,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[Linear; N]> {
        let total = rows.iter().sum();
        let (tensor, data) = self.fetch(&format!("{name}.weight"), &[columns, total])?;
        let bias = self.optional_values(&format!("{name}.bias"), total)?;
        let row_bytes = tensor.bytes / total.max(1);
        let mut first = 0;
        let mut linears = Vec::with_capacity(N);
        for n in rows {
            let piece = data
                .slice(first * row_bytes, n * row_bytes)
                .ok_or_else(|| Error::Internal(format!("rows of '{name}' outside of it")))?;
            let weight = self.backend.matrix(part, tensor.tensor_type, n, columns, piece)?;
            let bias = match &bias {
                Some(values) => Some(self.backend.vector(part, values.get(first..first + n).unwrap_or_default())?),
                None => None,
            };
            linears.push(Linear { weight, bias });
            first += n;
        }
        linears.try_into().map_err(|_| Error::Internal(format!("parts of '{name}'")))
    }

    fn values(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let (tensor, data) = self.fetch(name, &[len])?;
        let mut values = vec![0.0; len];
        match tensor.tensor_type.format().decode {
            Some(decode) => decode(data.whole()?.as_slice(), &mut values),
            None => return Err(Error::Internal(format!("tensor '{name}' passed without a decode"))),
        }
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(values),
            Some(i) => Err(self.malformed(format!("element {i} of tensor '{name}' is not finite"))),
        }
    }

    fn optional_values(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        match self.file.tensors.get(name) {
            Some(_) => self.values(name, len).map(Some),
            None => Ok(None),
        }
    }

    fn vector(&mut self, part: Part, name: &str, len: usize) -> Result<Vector> {
        let values = self.values(name, len)?;
        self.backend.vector(part, &values)
    }

    fn optional_vector(&mut self, part: Part, name: &str, len: usize) -> Result<Option<Vector>> {
        match self.file.tensors.get(name) {
            Some(_) => self.vector(part, name, len).map(Some),
            None => Ok(None),
        }
    }
}
