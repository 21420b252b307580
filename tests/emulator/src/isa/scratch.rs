//! Private memory: each lane has its own, addressed from 0.

use crate::hip::error::ILLEGAL_ADDRESS;
use crate::inst::{Inst, Src};
use crate::isa::access::Space;
use crate::wave::{LANES, Wave};

/// The memory of `lane` at `offset`, which was checked.
#[inline(always)]
pub fn pointer(wave: &Wave, offset: u64, lane: usize) -> *mut u8 {
    let at = lane * wave.scratch_per_lane as usize + offset as usize;
    // SAFETY: checked offsets are below `scratch_per_lane`, of which there are as many as lanes.
    unsafe { wave.scratch.as_ptr().cast_mut().add(at) }
}

pub struct Private;

impl Space for Private {
    #[inline(always)]
    fn addresses(wave: &Wave, inst: &Inst) -> [u64; LANES] {
        let base = match inst.src[2] {
            Src::S(_) => wave.scalar(inst.src[2]),
            _ => 0,
        };
        let from = wave.row(inst.src[0]);
        let mut at = [0; LANES];
        for lane in 0..LANES {
            at[lane] = u64::from(from[lane].wrapping_add(base).wrapping_add(inst.imm as u32));
        }
        at
    }

    #[inline(always)]
    fn check(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize) -> bool {
        let limit = u64::from(wave.scratch_per_lane);
        for lane in 0..LANES {
            if wave.active(lane) && at[lane] + size as u64 > limit {
                let what =
                    format!("private access of {size} bytes at {:#x} by lane {lane}, which has {limit}", at[lane]);
                wave.fail(inst, ILLEGAL_ADDRESS, &what);
                return false;
            }
        }
        true
    }

    #[inline(always)]
    fn pointer(wave: &Wave, at: u64, lane: usize) -> *mut u8 {
        pointer(wave, at, lane)
    }

    const LINEAR: bool = false;
}

crate::accesses!(Private);
