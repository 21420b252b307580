//! Tensor types: one table row each (id, name, elements and bytes of a block), and the scalar decode of each,
//! which is the oracle that every faster kernel is tested against.
//!
//! Adding a format is one row here, one block struct in [`blocks`] and one function in [`decode`].

pub mod blocks;
pub mod decode;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};

pub use blocks::QK_K;

macro_rules! tensor_types {
    ($($id:literal $name:ident $elements:literal $bytes:literal $decode:expr;)*) => {
        /// The type of a tensor's elements, with ggml's ids and names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, missing_docs)]
        #[repr(u32)]
        pub enum TensorType { $($name = $id,)* }

        /// One row for each tensor type that ggml numbers today, by rising id.
        pub static FORMATS: &[Format] = &[$(*TensorType::$name.format(),)*];

        impl TensorType {
            /// The type with ggml's `id`, if it is known.
            pub const fn from_id(id: u32) -> Option<TensorType> {
                match id {
                    $($id => Some(TensorType::$name),)*
                    _ => None,
                }
            }

            /// The row of the table.
            pub const fn format(self) -> &'static Format {
                match self {
                    $(TensorType::$name => const { &Format {
                        tensor_type: TensorType::$name,
                        name: stringify!($name),
                        block_elements: $elements,
                        block_bytes: $bytes,
                        decode: $decode,
                    } },)*
                }
            }
        }
    };
}

/// Decodes whole blocks: `bytes.len()` is a multiple of the block's bytes and `out` has exactly their elements.
/// Panics if not; `bytes` needs no alignment.
pub type Decode = fn(bytes: &[u8], out: &mut [f32]);

/// What is known of a tensor type.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The type.
    pub tensor_type: TensorType,
    /// ggml's name.
    pub name: &'static str,
    /// Elements of one block; rows are whole blocks.
    pub block_elements: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
    /// The scalar decode; a type without one is refused by its name at load.
    pub decode: Option<Decode>,
}

tensor_types! {
//  id  name     elements bytes decode         (ids 4, 5, 31–33 and 36–38 were ggml's once and are gone from files)
    0   F32      1   4   Some(decode::f32);
    1   F16      1   2   Some(decode::f16);
    2   Q4_0     32  18  Some(decode::q4_0);
    3   Q4_1     32  20  Some(decode::q4_1);
    6   Q5_0     32  22  Some(decode::q5_0);
    7   Q5_1     32  24  Some(decode::q5_1);
    8   Q8_0     32  34  Some(decode::q8_0);
    9   Q8_1     32  36  None;
    10  Q2_K     256 84  Some(decode::q2_k);
    11  Q3_K     256 110 Some(decode::q3_k);
    12  Q4_K     256 144 Some(decode::q4_k);
    13  Q5_K     256 176 Some(decode::q5_k);
    14  Q6_K     256 210 Some(decode::q6_k);
    15  Q8_K     256 292 None;
    16  IQ2_XXS  256 66  None;
    17  IQ2_XS   256 74  None;
    18  IQ3_XXS  256 98  None;
    19  IQ1_S    256 50  None;
    20  IQ4_NL   32  18  Some(decode::iq4_nl);
    21  IQ3_S    256 110 None;
    22  IQ2_S    256 82  None;
    23  IQ4_XS   256 136 Some(decode::iq4_xs);
    24  I8       1   1   None;
    25  I16      1   2   None;
    26  I32      1   4   None;
    27  I64      1   8   None;
    28  F64      1   8   None;
    29  IQ1_M    256 56  None;
    30  BF16     1   2   Some(decode::bf16);
    34  TQ1_0    256 54  None;
    35  TQ2_0    256 66  None;
    39  MXFP4    32  17  Some(decode::mxfp4);
    40  NVFP4    64  36  None;
    41  Q1_0     128 18  None;
    42  Q2_0     64  18  None;
}

impl TensorType {
    /// ggml's name.
    pub const fn name(self) -> &'static str {
        self.format().name
    }

    /// Bytes of a row of `elements`; `None` if it is no whole number of blocks or overflows.
    pub fn row_bytes(self, elements: usize) -> Option<usize> {
        let f = self.format();
        if !elements.is_multiple_of(f.block_elements) {
            return None;
        }
        (elements / f.block_elements).checked_mul(f.block_bytes)
    }

    /// The scalar decode, or the error that refuses `tensor` of `file` by the name of its type.
    pub fn decoder(self, file: &str, tensor: &str) -> Result<Decode> {
        self.format().decode.ok_or_else(|| {
            let served: Vec<_> = FORMATS.iter().filter(|f| f.decode.is_some()).map(|f| f.name).collect();
            let what = format!(
                "tensor '{tensor}' has type {}, which is not supported; supported types are {}",
                self.name(),
                served.join(", ")
            );
            Error::unsupported(file, what)
        })
    }

    /// The first block of `bytes` with a scale, minimum or element that is not finite.
    pub fn first_non_finite_scale(self, bytes: &[u8]) -> Option<usize> {
        // Offsets of the half-precision scales of a block.
        let scales: &[usize] = match self {
            TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => &[0],
            TensorType::IQ4_NL | TensorType::IQ4_XS => &[0],
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
            TensorType::Q2_K => &[80, 82],
            TensorType::Q3_K => &[108],
            TensorType::Q6_K => &[208],
            TensorType::F32 => return first(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
            TensorType::F16 => return first(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
            TensorType::BF16 => return first(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
            // The E8M0 scale that stands for "not a number".
            TensorType::MXFP4 => return bytes.chunks_exact(17).position(|b| b[0] == 0xff),
            _ => return None,
        };
        // All exponent bits set: infinite, or not a number.
        let damaged = |block: &[u8], at: usize| block.get(at + 1).is_some_and(|high| high & 0x7c == 0x7c);
        bytes.chunks_exact(self.format().block_bytes).position(|block| scales.iter().any(|&at| damaged(block, at)))
    }
}

/// The first element of `bytes` that is `damaged`. All of a chunk are asked before one is looked for, which vectors can do.
fn first<const N: usize>(bytes: &[u8], damaged: impl Fn([u8; N]) -> bool) -> Option<usize> {
    const CHUNK: usize = 512;
    let elements = bytes.as_chunks::<N>().0;
    let chunk = elements.chunks(CHUNK).position(|chunk| chunk.iter().fold(false, |any, &e| any | damaged(e)))?;
    elements.iter().skip(chunk * CHUNK).position(|&e| damaged(e)).map(|i| chunk * CHUNK + i)
}
