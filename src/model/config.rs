//! The configuration of a network: the only reader of `<arch>.*` keys.
//!
//! What distinguishes architectures is data: a row of [`FAMILIES`] for what files do not say, metadata for the rest,
//! and the presence of optional tensors (biases, head norms, post norms), which `weights` finds by itself.

use crate::backend::{Activation, RopeStyle};
use crate::error::{Error, Result};
use crate::gguf::{Array, Metadata, Value};

use super::config::RopeScaling::{Linear, LongRope, Unscaled, Yarn};

/// Layers that are accepted.
pub const MAX_BLOCKS: usize = 1024;
/// Widest vector that is accepted, in elements.
pub const MAX_WIDTH: usize = 1 << 20;
/// Longest context that is accepted, in tokens.
pub const MAX_CONTEXT: usize = 1 << 26;

/// What an architecture's files leave unsaid.
struct Family {
    name: &'static str,
    rope_style: RopeStyle,
    activation: Activation,
    /// The embedding is multiplied by √n_embd.
    scaled_embedding: bool,
    /// Layers of one period of the sliding-window pattern, the last of which sees everything; 1: each layer has the
    /// window, if the file names one.
    window_period: usize,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "llama",
        rope_style: RopeStyle::Norm,
        activation: Activation::Silu,
        scaled_embedding: false,
        window_period: 1,
    },
    Family {
        name: "qwen2",
        rope_style: RopeStyle::Neox,
        activation: Activation::Silu,
        scaled_embedding: false,
        window_period: 1,
    },
    Family {
        name: "qwen3",
        rope_style: RopeStyle::Neox,
        activation: Activation::Silu,
        scaled_embedding: false,
        window_period: 1,
    },
    Family {
        name: "gemma3",
        rope_style: RopeStyle::Neox,
        activation: Activation::GeluTanh,
        scaled_embedding: true,
        window_period: 6,
    },
    Family {
        name: "phi3",
        rope_style: RopeStyle::Neox,
        activation: Activation::Silu,
        scaled_embedding: false,
        window_period: 1,
    },
];

/// The architectures that are served, by the name that `general.architecture` has.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|f| f.name)
}

/// How positions beyond the trained context are reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    Unscaled,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// YaRN (Peng et al., 2023): low frequencies divided, high ones kept.
    Yarn {
        /// The divisor.
        factor: f32,
        /// Context that the network was trained on before.
        original_context: usize,
        /// Rotations in the original context above which a pair is kept.
        beta_fast: f32,
        /// Rotations below which a pair is divided.
        beta_slow: f32,
        /// Share of the kept frequencies, 1 unless the file says otherwise.
        ext_factor: f32,
        /// Factor on cosine and sine besides YaRN's own.
        attn_factor: f32,
    },
    /// LongRoPE (Ding et al., 2024): a factor for each pair, one set for short contexts and one for long.
    LongRope {
        /// The context up to which the short set serves.
        original_context: usize,
        /// Factor on cosine and sine.
        attn_factor: f32,
    },
}

/// Rotary embedding as the file configures it.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// How pairs are formed.
    pub style: RopeStyle,
    /// Elements of each head that rotate.
    pub dimension_count: usize,
    /// Base of the frequencies.
    pub freq_base: f32,
    /// Base in layers with a sliding window, which are never scaled.
    pub freq_base_swa: f32,
    /// Scaling in layers without a window.
    pub scaling: RopeScaling,
}

/// All that shapes the forward pass, in GGUF's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Layers.
    pub block_count: usize,
    /// Tokens that the network was trained for.
    pub context_length: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    /// Width of the feed-forward block.
    pub feed_forward_length: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key-value heads; a group of `head_count / head_count_kv` queries shares one.
    pub head_count_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Epsilon of every RMS norm.
    pub layer_norm_rms_epsilon: f32,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Tokens that layers with a window see, themselves included.
    pub sliding_window: Option<usize>,
    /// Layers of one period of the window pattern.
    pub window_period: usize,
    /// Factor on the attention scores.
    pub attention_scale: f32,
    /// Soft cap of the attention scores.
    pub attn_logit_softcapping: Option<f32>,
    /// Soft cap of the logits.
    pub final_logit_softcapping: Option<f32>,
    /// Factor on the embedding.
    pub embedding_scale: f32,
    /// Activation of the feed-forward block.
    pub activation: Activation,
}

impl Config {
    /// Reads and checks the configuration.
    pub fn from_metadata(metadata: &Metadata) -> Result<Config> {
        let name = metadata.string("general.architecture")?.ok_or_else(|| metadata.missing("general.architecture"))?;
        let family = FAMILIES.iter().find(|f| f.name == name).ok_or_else(|| {
            let served: Vec<_> = architectures().collect();
            Error::unsupported(
                metadata.file(),
                format!("architecture '{name}' is not served; {} are", served.join(", ")),
            )
        })?;
        let keys = Keys { metadata, arch: family.name };
        keys.refuse("expert_count", "mixture-of-experts layers")?;

        let embedding_length = keys.size("embedding_length", MAX_WIDTH)?;
        let head_count = keys.size("attention.head_count", MAX_WIDTH)?;
        let head_count_kv = keys.optional_size("attention.head_count_kv", MAX_WIDTH)?.unwrap_or(head_count);
        if head_count % head_count_kv != 0 {
            return Err(keys.bad(
                "attention.head_count_kv",
                format!("is {head_count_kv}, which does not divide attention.head_count = {head_count}"),
            ));
        }
        let head_dim = match keys.optional_size("attention.key_length", MAX_WIDTH)? {
            Some(n) => n,
            None if embedding_length % head_count == 0 => embedding_length / head_count,
            None => {
                return Err(keys.bad(
                    "attention.head_count",
                    format!("is {head_count}, which does not divide embedding_length = {embedding_length}"),
                ));
            }
        };
        let value_length = keys.optional_size("attention.value_length", MAX_WIDTH)?.unwrap_or(head_dim);
        if value_length != head_dim {
            return Err(keys.unsupported(
                "attention.value_length",
                format!("is {value_length}, and attention.key_length is {head_dim}: only equal lengths are served"),
            ));
        }
        let context_length = keys.size("context_length", MAX_CONTEXT)?;
        let block_count = keys.size("block_count", MAX_BLOCKS)?;
        let sliding_window = keys.optional_size("attention.sliding_window", MAX_CONTEXT)?;
        // The 27B model of gemma3 alone scales by the width per head and not by the head's own.
        let score_width = if name == "gemma3" && block_count == 62 { embedding_length / head_count } else { head_dim };
        Ok(Config {
            architecture: family.name,
            block_count,
            context_length,
            embedding_length,
            feed_forward_length: keys.size("feed_forward_length", MAX_WIDTH)?,
            head_count,
            head_count_kv,
            head_dim,
            layer_norm_rms_epsilon: keys.positive("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
            rope: rope(&keys, family, head_dim, context_length)?,
            sliding_window,
            window_period: keys
                .optional_size("attention.sliding_window_pattern", MAX_BLOCKS)?
                .unwrap_or(family.window_period),
            attention_scale: keys.positive("attention.scale")?.unwrap_or(1.0 / (score_width as f32).sqrt()),
            attn_logit_softcapping: keys.positive("attn_logit_softcapping")?,
            final_logit_softcapping: keys.positive("final_logit_softcapping")?,
            embedding_scale: if family.scaled_embedding { (embedding_length as f32).sqrt() } else { 1.0 },
            activation: family.activation,
        })
    }

    /// The window of layer `layer`, if it has one.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let sees_all = self.window_period > 1 && layer % self.window_period == self.window_period - 1;
        self.sliding_window.filter(|_| !sees_all)
    }
}

fn rope(keys: &Keys, family: &Family, head_dim: usize, context_length: usize) -> Result<RopeConfig> {
    let dimension_count = keys.optional_size("rope.dimension_count", MAX_WIDTH)?.unwrap_or(head_dim);
    if dimension_count > head_dim || dimension_count % 2 != 0 {
        return Err(keys.bad(
            "rope.dimension_count",
            format!("is {dimension_count}, expected an even number up to the head's {head_dim} elements"),
        ));
    }
    let freq_base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let freq_base_swa = match keys.positive("rope.freq_base_swa")? {
        Some(base) => base,
        None if family.window_period > 1 => 10_000.0,
        None => freq_base,
    };
    Ok(RopeConfig {
        style: family.rope_style,
        dimension_count,
        freq_base,
        freq_base_swa,
        scaling: rope_scaling(keys, context_length)?,
    })
}

fn rope_scaling(keys: &Keys, context_length: usize) -> Result<RopeScaling> {
    let kind = keys.metadata.string(&keys.name("rope.scaling.type"))?;
    let factor = match keys.positive("rope.scaling.factor")? {
        Some(factor) => factor,
        None => keys.positive("rope.scale_linear")?.unwrap_or(1.0),
    };
    let original_context =
        keys.optional_size("rope.scaling.original_context_length", MAX_CONTEXT)?.unwrap_or(context_length);
    let attn_factor = keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
    Ok(match kind {
        Some("none") => Unscaled,
        // Files from before `rope.scaling.type` name a factor alone, which is linear.
        None | Some("linear") if factor == 1.0 => Unscaled,
        None | Some("linear") => Linear { factor },
        Some("yarn") => Yarn {
            factor,
            original_context,
            beta_fast: keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            ext_factor: keys.positive("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
            attn_factor: keys.positive("rope.scaling.yarn_attn_factor")?.unwrap_or(attn_factor),
        },
        Some("longrope") => LongRope { original_context, attn_factor },
        Some(other) => {
            return Err(keys.unsupported(
                "rope.scaling.type",
                format!("is '{other}'; none, linear, yarn and longrope are served"),
            ));
        }
    })
}

/// Look-ups below `<arch>.`, with errors that name the key.
struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn bad(&self, key: &str, what: String) -> Error {
        Error::malformed(self.metadata.file(), format!("metadata key '{}' {what}", self.name(key)))
    }

    fn unsupported(&self, key: &str, what: String) -> Error {
        Error::unsupported(self.metadata.file(), format!("metadata key '{}' {what}", self.name(key)))
    }

    /// A size from 1 to `limit`.
    fn size(&self, key: &str, limit: usize) -> Result<usize> {
        self.optional_size(key, limit)?.ok_or_else(|| self.metadata.missing(&self.name(key)))
    }

    /// A size from 1 to `limit`; 0 counts as absent. An array with a value for each layer is accepted if all agree.
    fn optional_size(&self, key: &str, limit: usize) -> Result<Option<usize>> {
        let name = self.name(key);
        let value = match self.metadata.get(&name) {
            Some(Value::Array(array)) => Some(self.uniform(key, array)?),
            _ => self.metadata.u64(&name)?,
        };
        match value {
            None | Some(0) => Ok(None),
            Some(n) => match usize::try_from(n) {
                Ok(n) if n <= limit => Ok(Some(n)),
                _ => Err(self.bad(key, format!("is {n}, the limit is {limit}"))),
            },
        }
    }

    fn uniform(&self, key: &str, array: &Array) -> Result<u64> {
        let values: Vec<u64> = match array {
            Array::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I32(v) => v.iter().filter_map(|&x| u64::try_from(x).ok()).collect(),
            Array::U64(v) => v.clone(),
            _ => Vec::new(),
        };
        match values.as_slice() {
            [first, rest @ ..] if values.len() == array.len() && rest.iter().all(|x| x == first) => Ok(*first),
            _ => Err(self.unsupported(key, "differs from layer to layer, which is not served".into())),
        }
    }

    /// A finite number above zero; 0 counts as absent.
    fn positive(&self, key: &str) -> Result<Option<f32>> {
        match self.metadata.f32(&self.name(key))? {
            None | Some(0.0) => Ok(None),
            Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x)),
            Some(x) => Err(self.bad(key, format!("is {x}, expected a positive number"))),
        }
    }

    fn refuse(&self, key: &str, what: &str) -> Result<()> {
        match self.optional_size(key, usize::MAX)? {
            None => Ok(()),
            Some(n) => Err(self.unsupported(key, format!("is {n}: {what} are not served"))),
        }
    }
}
