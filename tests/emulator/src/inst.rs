//! Decoded instructions, and the rows of the instruction tables from which the decoder makes them.

use crate::wave::Wave;

/// Runs one instruction on one wave.
///
/// It may be called only on a machine that has the features it was compiled for; [`Versions::pick`] sees to that.
pub type Exec = unsafe fn(&mut Wave, &Inst);

/// SGPR numbers with a meaning, as the encoding numbers them.
pub const VCC: u8 = 106;
pub const NULL: u8 = 124;
pub const M0: u8 = 125;
pub const EXEC: u8 = 126;

/// VGPR rows beyond the architecture's 256 that lowered instructions use: the source of a DPP instruction, and the
/// first result of a dual instruction whose halves read each other's results.
pub const DPP_ROW: u16 = 256;
pub const DUAL_ROW: u16 = 258;

/// Where a source operand comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Src {
    /// This VGPR and, for wider types, the following ones.
    V(u16),
    /// This SGPR and, for wider types, the following ones.
    S(u8),
    /// A constant, already in the bits of the operand's type.
    K(u64),
}

/// One decoded instruction. What a field means beyond its name is up to `run`.
#[derive(Clone, Debug)]
pub struct Inst {
    pub run: Exec,
    /// First VGPR written.
    pub dst: u16,
    /// First SGPR written: a scalar result or a lane mask.
    pub sdst: u8,
    pub src: [Src; 4],
    /// A bit for each source: negate, take the absolute value; of packed operands, negate the high half.
    pub neg: u8,
    pub abs: u8,
    pub neg_hi: u8,
    /// A bit for each source: which half a 16-bit operation reads (of packed ones, for the low and the high result).
    pub op_sel: u8,
    pub op_sel_hi: u8,
    /// A 16-bit result goes to the high half.
    pub dst_hi: bool,
    pub clamp: bool,
    /// The result times 2^omod.
    pub omod: i8,
    /// An offset, a branch's target, an immediate.
    pub imm: i64,
    /// Lanes that a DPP instruction's masks let through.
    pub mask: u32,
    /// Memory: whether an atomic returns the old value.
    pub returns: bool,
    /// Which line of the disassembly this is.
    pub line: u32,
}

impl Inst {
    pub fn new(run: Exec, line: u32) -> Inst {
        Inst {
            run,
            dst: 0,
            sdst: NULL,
            src: [Src::K(0); 4],
            neg: 0,
            abs: 0,
            neg_hi: 0,
            op_sel: 0,
            op_sel_hi: 0,
            dst_hi: false,
            clamp: false,
            omod: 0,
            imm: 0,
            mask: u32::MAX,
            returns: false,
            line,
        }
    }

    /// Whether a modifier changes what source `k` reads.
    #[inline(always)]
    pub fn modifies(&self, k: usize) -> bool {
        (self.neg | self.abs) >> k & 1 != 0
    }
}

/// The type of an operand: its width, and how its constants and modifiers are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ty {
    /// 32 bits of no floating-point type.
    B32,
    B64,
    I64,
    F32,
    F64,
    /// 16 bits; `op_sel` says which half.
    B16,
    F16,
    /// Two halves of a VGPR.
    PackedB16,
    PackedF16,
    /// A 32-bit source of a mixed-precision operation, which is f16 where `op_sel_hi` says so.
    Mixed,
    /// So many whole VGPRs.
    Rows(u16),
}

impl Ty {
    /// How many VGPRs or SGPRs an operand takes.
    pub fn registers(self) -> u16 {
        match self {
            Ty::B64 | Ty::I64 | Ty::F64 => 2,
            Ty::Rows(n) => n,
            _ => 1,
        }
    }

    /// Whether `-v0` and `|v0|` mean something.
    pub fn is_float(self) -> bool {
        matches!(self, Ty::F32 | Ty::F64 | Ty::F16 | Ty::Mixed)
    }

    pub fn is_packed(self) -> bool {
        matches!(self, Ty::PackedB16 | Ty::PackedF16)
    }
}

/// An operand of an instruction as the disassembly lists it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    /// The VGPR result.
    Dst(Ty),
    /// The VGPR result, which is also the source after the listed ones.
    DstSrc(Ty),
    /// A scalar result, or a mask with a bit for each lane.
    SDst(Ty),
    Src(Ty),
    /// A mask with a bit for each lane; `vcc` where the disassembly leaves it out.
    MaskSrc,
    /// A 16-bit immediate of a scalar instruction.
    Imm,
}

/// The same instruction compiled for different machines.
#[derive(Clone, Copy)]
pub struct Versions {
    pub portable: Exec,
    pub avx2: Exec,
}

impl Versions {
    pub fn pick(self) -> Exec {
        if has_avx2() { self.avx2 } else { self.portable }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// A row of an instruction table.
pub struct Row {
    /// The mnemonic without the suffix of its encoding.
    pub name: &'static str,
    pub slots: &'static [Slot],
    pub code: Versions,
}

/// Compiles the body of an instruction once for any machine and once for AVX2 and FMA.
#[macro_export]
macro_rules! versions {
    (|$wave:ident, $inst:ident| $body:block) => {{
        #[allow(unused_variables)]
        fn portable($wave: &mut $crate::wave::Wave, $inst: &$crate::inst::Inst) $body
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        #[allow(unused_variables)]
        fn avx2($wave: &mut $crate::wave::Wave, $inst: &$crate::inst::Inst) $body
        #[cfg(not(target_arch = "x86_64"))]
        use portable as avx2;
        $crate::inst::Versions { portable, avx2 }
    }};
}
