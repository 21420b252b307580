//! A GGUF writer and a tiny random llama model, so that tests of the faces and of hostile files need no download.
#![allow(dead_code)] // each test file uses a part

/// A metadata value to write.
#[derive(Clone)]
pub enum V {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    /// A type number and raw bytes.
    Raw(u32, Vec<u8>),
}

/// A tensor to write.
#[derive(Clone)]
pub struct T {
    pub name: String,
    pub dims: Vec<u64>,
    pub type_id: u32,
    /// Offset in the data section; `None`: behind the tensor before it.
    pub offset: Option<u64>,
    pub bytes: Vec<u8>,
}

/// A GGUF file in the making.
#[derive(Clone, Default)]
pub struct Gguf {
    pub metadata: Vec<(String, V)>,
    pub tensors: Vec<T>,
    /// Written instead of the real counts, if set.
    pub claimed_tensors: Option<u64>,
    pub claimed_entries: Option<u64>,
}

const ALIGNMENT: u64 = 32;

fn put_str(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

impl Gguf {
    pub fn set(&mut self, key: &str, value: V) -> &mut Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.to_string(), value));
        self
    }

    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(k, _)| k != key);
        self
    }

    pub fn tensor(&mut self, name: &str) -> &mut T {
        self.tensors.iter_mut().find(|t| t.name == name).expect("a tensor of that name")
    }

    /// The file's bytes, as version 3.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend(self.claimed_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.claimed_entries.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_str(&mut out, key.as_bytes());
            put_value(&mut out, value);
        }
        let mut next = 0u64;
        let mut offsets = Vec::new();
        for t in &self.tensors {
            put_str(&mut out, t.name.as_bytes());
            out.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.type_id.to_le_bytes());
            let offset = t.offset.unwrap_or(next);
            out.extend(offset.to_le_bytes());
            offsets.push(offset);
            next = (offset.wrapping_add(t.bytes.len() as u64)).next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        let data = out.len();
        // A tensor that claims an absurd place is claimed only.
        for (t, offset) in self.tensors.iter().zip(offsets).filter(|(_, offset)| *offset < 1 << 24) {
            let end = data + offset as usize + t.bytes.len();
            out.resize(out.len().max(end), 0);
            out[end - t.bytes.len()..end].copy_from_slice(&t.bytes);
        }
        out
    }
}

fn put_value(out: &mut Vec<u8>, value: &V) {
    let array = |out: &mut Vec<u8>, type_id: u32, n: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(type_id.to_le_bytes());
        out.extend((n as u64).to_le_bytes());
    };
    match value {
        V::U32(v) => {
            out.extend(4u32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        V::F32(v) => {
            out.extend(6u32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        V::Bool(v) => {
            out.extend(7u32.to_le_bytes());
            out.push(u8::from(*v));
        }
        V::Str(v) => {
            out.extend(8u32.to_le_bytes());
            put_str(out, v.as_bytes());
        }
        V::Strs(v) => {
            array(out, 8, v.len());
            v.iter().for_each(|s| put_str(out, s.as_bytes()));
        }
        V::F32s(v) => {
            array(out, 6, v.len());
            v.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        V::I32s(v) => {
            array(out, 5, v.len());
            v.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        V::Raw(type_id, bytes) => {
            out.extend(type_id.to_le_bytes());
            out.extend(bytes);
        }
    }
}

pub const N_EMBD: u64 = 32;
pub const N_FF: u64 = 64;
pub const N_LAYERS: u32 = 2;
pub const CONTEXT: u32 = 128;
/// `<unk>`, `<s>`, `</s>`, the bytes, and a few words.
pub const N_VOCAB: u64 = 3 + 256 + 8;

/// Numbers without meaning that are the same on every run.
fn noise(seed: u64, n: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * scale
        })
        .collect()
}

fn f32_tensor(name: &str, dims: &[u64], values: Vec<f32>) -> T {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    T { name: name.into(), dims: dims.to_vec(), type_id: 0, offset: None, bytes }
}

/// A valid model: llama architecture, float32, SentencePiece vocabulary of bytes and a few words, a chat template.
pub fn llama() -> Gguf {
    let mut g = Gguf::default();
    g.set("general.architecture", V::Str("llama".into()))
        .set("general.name", V::Str("tiny".into()))
        .set("llama.block_count", V::U32(N_LAYERS))
        .set("llama.context_length", V::U32(CONTEXT))
        .set("llama.embedding_length", V::U32(N_EMBD as u32))
        .set("llama.feed_forward_length", V::U32(N_FF as u32))
        .set("llama.attention.head_count", V::U32(4))
        .set("llama.attention.head_count_kv", V::U32(2))
        .set("llama.attention.layer_norm_rms_epsilon", V::F32(1e-5));
    let words = ["▁hello", "▁world", "▁the", "▁a", "lo", "he", "▁", "wor"];
    let mut tokens = vec!["<unk>".to_string(), "<s>".into(), "</s>".into()];
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    tokens.extend(words.map(String::from));
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.extend([1; 8]);
    let mut scores = vec![0.0; 3 + 256];
    scores.extend((0..8).map(|i| -(i as f32)));
    g.set("tokenizer.ggml.model", V::Str("llama".into()))
        .set("tokenizer.ggml.tokens", V::Strs(tokens))
        .set("tokenizer.ggml.scores", V::F32s(scores))
        .set("tokenizer.ggml.token_type", V::I32s(types))
        .set("tokenizer.ggml.bos_token_id", V::U32(1))
        .set("tokenizer.ggml.eos_token_id", V::U32(2))
        .set("tokenizer.ggml.unknown_token_id", V::U32(0))
        .set("tokenizer.ggml.add_bos_token", V::Bool(true))
        .set(
            "tokenizer.chat_template",
            V::Str("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}".into()),
        );
    let mut seed = 0;
    let mut matrix = |name: &str, cols: u64, rows: u64| {
        seed += 1;
        f32_tensor(name, &[cols, rows], noise(seed, cols * rows, 0.3))
    };
    let ones = |name: &str| f32_tensor(name, &[N_EMBD], vec![1.0; N_EMBD as usize]);
    g.tensors.push(matrix("token_embd.weight", N_EMBD, N_VOCAB));
    g.tensors.push(ones("output_norm.weight"));
    g.tensors.push(matrix("output.weight", N_EMBD, N_VOCAB));
    for i in 0..N_LAYERS {
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        g.tensors.push(ones(&name("attn_norm")));
        g.tensors.push(matrix(&name("attn_q"), N_EMBD, N_EMBD));
        g.tensors.push(matrix(&name("attn_k"), N_EMBD, N_EMBD / 2));
        g.tensors.push(matrix(&name("attn_v"), N_EMBD, N_EMBD / 2));
        g.tensors.push(matrix(&name("attn_output"), N_EMBD, N_EMBD));
        g.tensors.push(ones(&name("ffn_norm")));
        g.tensors.push(matrix(&name("ffn_gate"), N_EMBD, N_FF));
        g.tensors.push(matrix(&name("ffn_up"), N_EMBD, N_FF));
        g.tensors.push(matrix(&name("ffn_down"), N_FF, N_EMBD));
    }
    g
}

/// Turns a float32 tensor into Q8_0 with the scale `scale(block)`.
pub fn to_q8_0(t: &mut T, scale: impl Fn(usize) -> u16) {
    let n = t.bytes.len() / 4;
    t.type_id = 8;
    t.bytes = (0..n / 32)
        .flat_map(|block| {
            let mut bytes = scale(block).to_le_bytes().to_vec();
            bytes.extend((0..32u8).map(|i| i.wrapping_mul(7).wrapping_add(block as u8)));
            bytes
        })
        .collect();
}
