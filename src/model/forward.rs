//! The forward pass: one sequence of verbs for every architecture.
//!
//! Which verb comes next is a value, [`Stage`], so that a step can be left between any two verbs (to cancel it, or
//! because its time is spent) and resumed where it was.

use std::sync::Arc;

use super::config::Config;
use super::rope::{rope_index, ropes};
use super::weights::{Block, Weights};
use crate::backend::{Attend, Backend, Batch, KvShape, KvType, LinearAdd, Logits, Norm, NormGateUpAct, QkvRopeAppend};
use crate::backend::{Rope, Vector, WorkShape, Workspace};
use crate::error::{Error, Result};
use crate::load::ModelFile;

/// Where a step stands: the verb that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Positions and embedding.
    Embed,
    /// Normalise, project, rotate, append to the cache.
    Qkv(usize),
    /// Attention over the cache.
    Attend(usize),
    /// Back to the residual stream.
    Proj(usize),
    /// First half of the feed-forward block.
    GateUp(usize),
    /// Second half, back to the residual stream.
    Down(usize),
}

/// Configuration, weights and the backend that holds them: immutable, shared by all sessions.
pub struct Network {
    /// What shapes the forward pass.
    pub config: Config,
    weights: Weights,
    backend: Arc<dyn Backend>,
}

impl Network {
    /// Places the network of `file` on `backend`; `progress(fraction)` returns false to cancel.
    pub fn load(file: &ModelFile, backend: Arc<dyn Backend>, progress: &mut dyn FnMut(f32) -> bool) -> Result<Network> {
        let config = Config::from_metadata(&file.metadata)?;
        let weights = Weights::load(file, &config, backend.as_ref(), progress)?;
        Ok(Network { config, weights, backend })
    }

    /// Tokens of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.weights.token_embd.rows
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> usize {
        self.weights.bytes_per_token()
    }

    /// The backend that holds the weights.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The shape of the cache's pages.
    pub fn kv_shape(&self, kv_type: KvType) -> KvShape {
        let c = &self.config;
        KvShape { layers: c.block_count, n_head_kv: c.head_count_kv, head_dim: c.head_dim, kv_type }
    }

    /// Room for steps of up to `rows` rows.
    pub fn workspace(&self, rows: usize, logit_rows: usize, exact: bool) -> Result<Workspace> {
        let c = &self.config;
        self.backend.workspace(&WorkShape {
            rows,
            logit_rows,
            n_embd: c.embedding_length,
            n_ff: c.feed_forward_length,
            n_head: c.head_count,
            n_head_kv: c.head_count_kv,
            head_dim: c.head_dim,
            n_vocab: self.n_vocab(),
            exact,
        })
    }

    /// The rotary embeddings of this network in a context of `capacity` tokens.
    pub fn ropes(&self, capacity: usize) -> Vec<Rope> {
        ropes(&self.config, &self.weights, capacity)
    }

    /// Runs a step up to the last layer; [`Network::logits`] completes it. `cancelled` is asked before each verb.
    pub fn forward(
        &self,
        work: &mut Workspace,
        batch: &mut Batch,
        ropes: &[Rope],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut next = Some(Stage::Embed);
        while let Some(stage) = next {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            self.run(stage, work, batch, ropes)?;
            next = self.after(stage);
        }
        Ok(())
    }

    /// The stage that follows `stage`; `None` after the last layer.
    pub fn after(&self, stage: Stage) -> Option<Stage> {
        let layer = |i: usize| (i < self.config.block_count).then_some(Stage::Qkv(i));
        match stage {
            Stage::Embed => layer(0),
            Stage::Qkv(i) => Some(Stage::Attend(i)),
            Stage::Attend(i) => Some(Stage::Proj(i)),
            Stage::Proj(i) => Some(Stage::GateUp(i)),
            Stage::GateUp(i) => Some(Stage::Down(i)),
            Stage::Down(i) => layer(i + 1),
        }
    }

    /// Runs one stage of a step.
    pub fn run(&self, stage: Stage, work: &mut Workspace, batch: &mut Batch, ropes: &[Rope]) -> Result<()> {
        let (config, weights, backend) = (&self.config, &self.weights, &self.backend);
        match stage {
            Stage::Embed => {
                backend.begin(work, batch, ropes)?;
                backend.embed(work, batch, &weights.token_embd, config.embedding_scale)
            }
            Stage::Qkv(layer) => {
                let block = self.block(layer)?;
                let args = QkvRopeAppend {
                    norm: self.norm(&block.attn_norm),
                    q: &block.attn_q,
                    k: &block.attn_k,
                    v: &block.attn_v,
                    q_norm: self.optional_norm(&block.attn_q_norm),
                    k_norm: self.optional_norm(&block.attn_k_norm),
                    rope: rope_index(config, layer),
                    layer,
                };
                backend.qkv_rope_append(work, batch, &args)
            }
            Stage::Attend(layer) => {
                let args = Attend {
                    layer,
                    scale: config.attention_scale,
                    softcap: config.attn_logit_softcapping,
                    window: config.window(layer),
                };
                backend.attend(work, batch, &args)
            }
            Stage::Proj(layer) => {
                let block = self.block(layer)?;
                let post_norm = self.optional_norm(&block.post_attention_norm);
                backend.proj_add(work, &LinearAdd { linear: &block.attn_output, post_norm })
            }
            Stage::GateUp(layer) => {
                let block = self.block(layer)?;
                let args = NormGateUpAct {
                    norm: self.norm(&block.ffn_norm),
                    gate: &block.ffn_gate,
                    up: &block.ffn_up,
                    activation: config.activation,
                };
                backend.norm_gate_up_act(work, &args)
            }
            Stage::Down(layer) => {
                let block = self.block(layer)?;
                let post_norm = self.optional_norm(&block.post_ffw_norm);
                backend.down_add(work, &LinearAdd { linear: &block.ffn_down, post_norm })
            }
        }
    }

    /// Logits of the step's `rows`, `[rows][n_vocab]`.
    pub fn logits<'w>(&self, work: &'w mut Workspace, rows: std::ops::Range<usize>) -> Result<&'w [f32]> {
        let args = Logits {
            norm: self.norm(&self.weights.output_norm),
            output: self.weights.output.as_ref().unwrap_or(&self.weights.token_embd),
            softcap: self.config.final_logit_softcapping,
            rows,
        };
        self.backend.logits(work, &args)
    }

    fn block(&self, layer: usize) -> Result<&Block> {
        self.weights.blk.get(layer).ok_or_else(|| Error::Internal(format!("there is no layer {layer}")))
    }

    fn norm<'a>(&self, gain: &'a Vector) -> Norm<'a> {
        Norm { gain, epsilon: self.config.layer_norm_rms_epsilon }
    }

    fn optional_norm<'a>(&self, gain: &'a Option<Vector>) -> Option<Norm<'a>> {
        gain.as_ref().map(|gain| self.norm(gain))
    }
}
