//! Loads, stores and atomics, written once for every address space.
//!
//! A [`Space`] says how lanes' addresses are made and checked. All lanes are checked before any is served, so that a
//! failing instruction has done nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::inst::Inst;
use crate::wave::{LANES, ROWS, Wave};

/// An address space.
pub trait Space {
    /// Every lane's address; those of inactive lanes mean nothing.
    fn addresses(wave: &Wave, inst: &Inst) -> [u64; LANES];

    /// Whether active lanes may access `size` bytes at their addresses. Fails the wave if one may not.
    fn check(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: usize) -> bool;

    /// The memory at an address that was checked.
    fn pointer(wave: &Wave, at: u64, lane: usize) -> *mut u8;

    /// Whether neighbouring addresses of different lanes are neighbouring memory.
    const LINEAR: bool;
}

/// The smallest and the largest address of active lanes; the first is the larger one if there is none.
#[inline(always)]
pub fn bounds(at: &[u64; LANES], exec: u32) -> (u64, u64) {
    let (mut low, mut high) = (i64::MAX, i64::MIN);
    for lane in 0..LANES {
        let active = exec >> lane & 1 != 0;
        low = low.min(if active { at[lane] as i64 } else { i64::MAX });
        high = high.max(if active { at[lane] as i64 } else { i64::MIN });
    }
    (low as u64, high as u64)
}

/// Whether lane `l` is at the first lane's address plus `size` times `l`.
#[inline(always)]
fn is_contiguous(at: &[u64; LANES], size: u64) -> bool {
    let mut differs = 0;
    for lane in 0..LANES {
        differs |= at[lane] ^ at[0].wrapping_add(lane as u64 * size);
    }
    differs == 0
}

/// A little-endian word at any alignment; one that is aligned is read at once, as other workgroups may write it.
///
/// # Safety
/// The four bytes must have been checked.
#[inline(always)]
pub unsafe fn read_word(from: *const u8) -> u32 {
    // SAFETY: the caller's promise; concurrent writers are the emulated program's races.
    unsafe {
        if from.cast::<u32>().is_aligned() {
            from.cast::<u32>().read_volatile()
        } else {
            from.cast::<u32>().read_unaligned()
        }
    }
}

/// # Safety
/// As [`read_word`].
#[inline(always)]
unsafe fn write_word(to: *mut u8, word: u32) {
    // SAFETY: as in `read_word`.
    unsafe {
        if to.cast::<u32>().is_aligned() {
            to.cast::<u32>().write_volatile(word);
        } else {
            to.cast::<u32>().write_unaligned(word);
        }
    }
}

/// Loads `WORDS` whole registers.
#[inline(always)]
pub fn load<S: Space, const WORDS: usize>(wave: &mut Wave, inst: &Inst) {
    let at = S::addresses(wave, inst);
    if !S::check(wave, inst, &at, 4 * WORDS) {
        return;
    }
    load_at::<S, WORDS>(wave, inst.dst, &at);
}

#[inline(always)]
pub fn load_at<S: Space, const WORDS: usize>(wave: &mut Wave, dst: u16, at: &[u64; LANES]) {
    let exec = wave.exec();
    if S::LINEAR && WORDS == 1 && exec == u32::MAX && is_contiguous(at, 4) {
        let from = S::pointer(wave, at[0], 0);
        // SAFETY: every lane's word was checked, and they lie one after the other.
        wave.v[dst as usize % ROWS] = unsafe { from.cast::<[u32; LANES]>().read_unaligned() };
        return;
    }
    let mut out = [[0; LANES]; WORDS];
    for lane in 0..LANES {
        if exec >> lane & 1 != 0 {
            let from = S::pointer(wave, at[lane], lane);
            for (word, out) in out.iter_mut().enumerate() {
                // SAFETY: this lane's bytes were checked.
                out[lane] = unsafe { read_word(from.add(4 * word)) };
            }
        }
    }
    for (word, out) in out.iter().enumerate() {
        wave.set_row(dst + word as u16, out);
    }
}

/// Loads `BYTES` (1 or 2) bytes a lane and puts what `finish` makes of them and of the register's old value there.
#[inline(always)]
pub fn load_part<S: Space, const BYTES: usize>(wave: &mut Wave, inst: &Inst, finish: impl Fn(u32, u32) -> u32) {
    let at = S::addresses(wave, inst);
    if !S::check(wave, inst, &at, BYTES) {
        return;
    }
    let (exec, mut out) = (wave.exec(), wave.v[inst.dst as usize % ROWS]);
    for lane in 0..LANES {
        if exec >> lane & 1 != 0 {
            let from = S::pointer(wave, at[lane], lane);
            // SAFETY: this lane's bytes were checked.
            let value = unsafe {
                if BYTES == 1 {
                    u32::from(from.read_volatile())
                } else {
                    u32::from(from.cast::<u16>().read_unaligned())
                }
            };
            out[lane] = finish(value, out[lane]);
        }
    }
    wave.v[inst.dst as usize % ROWS] = out;
}

/// Stores `WORDS` whole registers, from source 1 on.
#[inline(always)]
pub fn store<S: Space, const WORDS: usize>(wave: &mut Wave, inst: &Inst) {
    let at = S::addresses(wave, inst);
    if S::check(wave, inst, &at, 4 * WORDS) {
        store_at::<S, WORDS>(wave, inst, 1, &at);
    }
}

#[inline(always)]
pub fn store_at<S: Space, const WORDS: usize>(wave: &mut Wave, inst: &Inst, k: usize, at: &[u64; LANES]) {
    let crate::inst::Src::V(first) = inst.src[k] else { return };
    let exec = wave.exec();
    for lane in 0..LANES {
        if exec >> lane & 1 != 0 {
            let to = S::pointer(wave, at[lane], lane);
            for word in 0..WORDS {
                // SAFETY: this lane's bytes were checked.
                unsafe { write_word(to.add(4 * word), wave.v[(first as usize + word) % ROWS][lane]) };
            }
        }
    }
}

/// Stores `BYTES` (1 or 2) bytes of each lane, from the low or the high half of source 1.
#[inline(always)]
pub fn store_part<S: Space, const BYTES: usize>(wave: &mut Wave, inst: &Inst, shift: u32) {
    let at = S::addresses(wave, inst);
    if !S::check(wave, inst, &at, BYTES) {
        return;
    }
    let (exec, from) = (wave.exec(), wave.row(inst.src[1]));
    for lane in 0..LANES {
        if exec >> lane & 1 != 0 {
            let (to, value) = (S::pointer(wave, at[lane], lane), from[lane] >> shift);
            // SAFETY: this lane's bytes were checked.
            unsafe {
                if BYTES == 1 { to.write_volatile(value as u8) } else { to.cast::<u16>().write_unaligned(value as u16) }
            }
        }
    }
}

/// Fails the wave if an active lane's address is no multiple of `size`: atomics need that.
fn check_alignment(wave: &mut Wave, inst: &Inst, at: &[u64; LANES], size: u64) -> bool {
    let odd = (0..LANES).find(|&lane| wave.active(lane) && !at[lane].is_multiple_of(size));
    if let Some(lane) = odd {
        let what = format!("a misaligned atomic at {:#x} by lane {lane}", at[lane]);
        wave.fail(inst, crate::hip::error::LAUNCH_FAILURE, &what);
    }
    odd.is_none()
}

/// A 32-bit read-modify-write in each active lane, one after the other: `update` gets the old value, source 1 and
/// source `3`, which is a comparison's operand.
#[inline(always)]
pub fn atomic<S: Space>(wave: &mut Wave, inst: &Inst, update: impl Fn(u32, u32, u32) -> u32) {
    let at = S::addresses(wave, inst);
    if !S::check(wave, inst, &at, 4) || !check_alignment(wave, inst, &at, 4) {
        return;
    }
    let (data, compare, mut out) = (wave.row(inst.src[1]), wave.row(inst.src[3]), [0; LANES]);
    for lane in (0..LANES).filter(|&lane| wave.exec() >> lane & 1 != 0) {
        // SAFETY: this lane's bytes were checked, and are aligned.
        let cell = unsafe { AtomicU32::from_ptr(S::pointer(wave, at[lane], lane).cast()) };
        let next = |old| Some(update(old, data[lane], compare[lane]));
        out[lane] = match cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) {
            Ok(old) | Err(old) => old,
        };
    }
    if inst.returns {
        wave.set_row(inst.dst, &out);
    }
}

/// As [`atomic`], with 64 bits.
#[inline(always)]
pub fn atomic64<S: Space>(wave: &mut Wave, inst: &Inst, update: impl Fn(u64, u64, u64) -> u64) {
    let at = S::addresses(wave, inst);
    if !S::check(wave, inst, &at, 8) || !check_alignment(wave, inst, &at, 8) {
        return;
    }
    let wide = |k: usize| (wave.row(inst.src[k]), wave.high_row(inst.src[k]));
    let ((low, high), (compare_low, compare_high)) = (wide(1), wide(3));
    let mut out = [[0; LANES]; 2];
    for lane in (0..LANES).filter(|&lane| wave.exec() >> lane & 1 != 0) {
        let data = u64::from(low[lane]) | u64::from(high[lane]) << 32;
        let compare = u64::from(compare_low[lane]) | u64::from(compare_high[lane]) << 32;
        // SAFETY: this lane's bytes were checked, and are aligned.
        let cell = unsafe { AtomicU64::from_ptr(S::pointer(wave, at[lane], lane).cast()) };
        let old = match cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(update(old, data, compare))) {
            Ok(old) | Err(old) => old,
        };
        out[0][lane] = old as u32;
        out[1][lane] = (old >> 32) as u32;
    }
    if inst.returns {
        wave.set_row(inst.dst, &out[0]);
        wave.set_row(inst.dst + 1, &out[1]);
    }
}

/// What a memory instruction does, as the decoder needs to know it.
#[derive(Clone, Copy)]
pub struct Access {
    pub code: crate::inst::Versions,
    /// Registers of a load's or atomic's result and of the data of a store or atomic.
    pub registers: u16,
    pub does: Does,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Does {
    Load,
    Store,
    Atomic,
    /// An atomic with a second operand, which it compares with.
    CompareSwap,
}

/// Defines `load_store(suffix)` and `atomic(suffix)` of one address space: what `global_`, `ds_` and so on stand before.
#[macro_export]
macro_rules! accesses {
    ($space:ident) => {
        /// What the load or store of this name (without the space's prefix) does.
        pub fn load_store(suffix: &str) -> Option<$crate::isa::access::Access> {
            use $crate::isa::access::{Access, Does, load, load_part, store, store_part};
            macro_rules! row {
                ($does:ident $registers:literal, $call:expr) => {
                    Access {
                        code: $crate::versions!(|wave, inst| { ($call)(wave, inst) }),
                        registers: $registers,
                        does: Does::$does,
                    }
                };
            }
            use $crate::inst::Inst;
            use $crate::wave::Wave;
            Some(match suffix {
                "load_b32" => row!(Load 1, load::<$space, 1>),
                "load_b64" => row!(Load 2, load::<$space, 2>),
                "load_b96" => row!(Load 3, load::<$space, 3>),
                "load_b128" => row!(Load 4, load::<$space, 4>),
                "load_u8" => row!(Load 1, |w: &mut Wave, i: &Inst| load_part::<$space, 1>(w, i, |x, _| x)),
                "load_i8" => row!(Load 1, |w: &mut Wave, i: &Inst| load_part::<$space, 1>(w, i, |x, _| x as i8 as u32)),
                "load_u16" => row!(Load 1, |w: &mut Wave, i: &Inst| load_part::<$space, 2>(w, i, |x, _| x)),
                "load_i16" => row!(Load 1, |w: &mut Wave, i: &Inst| load_part::<$space, 2>(w, i, |x, _| x as i16 as u32)),
                "load_d16_u8" | "load_u8_d16" => row!(Load 1, |w: &mut Wave, i: &Inst| {
                    load_part::<$space, 1>(w, i, |x, old| old & 0xffff_0000 | x)
                }),
                "load_d16_i8" | "load_i8_d16" => row!(Load 1, |w: &mut Wave, i: &Inst| {
                    load_part::<$space, 1>(w, i, |x, old| old & 0xffff_0000 | x as i8 as u32 & 0xffff)
                }),
                "load_d16_b16" | "load_u16_d16" => row!(Load 1, |w: &mut Wave, i: &Inst| {
                    load_part::<$space, 2>(w, i, |x, old| old & 0xffff_0000 | x)
                }),
                "load_d16_hi_u8" | "load_u8_d16_hi" => row!(Load 1, |w: &mut Wave, i: &Inst| {
                    load_part::<$space, 1>(w, i, |x, old| old & 0xffff | x << 16)
                }),
                "load_d16_hi_i8" | "load_i8_d16_hi" => row!(Load 1, |w: &mut Wave, i: &Inst| {
                    load_part::<$space, 1>(w, i, |x, old| old & 0xffff | (x as i8 as u32) << 16)
                }),
                "load_d16_hi_b16" | "load_u16_d16_hi" => row!(Load 1, |w: &mut Wave, i: &Inst| {
                    load_part::<$space, 2>(w, i, |x, old| old & 0xffff | x << 16)
                }),
                "store_b32" => row!(Store 1, store::<$space, 1>),
                "store_b64" => row!(Store 2, store::<$space, 2>),
                "store_b96" => row!(Store 3, store::<$space, 3>),
                "store_b128" => row!(Store 4, store::<$space, 4>),
                "store_b8" => row!(Store 1, |w: &mut Wave, i: &Inst| store_part::<$space, 1>(w, i, 0)),
                "store_b16" => row!(Store 1, |w: &mut Wave, i: &Inst| store_part::<$space, 2>(w, i, 0)),
                "store_d16_hi_b8" | "store_b8_d16_hi" => {
                    row!(Store 1, |w: &mut Wave, i: &Inst| store_part::<$space, 1>(w, i, 16))
                }
                "store_d16_hi_b16" | "store_b16_d16_hi" => {
                    row!(Store 1, |w: &mut Wave, i: &Inst| store_part::<$space, 2>(w, i, 16))
                }
                _ => return None,
            })
        }
    };
}

/// Defines `atomic(operation)` of one address space.
#[macro_export]
macro_rules! atomics {
    ($space:ident) => {
        /// What the atomic of this name (without the space's prefix) does.
        pub fn atomic(operation: &str) -> Option<$crate::isa::access::Access> {
            use $crate::isa::access::{Access, Does, atomic, atomic64};
            use $crate::isa::float::{max, min};
            macro_rules! row {
                ($run:ident $does:ident $registers:literal, |$old:ident, $data:ident, $compare:ident| $new:expr) => {{
                    fn run(wave: &mut $crate::wave::Wave, inst: &$crate::inst::Inst) {
                        $run::<$space>(wave, inst, |$old, $data, $compare| $new);
                    }
                    let code = $crate::inst::Versions { portable: run, avx2: run };
                    Access { code, registers: $registers, does: Does::$does }
                }};
                (32 |$old:ident, $data:ident| $new:expr) => { row!(atomic Atomic 1, |$old, $data, _c| $new) };
                (64 |$old:ident, $data:ident| $new:expr) => { row!(atomic64 Atomic 2, |$old, $data, _c| $new) };
                (float $function:expr) => {
                    row!(32 |old, x| ($function)(f32::from_bits(old), f32::from_bits(x)).to_bits())
                };
            }
            Some(match operation {
                "add_u32" => row!(32 |old, x| old.wrapping_add(x)),
                "sub_u32" => row!(32 |old, x| old.wrapping_sub(x)),
                "swap_b32" => row!(32 |_old, x| x),
                "min_u32" => row!(32 |old, x| old.min(x)),
                "max_u32" => row!(32 |old, x| old.max(x)),
                "min_i32" => row!(32 |old, x| (old as i32).min(x as i32) as u32),
                "max_i32" => row!(32 |old, x| (old as i32).max(x as i32) as u32),
                "and_b32" => row!(32 |old, x| old & x),
                "or_b32" => row!(32 |old, x| old | x),
                "xor_b32" => row!(32 |old, x| old ^ x),
                "inc_u32" => row!(32 |old, x| if old >= x { 0 } else { old + 1 }),
                "dec_u32" => row!(32 |old, x| if old == 0 || old > x { x } else { old - 1 }),
                "csub_u32" => row!(32 |old, x| old.saturating_sub(x)),
                "add_f32" => row!(float |a: f32, b: f32| a + b),
                "min_f32" => row!(float min),
                "max_f32" => row!(float max),
                "cmpswap_b32" => row!(atomic CompareSwap 1, |old, x, compare| if old == compare { x } else { old }),
                "add_u64" => row!(64 |old, x| old.wrapping_add(x)),
                "sub_u64" => row!(64 |old, x| old.wrapping_sub(x)),
                "swap_b64" => row!(64 |_old, x| x),
                "min_u64" => row!(64 |old, x| old.min(x)),
                "max_u64" => row!(64 |old, x| old.max(x)),
                "min_i64" => row!(64 |old, x| (old as i64).min(x as i64) as u64),
                "max_i64" => row!(64 |old, x| (old as i64).max(x as i64) as u64),
                "and_b64" => row!(64 |old, x| old & x),
                "or_b64" => row!(64 |old, x| old | x),
                "xor_b64" => row!(64 |old, x| old ^ x),
                "inc_u64" => row!(64 |old, x| if old >= x { 0 } else { old + 1 }),
                "dec_u64" => row!(64 |old, x| if old == 0 || old > x { x } else { old - 1 }),
                "cmpswap_b64" => row!(atomic64 CompareSwap 2, |old, x, compare| if old == compare { x } else { old }),
                _ => return None,
            })
        }
    };
}
