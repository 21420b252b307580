//! From a line of disassembly to the instructions that the interpreter runs.
//!
//! Whatever is not understood is an error that names it: nothing is skipped.

use crate::disassemble::Line;
use crate::inst::{DPP_ROW, DUAL_ROW, EXEC, Exec, Inst, Row, Slot, Src, Ty, VCC};
use crate::isa::access::{Access, Does};
use crate::isa::cross::dpp_done;
use crate::isa::{self, flow, global, lds, scratch};
use crate::operand::{Modifiers, Text, integer, sgpr, source, vgpr};

/// Where execution goes on after an instruction, as far as its text shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    Following,
    /// A branch to this address, or on if it has a condition.
    Branch {
        target: u64,
        conditional: bool,
    },
    /// The end, or a jump through a register.
    Nowhere,
}

pub struct Decoded {
    /// One line can become several instructions.
    pub insts: Vec<Inst>,
    pub next: Next,
}

/// Decodes line number `number`.
pub fn decode(line: &Line, number: u32) -> Result<Decoded, String> {
    let name = line.text.split_whitespace().next().unwrap_or("");
    if let Some((first, second)) = line.text.split_once("::") {
        let (first, second) = (half(first.trim(), number)?, half(second.trim(), number)?);
        return Ok(Decoded { insts: dual(first, second), next: Next::Following });
    }
    if let Some(run) = flow::branch(name) {
        let word = line.words.first().copied().ok_or("a branch without an encoding")?;
        let target = (line.address + 4).wrapping_add_signed(4 * i64::from(word as u16 as i16));
        let inst = Inst { imm: target as i64, ..Inst::new(run, number) };
        return Ok(Decoded { insts: vec![inst], next: Next::Branch { target, conditional: name != "s_branch" } });
    }
    if let Some(run) = flow::simple(name) {
        // A trap ends the launch: what follows it is for the hardware's trap handler.
        let next = if matches!(name, "s_endpgm" | "s_trap") { Next::Nowhere } else { Next::Following };
        return Ok(Decoded { insts: vec![Inst::new(run, number)], next });
    }
    let text = Text::parse(&line.text);
    if let Some((run, writes, reads)) = flow::jumps(name) {
        return jump(&text, run, (writes, reads), line, number);
    }
    let insts = match name {
        _ if name.starts_with("s_load_") => vec![scalar_load(&text, number)?],
        "s_sendmsg_rtn_b64" if line.text.contains("MSG_RTN_GET_REALTIME") => {
            let first = text.operands.first().ok_or("no operands")?;
            vec![Inst { sdst: sgpr(first, 2)?, ..Inst::new(flow::CLOCK.pick(), number) }]
        }
        _ if name.starts_with("ds_") => vec![local(&text, line, number)?],
        _ if name.starts_with("global_") || name.starts_with("flat_") => vec![global_access(&text, number)?],
        _ if name.starts_with("scratch_") => vec![scratch_access(&text, number)?],
        _ => arithmetic(&text, number)?,
    };
    Ok(Decoded { insts, next: Next::Following })
}

/// The instruction of a mnemonic without the suffix of its encoding, and whether it writes EXEC instead of a mask.
fn find_row(mnemonic: &str, clamp: bool) -> Result<(&'static Row, bool), String> {
    let name = ["_e64_dpp", "_dpp", "_e32", "_e64"].iter().find_map(|suffix| mnemonic.strip_suffix(suffix));
    let name = name.unwrap_or(mnemonic);
    let (name, to_exec) = match name.strip_prefix("v_cmpx_") {
        Some(rest) => (format!("v_cmp_{rest}"), true),
        None => (name.to_string(), false),
    };
    let row = isa::row(&name).ok_or("unknown instruction")?;
    let is_float = row.slots.iter().any(|slot| {
        matches!(slot, Slot::Dst(ty) | Slot::DstSrc(ty)
        if ty.is_float() || *ty == Ty::PackedF16)
    });
    if clamp && !is_float {
        // Integers saturate, which is an instruction of its own here.
        let saturating = isa::row(&format!("{name}_clamp")).ok_or("modifier clamp")?;
        return Ok((saturating, to_exec));
    }
    Ok((row, to_exec))
}

/// Whether an instruction's encoding is VOP3P, whose selects have no bit for the result.
fn is_packed(name: &str) -> bool {
    let prefixes = ["v_pk_", "v_dot", "v_wmma", "v_fma_mix"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) && !matches!(name, "v_dot2_f16_f16" | "v_dot2_bf16_bf16")
}

fn arithmetic(text: &Text, number: u32) -> Result<Vec<Inst>, String> {
    let modifiers = Modifiers::parse(&text.modifiers)?;
    if modifiers.offset != 0 || modifiers.offsets != [0; 2] || modifiers.glc {
        return Err("modifier of a memory instruction".into());
    }
    let (row, to_exec) = find_row(text.mnemonic, modifiers.clamp)?;
    let mut inst = Inst::new(row.code.pick(), number);
    let packed = is_packed(row.name);
    inst.neg = modifiers.neg_lo;
    inst.neg_hi = modifiers.neg_hi;
    inst.clamp = modifiers.clamp;
    inst.omod = modifiers.omod;
    inst.op_sel_hi = modifiers.op_sel_hi.unwrap_or(if row.name.starts_with("v_fma_mix") { 0 } else { 7 });
    select_halves(&mut inst, row, packed, modifiers.op_sel.unwrap_or(0))?;
    if !packed && (modifiers.neg_lo | modifiers.neg_hi != 0 || modifiers.op_sel_hi.is_some()) {
        return Err("modifier of a packed instruction".into());
    }
    if modifiers.omod != 0 && !matches!(row.slots[0], Slot::Dst(Ty::F32 | Ty::F16) | Slot::DstSrc(Ty::F32 | Ty::F16)) {
        return Err("modifier omod".into());
    }
    fill(&mut inst, row, text, to_exec)?;
    let Some(dpp) = modifiers.dpp else { return Ok(vec![inst]) };
    if to_exec || !matches!(inst.src[0], Src::V(_)) {
        return Err("form of DPP".into());
    }
    let fetch = dpp.fetch(inst.src[0], number);
    inst.src[0] = Src::V(DPP_ROW);
    Ok(vec![fetch, inst, dpp_done(number)])
}

/// Sets which halves of 16-bit operands are meant.
fn select_halves(inst: &mut Inst, row: &Row, packed: bool, op_sel: u8) -> Result<(), String> {
    let sources = row.slots.iter().filter(|slot| matches!(slot, Slot::Src(_))).count();
    if packed || row.name.starts_with("v_permlane") {
        inst.op_sel = op_sel;
        return Ok(());
    }
    inst.op_sel = op_sel & ((1 << sources) - 1);
    inst.dst_hi = op_sel >> sources & 1 != 0;
    let short = |slot: &Slot| {
        matches!(slot, Slot::Dst(ty) | Slot::DstSrc(ty) | Slot::Src(ty)
        if matches!(ty, Ty::B16 | Ty::F16))
    };
    if op_sel != 0 && !row.slots.iter().any(short) {
        return Err("modifier op_sel".into());
    }
    if inst.dst_hi && matches!(row.slots[0], Slot::DstSrc(_)) {
        inst.op_sel |= 1 << sources; // the old value is that of the half that is written
    }
    Ok(())
}

/// Fills an instruction's operands in the order of its row's slots.
fn fill(inst: &mut Inst, row: &Row, text: &Text, to_exec: bool) -> Result<(), String> {
    let mut operands = text.operands.iter();
    let mut next = || operands.next().copied().ok_or("too few operands");
    let (mut sources, mut accumulator) = (0, None);
    for slot in row.slots {
        match *slot {
            Slot::Dst(ty) => inst.dst = vgpr(next()?, ty.registers())?,
            Slot::DstSrc(ty) => {
                inst.dst = vgpr(next()?, ty.registers())?;
                accumulator = Some(inst.dst);
            }
            Slot::SDst(_) if to_exec => inst.sdst = EXEC,
            Slot::SDst(ty) => inst.sdst = sgpr(next()?, ty.registers())?,
            Slot::Imm => inst.imm = integer(next()?)?,
            Slot::Src(ty) => {
                let half = ty == Ty::Mixed && inst.op_sel_hi >> sources & 1 != 0;
                let (src, neg, abs) = source(next()?, ty).and_then(|parsed| match parsed {
                    (Src::K(_), ..) if half => source(text.operands[sources + 1], Ty::F16),
                    parsed => Ok(parsed),
                })?;
                inst.src[sources] = src;
                inst.neg |= u8::from(neg) << sources;
                inst.abs |= u8::from(abs) << sources;
                sources += 1;
            }
            Slot::MaskSrc => {
                inst.src[sources] = next().map_or(Ok(Src::S(VCC)), |mask| Ok::<_, String>(Src::S(sgpr(mask, 1)?)))?;
                sources += 1;
            }
        }
    }
    if let Some(register) = accumulator {
        inst.src[sources] = Src::V(register);
    }
    match operands.next() {
        Some(extra) => Err(format!("operand {extra}")),
        None => Ok(()),
    }
}

/// One half of a dual instruction.
fn half(text: &str, number: u32) -> Result<Inst, String> {
    let single = text.replacen("v_dual_", "v_", 1);
    let mut insts = arithmetic(&Text::parse(&single), number)?;
    match insts.pop() {
        Some(inst) if insts.is_empty() => Ok(inst),
        _ => Err("form of a dual instruction".into()),
    }
}

/// Two instructions that read before either writes, as a sequence.
fn dual(first: Inst, second: Inst) -> Vec<Inst> {
    let reads = |inst: &Inst, register: u16| inst.src.contains(&Src::V(register));
    if !reads(&second, first.dst) {
        return vec![first, second];
    }
    if !reads(&first, second.dst) {
        return vec![second, first];
    }
    // Each reads what the other writes: the first one's result waits in a row of its own.
    let mut late = Inst::new(isa::row("v_mov_b32").expect("in the table").code.pick(), first.line);
    late.dst = first.dst;
    late.src[0] = Src::V(DUAL_ROW);
    vec![Inst { dst: DUAL_ROW, ..first }, second, late]
}

fn jump(text: &Text, run: Exec, (writes, reads): (bool, bool), line: &Line, number: u32) -> Result<Decoded, String> {
    let mut inst = Inst { imm: (line.address + line.size()) as i64, ..Inst::new(run, number) };
    let mut operands = text.operands.iter();
    if writes {
        inst.sdst = sgpr(operands.next().ok_or("too few operands")?, 2)?;
    }
    if reads {
        inst.src[0] = source(operands.next().ok_or("too few operands")?, Ty::B64)?.0;
    }
    let next = if reads && !writes { Next::Nowhere } else { Next::Following };
    Ok(Decoded { insts: vec![inst], next })
}

fn scalar_load(text: &Text, number: u32) -> Result<Inst, String> {
    let modifiers = Modifiers::parse(&text.modifiers)?;
    let (code, registers) = global::scalar(text.mnemonic).ok_or("unknown instruction")?;
    let [dst, base, offset] = text.operands[..] else { return Err("number of operands".into()) };
    let mut inst = Inst::new(code.pick(), number);
    inst.sdst = sgpr(dst, registers)?;
    inst.src[0] = Src::S(sgpr(base, 2)?);
    inst.imm = modifiers.offset;
    match integer(offset) {
        Ok(offset) => inst.imm += offset,
        Err(_) => inst.src[1] = source(offset, Ty::B32)?.0,
    }
    Ok(inst)
}

/// The data operands of an access: sources 1 and 3.
fn set_data(inst: &mut Inst, access: &Access, text: &str, packed_compare: bool) -> Result<(), String> {
    let registers = access.registers * if packed_compare { 2 } else { 1 };
    let first = vgpr(text, registers)?;
    inst.src[1] = Src::V(first);
    if packed_compare {
        inst.src[3] = Src::V(first + access.registers);
    }
    Ok(())
}

fn global_access(text: &Text, number: u32) -> Result<Inst, String> {
    let modifiers = Modifiers::parse(&text.modifiers)?;
    let (space, rest) = text.mnemonic.split_once('_').ok_or("unknown instruction")?;
    let is_flat = space == "flat";
    let access = match (rest.strip_prefix("atomic_"), is_flat) {
        (Some(operation), false) => global::direct::atomic(operation),
        (Some(operation), true) => global::generic::atomic(operation),
        (None, false) => global::direct::load_store(rest),
        (None, true) => global::generic::load_store(rest),
    };
    let access = access.ok_or("unknown instruction")?;
    let mut inst = Inst::new(access.code.pick(), number);
    inst.imm = modifiers.offset;
    let is_atomic = matches!(access.does, Does::Atomic | Does::CompareSwap);
    inst.returns = is_atomic && modifiers.glc;
    let mut operands = text.operands.iter().copied();
    let mut next = || operands.next().ok_or("too few operands");
    if access.does == Does::Load || inst.returns {
        inst.dst = vgpr(next()?, access.registers)?;
    }
    let address = next()?;
    if access.does != Does::Load {
        set_data(&mut inst, &access, next()?, access.does == Does::CompareSwap)?;
    }
    let base = if is_flat { "off" } else { next()? };
    if base == "off" {
        inst.src[0] = Src::V(vgpr(address, 2)?);
    } else {
        inst.src[0] = Src::V(vgpr(address, 1)?);
        inst.src[2] = Src::S(sgpr(base, 2)?);
    }
    operands.next().map_or(Ok(inst), |extra| Err(format!("operand {extra}")))
}

fn scratch_access(text: &Text, number: u32) -> Result<Inst, String> {
    let modifiers = Modifiers::parse(&text.modifiers)?;
    let rest = text.mnemonic.strip_prefix("scratch_").ok_or("unknown instruction")?;
    let access = scratch::load_store(rest).ok_or("unknown instruction")?;
    let mut inst = Inst::new(access.code.pick(), number);
    inst.imm = modifiers.offset;
    let [first, second, base] = text.operands[..] else { return Err("number of operands".into()) };
    let address = if access.does == Does::Load {
        inst.dst = vgpr(first, access.registers)?;
        second
    } else {
        set_data(&mut inst, &access, second, false)?;
        first
    };
    if address != "off" {
        inst.src[0] = Src::V(vgpr(address, 1)?);
    }
    if base != "off" {
        inst.src[2] = Src::S(sgpr(base, 1)?);
    }
    Ok(inst)
}

fn local(text: &Text, line: &Line, number: u32) -> Result<Inst, String> {
    let modifiers = Modifiers::parse(&text.modifiers)?;
    let name = text.mnemonic;
    let permutation = match name {
        "ds_bpermute_b32" => Some(lds::BPERMUTE),
        "ds_permute_b32" => Some(lds::PERMUTE),
        "ds_swizzle_b32" => Some(lds::SWIZZLE),
        _ => None,
    };
    if let Some(code) = permutation {
        let mut inst = Inst::new(code.pick(), number);
        // The offset fields of the encoding, which the text of a swizzle spells out.
        inst.imm = i64::from(line.words.first().copied().unwrap_or(0) & 0xffff);
        inst.dst = vgpr(text.operands.first().ok_or("too few operands")?, 1)?;
        for (k, operand) in text.operands[1..].iter().enumerate() {
            inst.src[k] = Src::V(vgpr(operand, 1)?);
        }
        return Ok(inst);
    }
    if name == "ds_nop" {
        return Ok(Inst::new(flow::simple("s_nop").expect("in the list"), number));
    }
    if let Some((code, loads, registers, unit)) = lds::two_addresses(name) {
        let mut inst = Inst::new(code.pick(), number);
        inst.imm = i64::from(modifiers.offsets[0] * unit);
        inst.mask = modifiers.offsets[1] * unit;
        match (&text.operands[..], loads) {
            (&[dst, address], true) => {
                inst.dst = vgpr(dst, 2 * registers)?;
                inst.src[0] = Src::V(vgpr(address, 1)?);
            }
            (&[address, first, second], false) => {
                inst.src[0] = Src::V(vgpr(address, 1)?);
                inst.src[1] = Src::V(vgpr(first, registers)?);
                inst.src[3] = Src::V(vgpr(second, registers)?);
            }
            _ => return Err("number of operands".into()),
        }
        return Ok(inst);
    }
    local_access(text, &modifiers, number)
}

fn local_access(text: &Text, modifiers: &Modifiers, number: u32) -> Result<Inst, String> {
    let rest = text.mnemonic.strip_prefix("ds_").ok_or("unknown instruction")?;
    let returns = rest.contains("_rtn");
    let operation = rest.replace("_rtn", "").replace("cmpstore", "cmpswap").replace("storexchg", "swap");
    let access = lds::load_store(rest).or_else(|| lds::atomic(&operation)).ok_or("unknown instruction")?;
    let mut inst = Inst::new(access.code.pick(), number);
    inst.imm = modifiers.offset;
    inst.returns = returns;
    let mut operands = text.operands.iter().copied();
    let mut next = || operands.next().ok_or("too few operands");
    if access.does == Does::Load || returns {
        inst.dst = vgpr(next()?, access.registers)?;
    }
    inst.src[0] = Src::V(vgpr(next()?, 1)?);
    if access.does != Does::Load {
        set_data(&mut inst, &access, next()?, false)?;
    }
    if access.does == Does::CompareSwap {
        inst.src[3] = Src::V(vgpr(next()?, access.registers)?);
    }
    operands.next().map_or(Ok(inst), |extra| Err(format!("operand {extra}")))
}
