//! The program counter, barriers, the end; and what an interpreter has nothing to do for.

use crate::hip::error::{LAUNCH_FAILURE, NOT_SUPPORTED};
use crate::inst::{EXEC, Exec, Inst, VCC, Versions};
use crate::wave::{Stop, Wave};

macro_rules! branch {
    (|$wave:ident| $taken:expr) => {{
        fn run($wave: &mut Wave, inst: &Inst) {
            if $taken {
                $wave.pc = inst.imm as usize;
            }
        }
        run
    }};
}

/// The code of a branch, whose target the decoder puts into `imm`.
pub fn branch(name: &str) -> Option<Exec> {
    let run: fn(&mut Wave, &Inst) = match name {
        "s_branch" => branch!(|_wave| true),
        "s_cbranch_scc0" => branch!(|wave| !wave.scc),
        "s_cbranch_scc1" => branch!(|wave| wave.scc),
        "s_cbranch_vccz" => branch!(|wave| wave.s[VCC as usize] == 0),
        "s_cbranch_vccnz" => branch!(|wave| wave.s[VCC as usize] != 0),
        "s_cbranch_execz" => branch!(|wave| wave.s[EXEC as usize] == 0),
        "s_cbranch_execnz" => branch!(|wave| wave.s[EXEC as usize] != 0),
        _ => return None,
    };
    Some(run)
}

/// Instructions without operands that matter.
pub fn simple(name: &str) -> Option<Exec> {
    let run: fn(&mut Wave, &Inst) = match name {
        "s_endpgm" => |wave, _| wave.stop = Stop::Ended,
        "s_barrier" => |wave, _| wave.stop = Stop::AtBarrier,
        "s_sleep" => |wave, _| wave.stop = Stop::Yields,
        "s_trap" => |wave, inst| wave.fail(inst, LAUNCH_FAILURE, "trap"),
        _ if is_nothing(name) => |_, _| (),
        _ => return None,
    };
    Some(run)
}

/// Waits, hints and cache control: memory is coherent here, and results are there at once.
fn is_nothing(name: &str) -> bool {
    const NOTHING: &[&str] = &[
        "s_nop",
        "s_clause",
        "s_delay_alu",
        "s_waitcnt",
        "s_waitcnt_depctr",
        "s_waitcnt_vscnt",
        "s_waitcnt_vmcnt",
        "s_waitcnt_lgkmcnt",
        "s_waitcnt_expcnt",
        "s_wait_idle",
        "s_wait_event",
        "s_sethalt",
        "s_setprio",
        "s_sendmsg",
        "s_set_inst_prefetch_distance",
        "s_icache_inv",
        "s_dcache_inv",
        "s_gl1_inv",
        "s_ttracedata",
        "s_ttracedata_imm",
        "s_version",
        "buffer_gl0_inv",
        "buffer_gl1_inv",
        "v_nop",
    ];
    NOTHING.contains(&name)
}

/// The index of the instruction at `address`, or a failure.
fn jump(wave: &mut Wave, inst: &Inst, address: u64) {
    match wave.program.index_at(address.wrapping_sub(wave.image)) {
        Some(index) => wave.pc = index,
        None => wave.fail(inst, LAUNCH_FAILURE, &format!("jump to {address:#x}, where no instruction is")),
    }
}

/// The address after this instruction; the decoder puts its offset in the image into `imm`.
fn next_address(wave: &Wave, inst: &Inst) -> u64 {
    wave.image.wrapping_add(inst.imm as u64)
}

/// Where the program counter is read or set from SGPRs: `(code, whether it writes SGPRs, whether it reads them)`.
pub fn jumps(name: &str) -> Option<(Exec, bool, bool)> {
    let (run, writes, reads): (fn(&mut Wave, &Inst), bool, bool) = match name {
        "s_getpc_b64" => (
            |wave, inst| {
                let next = next_address(wave, inst);
                wave.set_s64(inst.sdst, next);
            },
            true,
            false,
        ),
        "s_setpc_b64" => (
            |wave, inst| {
                let target = wave.scalar64(inst.src[0]);
                jump(wave, inst, target);
            },
            false,
            true,
        ),
        "s_swappc_b64" => (
            |wave, inst| {
                let (target, next) = (wave.scalar64(inst.src[0]), next_address(wave, inst));
                wave.set_s64(inst.sdst, next);
                jump(wave, inst, target);
            },
            true,
            true,
        ),
        _ => return None,
    };
    Some((run, writes, reads))
}

/// What stands in for an instruction that is not known. Loading a module finds those that a kernel can reach.
pub fn unknown(wave: &mut Wave, inst: &Inst) {
    wave.fail(inst, NOT_SUPPORTED, "unknown instruction");
}

/// The clock: how many instructions this wave has run would do, but a number that always grows is all that is asked.
pub static CLOCK: Versions = crate::versions!(|wave, inst| {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let ticks = START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64;
    wave.set_s64(inst.sdst, ticks);
});
