//! The state of one wave: 32 lanes that share a program counter.

use std::sync::Arc;

use crate::inst::{EXEC, Inst, NULL, Src};
use crate::memory::Memory;
use crate::object::Program;

pub const LANES: usize = 32;
/// 256 VGPRs, and the extra rows that lowered instructions use; a power of two, so that indices are checked by a mask.
pub const ROWS: usize = 512;

/// A register of all lanes.
pub type Vgpr = [u32; LANES];

/// Why a wave does not run on at once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Stop {
    Running,
    /// It waits for others and says so (`s_sleep`): its slice ends.
    Yields,
    AtBarrier,
    Ended,
    Failed,
}

/// What ended a launch.
#[derive(Clone, Debug)]
pub struct Fault {
    /// A `hipError_t`.
    pub code: i32,
    pub message: String,
}

/// A workgroup's local memory, shared by its waves, which all run on one host thread.
#[derive(Clone, Copy)]
pub struct Lds {
    base: *mut u8,
    pub len: usize,
}

impl Lds {
    /// `bytes` must outlive every access through the result, and nothing else may use them meanwhile.
    pub fn new(bytes: &mut [u8]) -> Lds {
        Lds { base: bytes.as_mut_ptr(), len: bytes.len() }
    }

    /// The address of `size` bytes at `at`, if they lie inside.
    #[inline(always)]
    pub fn at(self, at: u64, size: usize) -> Option<*mut u8> {
        // SAFETY: the sum stays inside of the allocation.
        (at + size as u64 <= self.len as u64).then(|| unsafe { self.base.add(at as usize) })
    }
}

/// Lets this host thread's SSE and AVX instructions take subnormal numbers for zero, as sources and as results. The
/// interpreter's arithmetic then does what the device's does; f64, whose mode is another on the device, does so as well.
#[cfg(target_arch = "x86_64")]
pub fn set_host_flushing(flushing: bool) {
    const FLUSH_TO_ZERO: u32 = 1 << 15;
    const DENORMALS_ARE_ZERO: u32 = 1 << 6;
    let mut control = 0u32;
    // SAFETY: only these two bits of MXCSR change, and `launch` puts them back before anything else runs.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack));
        control &= !(FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
        control |= if flushing { FLUSH_TO_ZERO | DENORMALS_ARE_ZERO } else { 0 };
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack));
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub fn set_host_flushing(_: bool) {}

pub struct Wave {
    pub v: Box<[Vgpr; ROWS]>,
    pub s: [u32; 128],
    pub scc: bool,
    /// Index of the next instruction.
    pub pc: usize,
    pub stop: Stop,
    pub fault: Option<Fault>,
    /// Whether f32 takes subnormal numbers for zero.
    pub flushing: bool,
    /// EXEC as it was before a DPP instruction left lanes out.
    pub saved_exec: u32,
    pub lds: Lds,
    /// Private memory, lane after lane.
    pub scratch: Vec<u8>,
    pub scratch_per_lane: u32,
    pub memory: Memory,
    pub program: Arc<Program>,
    /// Where the code object's image begins.
    pub image: u64,
    /// What messages call this wave's kernel.
    pub kernel: Arc<str>,
    pub workgroup: [u32; 3],
}

impl Wave {
    /// Whether f32 takes subnormal numbers for zero from now on.
    pub fn set_flushing(&mut self, flushing: bool) {
        self.flushing = flushing;
        set_host_flushing(flushing);
    }

    #[inline(always)]
    pub fn exec(&self) -> u32 {
        self.s[EXEC as usize]
    }

    /// Whether lane `lane` is active.
    #[inline(always)]
    pub fn active(&self, lane: usize) -> bool {
        self.exec() >> lane & 1 != 0
    }

    #[inline(always)]
    pub fn set_s(&mut self, register: u8, value: u32) {
        self.s[register as usize & 127] = value;
        self.s[NULL as usize] = 0;
    }

    #[inline(always)]
    pub fn set_s64(&mut self, register: u8, value: u64) {
        self.set_s(register, value as u32);
        if register != NULL {
            self.set_s(register + 1, (value >> 32) as u32);
        }
    }

    #[inline(always)]
    pub fn s64(&self, register: u8) -> u64 {
        let at = register as usize & 127;
        let high = if register == NULL { 0 } else { self.s[(at + 1) & 127] };
        u64::from(self.s[at]) | u64::from(high) << 32
    }

    /// A scalar source; VGPRs are none.
    #[inline(always)]
    pub fn scalar(&self, src: Src) -> u32 {
        match src {
            Src::S(n) => self.s[n as usize & 127],
            Src::K(k) => k as u32,
            Src::V(n) => self.v[n as usize % ROWS][0],
        }
    }

    #[inline(always)]
    pub fn scalar64(&self, src: Src) -> u64 {
        match src {
            Src::S(n) => self.s64(n),
            Src::K(k) => k,
            Src::V(_) => 0,
        }
    }

    /// A 32-bit source in every lane.
    #[inline(always)]
    pub fn row(&self, src: Src) -> Vgpr {
        match src {
            Src::V(n) => self.v[n as usize % ROWS],
            Src::S(n) => [self.s[n as usize & 127]; LANES],
            Src::K(k) => [k as u32; LANES],
        }
    }

    /// The row after that of `src`: the high half of a 64-bit source.
    #[inline(always)]
    pub fn high_row(&self, src: Src) -> Vgpr {
        match src {
            Src::V(n) => self.v[(n as usize + 1) % ROWS],
            Src::S(n) => [(self.s64(n) >> 32) as u32; LANES],
            Src::K(k) => [(k >> 32) as u32; LANES],
        }
    }

    /// Writes a VGPR where lanes are active.
    #[inline(always)]
    pub fn set_row(&mut self, register: u16, value: &Vgpr) {
        let exec = self.exec();
        let row = &mut self.v[register as usize % ROWS];
        if exec == u32::MAX {
            *row = *value;
        } else {
            for lane in 0..LANES {
                row[lane] = if exec >> lane & 1 != 0 { value[lane] } else { row[lane] };
            }
        }
    }

    /// Writes the half of a VGPR where lanes are active; `value` holds 16 bits a lane.
    #[inline(always)]
    pub fn set_half_row(&mut self, register: u16, high: bool, value: &Vgpr) {
        let mut whole = self.v[register as usize % ROWS];
        for lane in 0..LANES {
            let (old, new) = (whole[lane], value[lane]);
            whole[lane] = if high { old & 0xffff | new << 16 } else { old & 0xffff_0000 | new & 0xffff };
        }
        self.set_row(register, &whole);
    }

    /// Ends this wave, and its launch, with an error.
    #[cold]
    pub fn fail(&mut self, inst: &Inst, code: i32, what: &str) {
        let [x, y, z] = self.workgroup;
        let line = self.program.line(inst);
        let message = format!("{what}, in kernel {} at {line}, workgroup {x},{y},{z}", self.kernel);
        self.stop = Stop::Failed;
        self.fault = Some(Fault { code, message });
    }
}
