//! Code objects: kernels with their descriptors and metadata, the image to load, and the decoded program.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::decode::{Next, decode};
use crate::disassemble::{Disassembly, Line, disassemble};
use crate::elf::{Bytes, Elf};
use crate::inst::Inst;
use crate::isa::flow;
use crate::msgpack::Value;

/// The architecture that is interpreted.
pub const ARCH: &str = "gfx1100";

/// `NT_AMDGPU_METADATA`
const METADATA: u32 = 32;

/// `EF_AMDGPU_MACH` of the architectures that are told apart.
const MACHINES: &[(u32, &str)] = &[
    (0x2c, "gfx900"),
    (0x2f, "gfx906"),
    (0x30, "gfx908"),
    (0x36, "gfx1030"),
    (0x37, "gfx1031"),
    (0x38, "gfx1032"),
    (0x39, "gfx1033"),
    (0x3e, "gfx1034"),
    (0x3d, "gfx1035"),
    (0x45, "gfx1036"),
    (0x3f, "gfx90a"),
    (0x40, "gfx940"),
    (0x4b, "gfx941"),
    (0x4c, "gfx942"),
    (0x4f, "gfx950"),
    (0x41, "gfx1100"),
    (0x46, "gfx1101"),
    (0x47, "gfx1102"),
    (0x44, "gfx1103"),
    (0x43, "gfx1150"),
    (0x4a, "gfx1151"),
    (0x55, "gfx1152"),
    (0x48, "gfx1200"),
    (0x4e, "gfx1201"),
];

/// An argument as the metadata lists it.
#[derive(Debug, Clone)]
pub struct Argument {
    pub offset: u32,
    pub size: u32,
    /// `by_value`, `global_buffer`, `hidden_block_count_x`, …
    pub kind: String,
}

impl Argument {
    /// Whether the runtime fills it, not the caller.
    pub fn is_hidden(&self) -> bool {
        self.kind.starts_with("hidden_")
    }
}

/// A kernel: what its descriptor and its metadata say.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub name: Arc<str>,
    /// Address of its first instruction in the image.
    pub entry: u64,
    /// Static workgroup memory, private memory of a lane, and arguments, in bytes.
    pub group_bytes: u32,
    pub private_bytes: u32,
    pub argument_bytes: u32,
    pub arguments: Vec<Argument>,
    pub max_threads: u32,
    pub vgprs: u32,
    pub sgprs: u32,
    pub wave_size: u32,
    pub dynamic_stack: bool,
    /// `COMPUTE_PGM_RSRC1` and `2`, and the code properties.
    pub rsrc1: u32,
    pub rsrc2: u32,
    pub properties: u16,
}

impl Kernel {
    /// The modes of rounding (4 bits) and of subnormal numbers (2 bits for f32, 2 for f16 and f64).
    pub fn float_mode(&self) -> (u32, u32) {
        (self.rsrc1 >> 12 & 15, self.rsrc1 >> 16 & 15)
    }

    /// Whether f32 takes subnormal numbers for zero when the kernel starts.
    pub fn flushes(&self) -> bool {
        self.float_mode().1 & 3 == 0
    }
}

/// A parsed code object.
pub struct Object {
    pub arch: String,
    pub kernels: Vec<Arc<Kernel>>,
    pub elf: Elf,
}

impl Object {
    pub fn parse(file: &[u8]) -> Result<Object, String> {
        let elf = Elf::parse(file)?;
        let machine = elf.flags & 0xff;
        let arch = MACHINES.iter().find(|(number, _)| *number == machine);
        let arch = arch.map_or_else(|| format!("machine {machine:#x}"), |(_, name)| name.to_string());
        let note = elf.notes.iter().find(|note| note.kind == METADATA && note.owner.starts_with(b"AMDGPU"));
        let metadata = Value::parse(&note.ok_or("the object has no metadata note")?.description)?;
        let kernels = metadata.list("amdhsa.kernels").iter().map(|kernel| read_kernel(&elf, kernel));
        let kernels = kernels.collect::<Result<Vec<_>, String>>()?;
        Ok(Object { arch, kernels, elf })
    }

    /// The image's size in memory.
    pub fn image_size(&self) -> u64 {
        self.elf.segments.iter().map(|segment| segment.address + segment.size).max().unwrap_or(0)
    }

    /// Lays the segments into `image`, which lies at `base`, and applies relocations.
    pub fn load(&self, image: &mut [u8], base: u64) -> Result<(), String> {
        image.fill(0);
        for segment in &self.elf.segments {
            let at = segment.address as usize;
            image[at..at + segment.bytes.len()].copy_from_slice(&segment.bytes);
        }
        for relocation in &self.elf.relocations {
            const ABS64: u32 = 3;
            const RELATIVE64: u32 = 13;
            let symbol = match relocation.kind {
                RELATIVE64 => 0,
                ABS64 => {
                    let symbol = self.elf.symbols.get(relocation.symbol as usize).filter(|symbol| symbol.defined);
                    symbol.ok_or("a relocation against an undefined symbol")?.address
                }
                kind => return Err(format!("a relocation of kind {kind}")),
            };
            let value = base.wrapping_add(symbol).wrapping_add_signed(relocation.addend);
            let at = relocation.address as usize;
            let target = image.get_mut(at..at.saturating_add(8)).ok_or("a relocation outside of the image")?;
            target.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }
}

fn read_kernel(elf: &Elf, metadata: &Value) -> Result<Arc<Kernel>, String> {
    let name = metadata.text(".name").ok_or("a kernel without a name")?;
    let fail = |what: &str| format!("kernel {name}: {what}");
    let descriptor_name = metadata.text(".symbol").ok_or_else(|| fail("no descriptor is named"))?;
    let symbol = elf.symbols.iter().find(|symbol| symbol.name == descriptor_name && symbol.defined);
    let descriptor = symbol.ok_or_else(|| fail("no descriptor"))?.address;
    let bytes = read_image(elf, descriptor, 64).ok_or_else(|| fail("the descriptor is outside of the image"))?;
    let bytes = Bytes(&bytes);
    let entry = descriptor.wrapping_add(bytes.u64(16)?);
    let argument = |value: &Value| {
        let field = |key: &str| value.int(key).map(|n| n as u32).ok_or_else(|| fail(key));
        let kind = value.text(".value_kind").ok_or_else(|| fail(".value_kind"))?;
        Ok(Argument { offset: field(".offset")?, size: field(".size")?, kind: kind.to_string() })
    };
    let arguments = metadata.list(".args").iter().map(argument).collect::<Result<Vec<_>, String>>()?;
    let argument_bytes = bytes.u32(8)?;
    if arguments.iter().any(|a| u64::from(a.offset) + u64::from(a.size) > u64::from(argument_bytes)) {
        return Err(fail("an argument beyond the argument segment"));
    }
    let count = |key: &str| metadata.int(key).unwrap_or(0) as u32;
    if count(".private_segment_fixed_size") > 1 << 20 {
        return Err(fail("more than a MiB of private memory"));
    }
    Ok(Arc::new(Kernel {
        name: name.into(),
        entry,
        group_bytes: bytes.u32(0)?,
        private_bytes: bytes.u32(4)?,
        argument_bytes,
        arguments,
        max_threads: metadata.int(".max_flat_workgroup_size").unwrap_or(1024) as u32,
        vgprs: count(".vgpr_count"),
        sgprs: count(".sgpr_count"),
        wave_size: metadata.int(".wavefront_size").unwrap_or(64) as u32,
        dynamic_stack: bytes.u16(56)? >> 11 & 1 != 0,
        rsrc1: bytes.u32(48)?,
        rsrc2: bytes.u32(52)?,
        properties: bytes.u16(56)?,
    }))
}

fn read_image(elf: &Elf, address: u64, len: u64) -> Option<Vec<u8>> {
    let segment =
        elf.segments.iter().find(|s| s.address <= address && address + len <= s.address + s.bytes.len() as u64)?;
    let at = (address - segment.address) as usize;
    Some(segment.bytes[at..at + len as usize].to_vec())
}

/// The decoded text of an object.
pub struct Program {
    pub code: Vec<Inst>,
    lines: Vec<Line>,
    /// From addresses in the image to indices of `code`.
    index: HashMap<u64, usize>,
    /// Instructions that no kernel reaches and that are not known either.
    pub unreachable_unknown: usize,
}

impl Program {
    /// Disassembles and decodes `file`. An instruction that a kernel or a function can reach and that is not known is
    /// an error; the message has all of them.
    pub fn build(file: &[u8], object: &Object) -> Result<Program, String> {
        let disassembly = disassemble(file, &object.arch)?;
        let Disassembly { lines, labels } = disassembly;
        let mut program = Program { code: Vec::new(), lines, index: HashMap::new(), unreachable_unknown: 0 };
        let (mut nexts, mut problems) = (Vec::new(), HashMap::new());
        for (number, line) in program.lines.iter().enumerate() {
            program.index.insert(line.address, program.code.len());
            match decode(line, number as u32) {
                Ok(decoded) => {
                    nexts.push(decoded.next);
                    program.code.extend(decoded.insts);
                }
                Err(problem) => {
                    nexts.push(Next::Following);
                    problems.insert(number, problem);
                    program.code.push(Inst::new(flow::unknown, number as u32));
                }
            }
        }
        program.code.push(Inst::new(flow::unknown, program.lines.len() as u32));
        program.resolve_branches(&nexts)?;
        let roots = object.kernels.iter().map(|kernel| kernel.entry).chain(labels);
        let reached = program.reachable(roots, &nexts);
        program.report(&reached, problems)?;
        Ok(program)
    }

    /// Turns branches' addresses into indices.
    fn resolve_branches(&mut self, nexts: &[Next]) -> Result<(), String> {
        for (line, next) in self.lines.iter().zip(nexts) {
            if let Next::Branch { target, .. } = next {
                let index = self.index.get(target).ok_or_else(|| format!("{}: a branch to nowhere", line.text))?;
                let at = self.index[&line.address];
                self.code[at].imm = *index as i64;
            }
        }
        Ok(())
    }

    /// Which lines can be executed, starting at the given addresses.
    fn reachable(&self, roots: impl Iterator<Item = u64>, nexts: &[Next]) -> Vec<bool> {
        let numbers: HashMap<u64, usize> = self.lines.iter().enumerate().map(|(i, line)| (line.address, i)).collect();
        let mut reached = vec![false; self.lines.len()];
        let mut queue: VecDeque<usize> = roots.filter_map(|root| numbers.get(&root).copied()).collect();
        while let Some(at) = queue.pop_front() {
            if at >= reached.len() || std::mem::replace(&mut reached[at], true) {
                continue;
            }
            match nexts[at] {
                Next::Following => queue.push_back(at + 1),
                Next::Nowhere => {}
                Next::Branch { target, conditional } => {
                    queue.extend(numbers.get(&target));
                    if conditional {
                        queue.push_back(at + 1);
                    }
                }
            }
        }
        reached
    }

    fn report(&mut self, reached: &[bool], problems: HashMap<usize, String>) -> Result<(), String> {
        let (reachable, rest): (Vec<_>, Vec<_>) = problems.into_iter().partition(|(number, _)| reached[*number]);
        self.unreachable_unknown = rest.len();
        if reachable.is_empty() {
            return Ok(());
        }
        let describe = |(number, problem): &(usize, String)| format!("`{}`: {problem}", self.lines[*number].text);
        let mut messages: Vec<String> = reachable.iter().map(describe).collect();
        messages.sort();
        messages.dedup();
        Err(format!(
            "{} lines of machine code that the emulator does not know:\n{}",
            messages.len(),
            messages.join("\n")
        ))
    }

    pub fn index_at(&self, address: u64) -> Option<usize> {
        self.index.get(&address).copied()
    }

    /// An instruction's place and text, for messages.
    pub fn line(&self, inst: &Inst) -> String {
        match self.lines.get(inst.line as usize) {
            Some(line) => format!("{:#x} `{}`", line.address, line.text),
            None => "the end of the code".into(),
        }
    }

    /// The distinct mnemonics of the program.
    pub fn mnemonics(&self) -> std::collections::BTreeSet<&str> {
        self.lines.iter().filter_map(|line| line.text.split_whitespace().next()).collect()
    }
}
