//! Tensor types: one table row each (id, name, elements and bytes of a block), and the scalar decode of each,
//! which is the oracle that every faster kernel is tested against.
//!
//! Adding a format is one row here, one block struct in [`blocks`] and one function in [`decode`].

pub mod blocks;
pub mod decode;

/// Elements of a super-block of the K and IQ formats.
pub const QK_K: usize = 256;

macro_rules! tensor_types {
    ($($id:literal $name:ident $elements:literal $bytes:literal $decode:expr;)*) => {
        /// The type of a tensor's elements, with ggml's ids and names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, missing_docs)]
        #[repr(u32)]
        pub enum TensorType { $($name = $id,)* }

        /// One row for each tensor type that ggml numbers today.
        pub static FORMATS: &[Format] = &[$(Format {
            tensor_type: TensorType::$name,
            name: stringify!($name),
            block_elements: $elements,
            block_bytes: $bytes,
            decode: $decode,
        },)*];
    };
}

/// Decodes whole blocks: `bytes.len()` is a multiple of the block's bytes, `out` has their elements.
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
//  id  name     elements bytes decode
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
}

impl TensorType {
    /// The type with ggml's `id`, if it is known.
    pub fn from_id(id: u32) -> Option<TensorType> {
        FORMATS.iter().find(|f| f.tensor_type as u32 == id).map(|f| f.tensor_type)
    }

    /// The row of the table.
    pub fn format(self) -> &'static Format {
        static UNKNOWN: Format =
            Format { tensor_type: TensorType::F32, name: "?", block_elements: 1, block_bytes: 4, decode: None };
        FORMATS.iter().find(|f| f.tensor_type == self).unwrap_or(&UNKNOWN)
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        self.format().name
    }

    /// Bytes of a row of `elements`; `None` if it is no whole number of blocks or overflows.
    pub fn row_bytes(self, elements: usize) -> Option<usize> {
        let f = self.format();
        if elements % f.block_elements != 0 {
            return None;
        }
        (elements / f.block_elements).checked_mul(f.block_bytes)
    }

    /// The first block of `bytes` with a scale, minimum or element that is not finite.
    pub fn first_non_finite_scale(self, bytes: &[u8]) -> Option<usize> {
        // Offsets of the half-precision scales of a block.
        let scales: &[usize] = match self {
            TensorType::F16 | TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => &[0],
            TensorType::IQ4_NL | TensorType::IQ4_XS => &[0],
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
            TensorType::Q2_K => &[80, 82],
            TensorType::Q3_K => &[108],
            TensorType::Q6_K => &[208],
            TensorType::F32 => return bytes.chunks_exact(4).position(|b| b[2] & 0x80 != 0 && b[3] & 0x7f == 0x7f),
            TensorType::BF16 => return bytes.chunks_exact(2).position(|b| b[0] & 0x80 != 0 && b[1] & 0x7f == 0x7f),
            _ => return None,
        };
        // All exponent bits set: infinite, or not a number.
        let damaged = |block: &[u8], at: usize| block.get(at + 1).is_some_and(|high| high & 0x7c == 0x7c);
        bytes.chunks_exact(self.format().block_bytes).position(|block| scales.iter().any(|&at| damaged(block, at)))
    }
}
