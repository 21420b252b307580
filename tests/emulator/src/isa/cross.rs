//! Vector instructions that move values between lanes, or between lanes and SGPRs; and DPP, which permutes the lanes
//! of an instruction's first source.

use crate::inst::{DPP_ROW, Inst, Row, Slot, Src, Ty};
use crate::lane::{Lane, U32};
use crate::wave::{LANES, Wave};
use crate::{lanewise, versions};

/// The first active lane, 0 if none is.
fn first_lane(exec: u32) -> usize {
    if exec == 0 { 0 } else { exec.trailing_zeros() as usize }
}

/// Bits of `mask` below each lane, added to source 1: a lane's rank, from lane 0 of 64 on.
#[inline(always)]
fn count_below(wave: &mut Wave, inst: &Inst, visible: impl Fn(usize) -> u32) {
    let (mask, base) = (U32::read(wave, inst, 0), U32::read(wave, inst, 1));
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = (mask[lane] & visible(lane)).count_ones().wrapping_add(base[lane]);
    }
    U32::write(wave, inst, &out);
}

/// `v_permlane16` within each row of 16 lanes, `v_permlanex16` from the other row: a lane's nibble of the selector
/// in sources 1 and 2 says where it reads.
#[inline(always)]
fn permute_rows(wave: &mut Wave, inst: &Inst, other: usize) {
    let selector = u64::from(wave.scalar(inst.src[1])) | u64::from(wave.scalar(inst.src[2])) << 32;
    let (fetch_inactive, zero) = (inst.op_sel & 1 != 0, inst.op_sel & 2 != 0);
    let (from, mut out) = (U32::read(wave, inst, 0), wave.row(Src::V(inst.dst)));
    for lane in 0..LANES {
        let source = (lane & 16 ^ other) | (selector >> (4 * (lane & 15)) & 15) as usize;
        if fetch_inactive || wave.active(source) {
            out[lane] = from[source];
        } else if zero {
            out[lane] = 0;
        }
    }
    wave.set_row(inst.dst, &out);
}

const PERMLANE: &[Slot] = &[Slot::Dst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32)];

pub static TABLE: &[Row] = &[
    Row {
        name: "v_readlane_b32",
        slots: &[Slot::SDst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| {
            let lane = wave.scalar(inst.src[1]) as usize % LANES;
            let value = wave.row(inst.src[0])[lane];
            wave.set_s(inst.sdst, value);
        }),
    },
    Row {
        name: "v_readfirstlane_b32",
        slots: &[Slot::SDst(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| {
            let value = wave.row(inst.src[0])[first_lane(wave.exec())];
            wave.set_s(inst.sdst, value);
        }),
    },
    Row {
        name: "v_writelane_b32",
        slots: &[Slot::Dst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| {
            let lane = wave.scalar(inst.src[1]) as usize % LANES;
            wave.v[inst.dst as usize][lane] = wave.scalar(inst.src[0]);
        }),
    },
    Row {
        name: "v_mbcnt_lo_u32_b32",
        slots: &[Slot::Dst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| { count_below(wave, inst, |lane| (1 << lane) - 1) }),
    },
    Row {
        name: "v_mbcnt_hi_u32_b32",
        slots: &[Slot::Dst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| { count_below(wave, inst, |_| 0) }),
    },
    // Exchanges the halves of a wave of 64; one of 32 lanes has only the first.
    Row {
        name: "v_permlane64_b32",
        slots: &[Slot::Dst(Ty::B32), Slot::Src(Ty::B32)],
        code: lanewise!((a: U32) -> U32 = a),
    },
    Row { name: "v_permlane16_b32", slots: PERMLANE, code: versions!(|wave, inst| { permute_rows(wave, inst, 0) }) },
    Row { name: "v_permlanex16_b32", slots: PERMLANE, code: versions!(|wave, inst| { permute_rows(wave, inst, 16) }) },
];

/// How DPP permutes lanes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Permutation {
    /// Two bits for each lane of four.
    Quad(u32),
    /// Three bits for each lane of eight.
    Eight(u32),
    ShiftLeft(u32),
    ShiftRight(u32),
    RotateRight(u32),
    Mirror,
    HalfMirror,
    Share(u32),
    Xor(u32),
}

impl Permutation {
    /// Where `lane` reads, or `None` beyond the end of its row of 16.
    fn source(self, lane: u32) -> Option<u32> {
        let (row, at) = (lane & 16, lane & 15);
        match self {
            Permutation::Quad(select) => Some(lane & !3 | select >> (2 * (lane & 3)) & 3),
            Permutation::Eight(select) => Some(lane & !7 | select >> (3 * (lane & 7)) & 7),
            Permutation::ShiftLeft(n) => (at + n < 16).then_some(lane + n),
            Permutation::ShiftRight(n) => at.checked_sub(n).map(|from| row | from),
            Permutation::RotateRight(n) => Some(row | (at + 16 - n) & 15),
            Permutation::Mirror => Some(row | (15 - at)),
            Permutation::HalfMirror => Some(lane & !7 | (7 - (lane & 7))),
            Permutation::Share(n) => Some(row | n & 15),
            Permutation::Xor(n) => Some(row | (at ^ n) & 15),
        }
    }

    /// The sources of all lanes, a byte each.
    fn table(self) -> [u8; LANES] {
        std::array::from_fn(|lane| self.source(lane as u32).map_or(NOWHERE, |source| source as u8))
    }
}

const NOWHERE: u8 = 255;

/// A DPP instruction is decoded to three: this fetches source 0 into [`DPP_ROW`] and takes away lanes that have
/// nothing to read or are masked out, the instruction itself reads that row, and [`dpp_done`] puts EXEC back.
#[derive(Clone, Copy, Debug)]
pub struct Dpp {
    pub permutation: Permutation,
    pub row_mask: u32,
    pub bank_mask: u32,
    /// Lanes with nothing to read get 0 instead of being left out.
    pub bound_ctrl: bool,
    /// Inactive lanes can be read.
    pub fetch_inactive: bool,
}

impl Dpp {
    /// The instruction that fetches `src`.
    pub fn fetch(self, src: Src, line: u32) -> Inst {
        let table = self.permutation.table();
        let mut enabled = 0u32;
        for lane in 0..LANES {
            let in_masks = self.row_mask >> (lane / 16) & self.bank_mask >> (lane % 16 / 4) & 1 != 0;
            enabled |= u32::from(in_masks) << lane;
        }
        let mut inst = Inst::new(DPP_FETCH.pick(), line);
        // The table travels in the constants of the sources that the fetch does not use.
        let word = |half: usize| u64::from_le_bytes(std::array::from_fn(|i| table[8 * half + i]));
        inst.src = [src, Src::K(word(0)), Src::K(word(1)), Src::K(word(2))];
        inst.imm = word(3) as i64;
        inst.dst = DPP_ROW;
        inst.neg = u8::from(self.bound_ctrl);
        inst.abs = u8::from(self.fetch_inactive);
        inst.mask = enabled;
        inst
    }
}

static DPP_FETCH: crate::inst::Versions = versions!(|wave, inst| {
    let words = [inst.src[1], inst.src[2], inst.src[3], Src::K(inst.imm as u64)];
    let (bound_ctrl, fetch_inactive) = (inst.neg != 0, inst.abs != 0);
    let (exec, from) = (wave.exec(), wave.row(inst.src[0]));
    let mut lanes = inst.mask & exec;
    let mut out = [0; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        let Src::K(word) = words[lane / 8] else { continue };
        let source = (word >> (8 * (lane % 8))) as u8;
        if source != NOWHERE && (fetch_inactive || exec >> source & 1 != 0) {
            *out = from[source as usize];
        } else if !bound_ctrl {
            lanes &= !(1 << lane);
        }
    }
    wave.v[DPP_ROW as usize] = out;
    wave.saved_exec = exec;
    wave.s[crate::inst::EXEC as usize] = lanes;
});

/// The last of a DPP instruction's three.
pub fn dpp_done(line: u32) -> Inst {
    static DONE: crate::inst::Versions =
        versions!(|wave, inst| { wave.s[crate::inst::EXEC as usize] = wave.saved_exec });
    Inst::new(DONE.pick(), line)
}
