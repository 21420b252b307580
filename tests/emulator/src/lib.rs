//! An interpreter of gfx1100 machine code behind the functions of HIP's runtime, for tests on machines without an AMD
//! card.
//!
//! ```text
//! hipModuleLoadData: elf, msgpack → object (kernels) → disassemble (llvm-objdump) → decode → inst
//! hipModuleLaunchKernel: hip::kernel → launch (workgroups, turns of waves) → isa (what instructions do) over wave
//! ```
//!
//! README.md says what this can show and what it cannot.

#![allow(non_snake_case)] // HIP's own names
#![allow(clippy::missing_safety_doc)] // HIP documents its functions
#![allow(clippy::needless_range_loop)] // loops over lanes index several arrays at once
#![allow(clippy::precedence)] // shifts and masks, as instruction sets write them

pub mod decode;
pub mod disassemble;
pub mod elf;
pub mod hip;
pub mod inst;
pub mod isa;
pub mod lane;
pub mod launch;
pub mod memory;
pub mod msgpack;
pub mod object;
pub mod operand;
pub mod random;
pub mod wave;
