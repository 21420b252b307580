//! Global and generic ("flat") memory, and scalar loads.

use crate::hip::error::ILLEGAL_ADDRESS;
use crate::inst::{Inst, Src, Versions};
use crate::isa::access::{Space, bounds, read_word};
use crate::memory::{PRIVATE_BASE, SHARED_BASE};
use crate::versions;
use crate::wave::{LANES, Wave};

/// Addresses of `global_*` and `flat_*`: a 64-bit VGPR pair, or an SGPR pair plus a 32-bit VGPR; plus an offset.
#[inline(always)]
fn addresses(wave: &Wave, inst: &Inst) -> [u64; LANES] {
    let low = wave.row(inst.src[0]);
    let mut at = [0; LANES];
    if let Src::S(base) = inst.src[2] {
        let base = wave.s64(base).wrapping_add(inst.imm as u64);
        for lane in 0..LANES {
            at[lane] = base.wrapping_add(u64::from(low[lane]));
        }
    } else {
        let high = wave.high_row(inst.src[0]);
        for lane in 0..LANES {
            at[lane] = (u64::from(low[lane]) | u64::from(high[lane]) << 32).wrapping_add(inst.imm as u64);
        }
    }
    at
}

#[cold]
fn fail(wave: &mut Wave, inst: &Inst, at: u64, size: usize, lane: usize) {
    let near = wave.memory.describe(at);
    wave.fail(inst, ILLEGAL_ADDRESS, &format!("access of {size} bytes at {at:#x} by lane {lane}, {near}"));
}

/// Whether every lane alone is inside of a range, which need not be the same.
#[cold]
fn check_each(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize, lanes: u32) -> bool {
    for lane in (0..LANES).filter(|&lane| lanes >> lane & 1 != 0) {
        if !wave.memory.allows(at[lane], at[lane].wrapping_add(size as u64)) {
            fail(wave, inst, at[lane], size, lane);
            return false;
        }
    }
    true
}

#[inline(always)]
fn check_lanes(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize, lanes: u32) -> bool {
    let (low, high) = bounds(at, lanes);
    lanes == 0 || wave.memory.allows(low, high.wrapping_add(size as u64)) || check_each(wave, inst, at, size, lanes)
}

pub struct Global;

impl Space for Global {
    #[inline(always)]
    fn addresses(wave: &Wave, inst: &Inst) -> [u64; LANES] {
        addresses(wave, inst)
    }

    #[inline(always)]
    fn check(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize) -> bool {
        let exec = wave.exec();
        check_lanes(wave, inst, at, size, exec)
    }

    #[inline(always)]
    fn pointer(_: &Wave, at: u64, _: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(at as usize)
    }

    const LINEAR: bool = true;
}

/// Addresses that may mean global, workgroup or private memory.
pub struct Flat;

impl Space for Flat {
    fn addresses(wave: &Wave, inst: &Inst) -> [u64; LANES] {
        addresses(wave, inst)
    }

    fn check(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize) -> bool {
        let mut global = wave.exec();
        for lane in (0..LANES).filter(|&lane| wave.active(lane)) {
            let offset = at[lane] & 0xffff_ffff;
            let inside = match (at[lane] >> 32) as u32 {
                SHARED_BASE => wave.lds.at(offset, size).is_some(),
                PRIVATE_BASE => offset + size as u64 <= u64::from(wave.scratch_per_lane),
                _ => continue,
            };
            if !inside {
                fail(wave, inst, at[lane], size, lane);
                return false;
            }
            global &= !(1 << lane);
        }
        check_lanes(wave, inst, at, size, global)
    }

    fn pointer(wave: &Wave, at: u64, lane: usize) -> *mut u8 {
        let offset = at & 0xffff_ffff;
        match (at >> 32) as u32 {
            SHARED_BASE => wave.lds.at(offset, 0).unwrap_or(std::ptr::null_mut()),
            PRIVATE_BASE => super::scratch::pointer(wave, offset, lane),
            _ => Global::pointer(wave, at, lane),
        }
    }

    const LINEAR: bool = false;
}

pub mod direct {
    use super::Global;
    crate::accesses!(Global);
    crate::atomics!(Global);
}

pub mod generic {
    use super::Flat;
    crate::accesses!(Flat);
    crate::atomics!(Flat);
}

/// Loads `N` SGPRs.
#[inline(always)]
fn scalar_load<const N: u8>(wave: &mut Wave, inst: &Inst) {
    // The hardware ignores the low bits of the address.
    let offset = u64::from(wave.scalar(inst.src[1])).wrapping_add(inst.imm as u64);
    let at = wave.scalar64(inst.src[0]).wrapping_add(offset) & !3;
    let size = 4 * u64::from(N);
    if !wave.memory.allows(at, at.wrapping_add(size)) {
        let near = wave.memory.describe(at);
        return wave.fail(inst, ILLEGAL_ADDRESS, &format!("scalar access of {size} bytes at {at:#x}, {near}"));
    }
    for i in 0..N {
        let from = Global::pointer(wave, at + 4 * u64::from(i), 0);
        // SAFETY: the range was checked.
        let word = unsafe { read_word(from) };
        wave.set_s(inst.sdst + i, word);
    }
}

/// The code of a scalar load, and how many SGPRs it loads.
pub fn scalar(name: &str) -> Option<(Versions, u16)> {
    Some(match name {
        "s_load_b32" => (versions!(|wave, inst| { scalar_load::<1>(wave, inst) }), 1),
        "s_load_b64" => (versions!(|wave, inst| { scalar_load::<2>(wave, inst) }), 2),
        "s_load_b128" => (versions!(|wave, inst| { scalar_load::<4>(wave, inst) }), 4),
        "s_load_b256" => (versions!(|wave, inst| { scalar_load::<8>(wave, inst) }), 8),
        "s_load_b512" => (versions!(|wave, inst| { scalar_load::<16>(wave, inst) }), 16),
        _ => return None,
    })
}
