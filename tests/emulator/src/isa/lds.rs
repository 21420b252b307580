//! Workgroup memory (LDS), and the lane permutations that its hardware does.

use crate::hip::error::ILLEGAL_ADDRESS;
use crate::inst::{Inst, Versions};
use crate::isa::access::{Space, bounds, load_at, store_at};
use crate::versions;
use crate::wave::{LANES, Wave};

pub struct Local;

/// Lanes' addresses plus an offset.
#[inline(always)]
fn addresses(wave: &Wave, inst: &Inst, offset: u32) -> [u64; LANES] {
    let from = wave.row(inst.src[0]);
    let mut at = [0; LANES];
    for lane in 0..LANES {
        at[lane] = u64::from(from[lane].wrapping_add(offset));
    }
    at
}

#[cold]
fn fail(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize) {
    let len = wave.lds.len;
    let outside = |&lane: &usize| wave.active(lane) && wave.lds.at(at[lane], size).is_none();
    let Some(lane) = (0..LANES).find(outside) else { return };
    let what = format!("access of {size} bytes at {:#x} of workgroup memory by lane {lane}, which has {len}", at[lane]);
    wave.fail(inst, ILLEGAL_ADDRESS, &what);
}

impl Space for Local {
    #[inline(always)]
    fn addresses(wave: &Wave, inst: &Inst) -> [u64; LANES] {
        addresses(wave, inst, inst.imm as u32)
    }

    #[inline(always)]
    fn check(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize) -> bool {
        let (_, high) = bounds(at, wave.exec());
        let fits = wave.exec() == 0 || wave.lds.at(high, size).is_some();
        if !fits {
            fail(wave, inst, at, size);
        }
        fits
    }

    #[inline(always)]
    fn pointer(wave: &Wave, at: u64, _: usize) -> *mut u8 {
        wave.lds.at(at, 0).unwrap_or(std::ptr::null_mut())
    }

    const LINEAR: bool = true;
}

crate::accesses!(Local);
crate::atomics!(Local);

/// Two loads or stores of `WORDS` registers at two offsets from one address.
#[inline(always)]
fn two_loads<const WORDS: usize>(wave: &mut Wave, inst: &Inst) {
    let (first, second) = (addresses(wave, inst, inst.imm as u32), addresses(wave, inst, inst.mask));
    if Local::check(wave, inst, &first, 4 * WORDS) && Local::check(wave, inst, &second, 4 * WORDS) {
        load_at::<Local, WORDS>(wave, inst.dst, &first);
        load_at::<Local, WORDS>(wave, inst.dst + WORDS as u16, &second);
    }
}

#[inline(always)]
fn two_stores<const WORDS: usize>(wave: &mut Wave, inst: &Inst) {
    let (first, second) = (addresses(wave, inst, inst.imm as u32), addresses(wave, inst, inst.mask));
    if Local::check(wave, inst, &first, 4 * WORDS) && Local::check(wave, inst, &second, 4 * WORDS) {
        store_at::<Local, WORDS>(wave, inst, 1, &first);
        store_at::<Local, WORDS>(wave, inst, 3, &second);
    }
}

/// The code of `ds_load_2addr_*` or `ds_store_2addr_*`: whether it loads, its registers a part, and the unit of its
/// offsets in bytes.
pub fn two_addresses(name: &str) -> Option<(Versions, bool, u16, u32)> {
    let (base, stride) = match name {
        _ if name.contains("_stride64") => (name.replace("_stride64", ""), 64),
        _ => (name.to_string(), 1),
    };
    Some(match base.as_str() {
        "ds_load_2addr_b32" => (versions!(|wave, inst| { two_loads::<1>(wave, inst) }), true, 1, 4 * stride),
        "ds_load_2addr_b64" => (versions!(|wave, inst| { two_loads::<2>(wave, inst) }), true, 2, 8 * stride),
        "ds_store_2addr_b32" => (versions!(|wave, inst| { two_stores::<1>(wave, inst) }), false, 1, 4 * stride),
        "ds_store_2addr_b64" => (versions!(|wave, inst| { two_stores::<2>(wave, inst) }), false, 2, 8 * stride),
        _ => return None,
    })
}

/// Each lane gets source 1 of the lane that its source 0 names (in bytes), 0 from inactive ones.
pub static BPERMUTE: Versions = versions!(|wave, inst| {
    let (at, from, exec) = (wave.row(inst.src[0]), wave.row(inst.src[1]), wave.exec());
    let mut out = [0; LANES];
    for lane in 0..LANES {
        let source = (at[lane].wrapping_add(inst.imm as u32) >> 2) as usize % LANES;
        out[lane] = if exec >> source & 1 != 0 { from[source] } else { 0 };
    }
    wave.set_row(inst.dst, &out);
});

/// Each active lane puts its source 1 into the lane that its source 0 names; others get 0.
pub static PERMUTE: Versions = versions!(|wave, inst| {
    let (at, from) = (wave.row(inst.src[0]), wave.row(inst.src[1]));
    let mut out = [0; LANES];
    for lane in (0..LANES).filter(|&lane| wave.exec() >> lane & 1 != 0) {
        out[(at[lane].wrapping_add(inst.imm as u32) >> 2) as usize % LANES] = from[lane];
    }
    wave.set_row(inst.dst, &out);
});

/// A permutation that the offset encodes: of four lanes if bit 15 is set, else `((lane & and) | or) ^ xor`; offsets
/// from 0xc000 on rotate all lanes.
pub static SWIZZLE: Versions = versions!(|wave, inst| {
    let (offset, from, exec) = (inst.imm as usize, wave.row(inst.src[0]), wave.exec());
    let mut out = [0; LANES];
    for lane in 0..LANES {
        let source = if offset >= 0xc000 {
            let (keep, by) = (offset & 31, offset >> 5 & 31);
            let turned = if offset >> 10 & 1 != 0 { lane + LANES - by } else { lane + by };
            lane & keep | turned & !keep & 31
        } else if offset >> 15 != 0 {
            lane & !3 | offset >> (2 * (lane & 3)) & 3
        } else {
            (lane & offset & 31 | offset >> 5 & 31) ^ (offset >> 10 & 31)
        };
        out[lane] = if exec >> source & 1 != 0 { from[source] } else { 0 };
    }
    wave.set_row(inst.dst, &out);
});
