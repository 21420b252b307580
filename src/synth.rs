//! Random weights and models made of them: for measuring and checking where no real file is at hand.
//!
//! A model has the shape, the tensor types and the size of a known one, and says nothing of sense.

use std::io::Write;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::load::TensorBytes;
use crate::quant::TensorType;

/// A linear congruential generator: the same numbers everywhere.
pub struct Noise(u64);

impl Noise {
    /// The numbers that follow `seed`.
    pub fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    /// 31 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Between −1 and 1.
    pub fn float(&mut self) -> f32 {
        self.bits() as f32 / (1u32 << 30) as f32 - 1.0
    }

    /// `n` numbers between −1 and 1.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// The weights' root mean square times the root of their row's length: products are about as large as what is multiplied,
/// so that attention is neither even nor all on one key, where it would magnify every rounding.
const GAIN: f32 = 1.0;
/// Rows whose size is measured.
const SAMPLE_ROWS: usize = 64;

/// Random weights of a type: every bit pattern of the numbers, scales that are finite, and the size that [`GAIN`] asks for.
pub fn random_weights(
    tensor_type: TensorType,
    rows: usize,
    columns: usize,
    noise: &mut Noise,
) -> Result<TensorBytes> {
    let decode = tensor_type.decoder("synthetic weights", "weights")?;
    let seed = noise.0;
    let sample = rows.min(SAMPLE_ROWS);
    let bytes = weights_of_scale(tensor_type, sample, columns, 1.0, noise)?;
    let mut values = vec![0.0; sample * columns];
    decode(&bytes, &mut values);
    let size = (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt() as f32;
    let scale = GAIN / (size * (columns as f32).sqrt());
    let bytes = weights_of_scale(tensor_type, rows, columns, scale, &mut Noise(seed))?;
    let len = bytes.len();
    TensorBytes::new(Arc::new(bytes), 0, len).ok_or_else(|| Error::Internal("weights outside themselves".into()))
}

fn weights_of_scale(
    tensor_type: TensorType,
    rows: usize,
    columns: usize,
    scale: f32,
    noise: &mut Noise,
) -> Result<Vec<u8>> {
    let format = tensor_type.format();
    let row = tensor_type
        .row_bytes(columns)
        .ok_or_else(|| Error::Internal(format!("{columns} columns of {}", format.name)))?;
    let mut bytes: Vec<u8> = (0..rows * row).map(|_| noise.bits() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes) {
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = block.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        let mut half = || half::f16::from_f32(noise.float() * scale).to_le_bytes();
        match tensor_type {
            TensorType::F32 => put(0, &(noise.float() * scale).to_le_bytes()),
            TensorType::BF16 => put(0, &half::bf16::from_f32(noise.float() * scale).to_le_bytes()),
            TensorType::MXFP4 => put(0, &[(127.0 + scale.log2()) as u8 + noise.bits() as u8 % 4]),
            TensorType::Q2_K => [80, 82].into_iter().for_each(|at| put(at, &half())),
            TensorType::Q3_K => put(108, &half()),
            TensorType::Q6_K => put(208, &half()),
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => {
                [0, 2].into_iter().for_each(|at| put(at, &half()));
            }
            _ => put(0, &half()),
        }
    }
    Ok(bytes)
}

/// Which types a model's tensors have, by the names that files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Q4_K, with Q6_K for the embedding, the head, and half of `attn_v` and `ffn_down`.
    Q4KM,
    /// One type for all matrices.
    Uniform(TensorType),
}

impl Mix {
    fn of(self, name: &str, layer: usize, layers: usize) -> TensorType {
        match self {
            Mix::Uniform(tensor_type) => tensor_type,
            Mix::Q4KM => {
                // llama.cpp's rule for the layers that get more bits.
                let more = layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
                match name {
                    "token_embd" | "output" => TensorType::Q6_K,
                    "attn_v" | "ffn_down" if more => TensorType::Q6_K,
                    _ => TensorType::Q4_K,
                }
            }
        }
    }
}

/// The shape of a llama model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Width of the feed-forward block.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key-value heads.
    pub n_head_kv: usize,
    /// Tokens.
    pub n_vocab: usize,
    /// The head is the embedding.
    pub tied: bool,
}

/// As SmolLM2 135M. (Its rows are no whole blocks of 256: no K types.)
pub const SMOLLM2_135M: Shape =
    Shape { layers: 30, n_embd: 576, n_ff: 1536, n_head: 9, n_head_kv: 3, n_vocab: 49_152, tied: true };
/// As Qwen2.5 1.5B, without its biases.
pub const QWEN2_1_5B: Shape =
    Shape { layers: 28, n_embd: 1536, n_ff: 8960, n_head: 12, n_head_kv: 2, n_vocab: 151_936, tied: true };
/// As Llama 3.2 1B.
pub const LLAMA_1B: Shape =
    Shape { layers: 16, n_embd: 2048, n_ff: 8192, n_head: 32, n_head_kv: 8, n_vocab: 128_256, tied: true };
/// As Llama 3.1 8B.
pub const LLAMA_8B: Shape =
    Shape { layers: 32, n_embd: 4096, n_ff: 14_336, n_head: 32, n_head_kv: 8, n_vocab: 128_256, tied: false };
/// Something that tests can afford.
pub const TINY: Shape =
    Shape { layers: 4, n_embd: 256, n_ff: 512, n_head: 4, n_head_kv: 2, n_vocab: 512, tied: false };

/// A tensor that is to be written: name, type, columns, rows (0: a vector).
struct Planned {
    name: String,
    tensor_type: TensorType,
    columns: usize,
    rows: usize,
}

fn plan(shape: &Shape, mix: Mix) -> Vec<Planned> {
    let s = *shape;
    let n_kv = s.n_embd / s.n_head * s.n_head_kv;
    let mut planned = Vec::new();
    let mut add = |name: String, kind: &str, layer: usize, columns: usize, rows: usize| {
        let tensor_type = if rows == 0 { TensorType::F32 } else { mix.of(kind, layer, s.layers) };
        planned.push(Planned { name: format!("{name}.weight"), tensor_type, columns, rows });
    };
    add("token_embd".into(), "token_embd", 0, s.n_embd, s.n_vocab);
    for i in 0..s.layers {
        for (name, columns, rows) in [
            ("attn_norm", s.n_embd, 0),
            ("attn_q", s.n_embd, s.n_embd),
            ("attn_k", s.n_embd, n_kv),
            ("attn_v", s.n_embd, n_kv),
            ("attn_output", s.n_embd, s.n_embd),
            ("ffn_norm", s.n_embd, 0),
            ("ffn_gate", s.n_embd, s.n_ff),
            ("ffn_up", s.n_embd, s.n_ff),
            ("ffn_down", s.n_ff, s.n_embd),
        ] {
            add(format!("blk.{i}.{name}"), name, i, columns, rows);
        }
    }
    add("output_norm".into(), "output_norm", 0, s.n_embd, 0);
    if !s.tied {
        add("output".into(), "output", 0, s.n_embd, s.n_vocab);
    }
    planned
}

/// GGUF's numbers for the types of metadata that are written here.
const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const I32: u32 = 5;

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_key(out: &mut Vec<u8>, key: &str, kind: u32) {
    put_string(out, key);
    out.extend(kind.to_le_bytes());
}

fn metadata(shape: &Shape) -> (Vec<u8>, u64) {
    let s = *shape;
    let (mut out, mut count) = (Vec::new(), 0u64);
    let texts = [
        ("general.architecture", "llama"),
        ("general.name", "random weights"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "llama-bpe"),
    ];
    for (key, text) in texts {
        put_key(&mut out, key, STRING);
        put_string(&mut out, text);
        count += 1;
    }
    let numbers = [
        ("llama.context_length", 131_072),
        ("llama.embedding_length", s.n_embd),
        ("llama.block_count", s.layers),
        ("llama.feed_forward_length", s.n_ff),
        ("llama.attention.head_count", s.n_head),
        ("llama.attention.head_count_kv", s.n_head_kv),
        ("llama.rope.dimension_count", s.n_embd / s.n_head),
        ("llama.vocab_size", s.n_vocab),
        ("tokenizer.ggml.bos_token_id", 0),
        ("tokenizer.ggml.eos_token_id", 1),
    ];
    for (key, number) in numbers {
        put_key(&mut out, key, U32);
        out.extend((number as u32).to_le_bytes());
        count += 1;
    }
    for (key, number) in [("llama.attention.layer_norm_rms_epsilon", 1e-5f32), ("llama.rope.freq_base", 500_000.0)] {
        put_key(&mut out, key, F32);
        out.extend(number.to_le_bytes());
        count += 1;
    }
    // Tokens: two for control, the 256 bytes as byte-level BPE writes them, numbers for the rest.
    put_key(&mut out, "tokenizer.ggml.tokens", ARRAY);
    out.extend(STRING.to_le_bytes());
    out.extend((s.n_vocab as u64).to_le_bytes());
    let mut bytes = ('!'..='~').chain('\u{a1}'..='\u{ac}').chain('\u{ae}'..='\u{ff}').chain('\u{100}'..='\u{143}');
    for i in 0..s.n_vocab {
        match i {
            0 => put_string(&mut out, "<s>"),
            1 => put_string(&mut out, "</s>"),
            _ => match bytes.next() {
                Some(byte) => put_string(&mut out, &byte.to_string()),
                None => put_string(&mut out, &format!("#{i};")),
            },
        }
    }
    /// What the vocabulary says of a token.
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    put_key(&mut out, "tokenizer.ggml.token_type", ARRAY);
    out.extend(I32.to_le_bytes());
    out.extend((s.n_vocab as u64).to_le_bytes());
    (0..s.n_vocab).for_each(|i| out.extend((if i < 2 { CONTROL } else { NORMAL }).to_le_bytes()));
    put_key(&mut out, "tokenizer.ggml.merges", ARRAY);
    out.extend(STRING.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    (out, count + 3)
}

/// Writes a GGUF file of `shape` with random weights of `mix` to `out`.
pub fn write_model(shape: &Shape, mix: Mix, seed: u64, out: &mut dyn Write) -> Result<()> {
    const ALIGNMENT: u64 = 32;
    let io = |e| Error::io("synthetic model", e);
    let planned = plan(shape, mix);
    let (metadata, count) = metadata(shape);
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((planned.len() as u64).to_le_bytes());
    header.extend(count.to_le_bytes());
    header.extend(metadata);
    let mut offset = 0u64;
    let mut sizes = Vec::with_capacity(planned.len());
    for tensor in &planned {
        let row = tensor.tensor_type.row_bytes(tensor.columns);
        let row = row.ok_or_else(|| {
            Error::argument(format!("{} columns are no whole blocks of {}", tensor.columns, tensor.tensor_type.name()))
        })?;
        put_string(&mut header, &tensor.name);
        let dimensions = if tensor.rows == 0 { vec![tensor.columns] } else { vec![tensor.columns, tensor.rows] };
        header.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|&d| header.extend((d as u64).to_le_bytes()));
        header.extend((tensor.tensor_type as u32).to_le_bytes());
        header.extend(offset.to_le_bytes());
        let bytes = (row * tensor.rows.max(1)) as u64;
        sizes.push(bytes);
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&header).map_err(io)?;
    let mut noise = Noise::new(seed);
    for (tensor, bytes) in planned.iter().zip(sizes) {
        if tensor.rows == 0 {
            let gain: Vec<f32> = (0..tensor.columns).map(|_| 1.0 + 0.1 * noise.float()).collect();
            out.write_all(bytemuck::cast_slice(&gain)).map_err(io)?;
        } else {
            let weights = random_weights(tensor.tensor_type, tensor.rows, tensor.columns, &mut noise)?;
            out.write_all(weights.as_slice()).map_err(io)?;
        }
        let padding = (bytes.next_multiple_of(ALIGNMENT) - bytes) as usize;
        out.write_all(&vec![0; padding]).map_err(io)?;
    }
    out.flush().map_err(io)
}
