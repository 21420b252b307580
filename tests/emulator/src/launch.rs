//! Runs a grid: workgroups over the host's threads, their waves in turns whose order and length a seed decides.
//!
//! A wave runs for a random number of instructions, or until its next barrier, before another has its turn. Kernels that
//! forget a barrier then give different results with different seeds. Everything that is uninitialised on a device
//! starts as garbage here.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::hip::error::LAUNCH_TIMEOUT;
use crate::inst::{EXEC, Inst};
use crate::memory::{Kind, Memory, Range, Ranges};
use crate::object::{Kernel, Program};
use crate::random::Random;
use crate::wave::{Fault, LANES, Lds, ROWS, Stop, Wave, set_host_flushing};

/// The longest turn of a wave, in instructions.
const LONGEST_TURN: u64 = 2000;
/// What a lane's private memory is at least where the compiler could not tell how much is needed.
const DYNAMIC_STACK: u32 = 16 << 10;

/// A kernel to run, with everything it needs.
#[derive(Clone)]
pub struct Launch {
    pub kernel: Arc<Kernel>,
    pub program: Arc<Program>,
    /// Where the code object's image lies.
    pub image: u64,
    /// Workgroups, and threads of each.
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_lds: u32,
    /// The argument segment, without the dispatch packet.
    pub arguments: Vec<u8>,
    /// All workgroups make progress at the same time, so that they may wait for each other.
    pub cooperative: bool,
}

/// How to run it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub seed: u64,
    pub threads: usize,
    /// Instructions after which a launch is given up.
    pub limit: u64,
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

/// The arguments, then the dispatch packet, at addresses that device code sees.
struct Segment(Vec<Line>);

impl Segment {
    fn new(launch: &Launch) -> Segment {
        let packet = packet(launch);
        // A scalar load may read beyond the arguments, but not beyond their cache line.
        let mut lines = vec![Line([0xa5; 64]); launch.arguments.len().div_ceil(64)];
        for (line, bytes) in lines.iter_mut().zip(launch.arguments.chunks(64)) {
            line.0[..bytes.len()].copy_from_slice(bytes);
        }
        lines.push(Line(packet));
        Segment(lines)
    }

    fn address(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    fn end(&self) -> u64 {
        self.address() + 64 * self.0.len() as u64
    }
}

/// `hsa_kernel_dispatch_packet_t`
fn packet(launch: &Launch) -> [u8; 64] {
    let mut packet = [0; 64];
    let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
    put(2, &3u16.to_le_bytes());
    for i in 0..3 {
        put(4 + 2 * i, &(launch.block[i] as u16).to_le_bytes());
        put(12 + 4 * i, &(launch.grid[i].wrapping_mul(launch.block[i])).to_le_bytes());
    }
    put(24, &launch.kernel.private_bytes.to_le_bytes());
    put(28, &(launch.kernel.group_bytes + launch.dynamic_lds).to_le_bytes());
    packet
}

/// What all workgroups of a launch share.
struct Context<'a> {
    launch: &'a Launch,
    settings: Settings,
    memory: Memory,
    arguments: u64,
    packet: u64,
    entry: usize,
    failed: AtomicBool,
    fault: Mutex<Option<Fault>>,
    instructions: AtomicU64,
}

/// Runs `launch` to its end; how many instructions its waves executed.
pub fn run(launch: &Launch, settings: Settings, ranges: &[Range]) -> Result<u64, Fault> {
    let segment = Segment::new(launch);
    let mut ranges = ranges.to_vec();
    let (start, end) = (segment.address(), segment.end());
    ranges.push(Range { start, end, kind: Kind::Arguments });
    let entry = launch.program.index_at(launch.kernel.entry).ok_or_else(|| Fault {
        code: crate::hip::error::INVALID_IMAGE,
        message: format!("kernel {} has no code", launch.kernel.name),
    })?;
    let context = Context {
        launch,
        settings,
        memory: Memory::new(Arc::new(Ranges::new(ranges))),
        arguments: start,
        packet: end - 64,
        entry,
        failed: AtomicBool::new(false),
        fault: Mutex::new(None),
        instructions: AtomicU64::new(0),
    };
    let count = launch.grid.iter().map(|&n| n as usize).product::<usize>();
    let mut order: Vec<u32> = (0..count as u32).collect();
    Random::new(settings.seed).shuffle(&mut order);
    let threads = settings.threads.clamp(1, count.max(1));
    let next = AtomicUsize::new(0);
    let work = |thread: usize| match launch.cooperative {
        true => context.run_together(order.iter().copied().skip(thread).step_by(threads)),
        false => context.run_in_turn(&order, &next),
    };
    if threads == 1 {
        work(0);
    } else {
        std::thread::scope(|scope| {
            for thread in 1..threads {
                let work = &work;
                scope.spawn(move || work(thread));
            }
            work(0);
        });
    }
    let fault = context.fault.lock().unwrap_or_else(|e| e.into_inner()).take();
    fault.map_or(Ok(context.instructions.into_inner()), Err)
}

impl Context<'_> {
    /// One workgroup after the other, taken from a list that the threads share.
    fn run_in_turn(&self, order: &[u32], next: &AtomicUsize) {
        let mut workgroup = None;
        while let Some(&id) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let workgroup = workgroup.get_or_insert_with(|| Workgroup::new(self));
            workgroup.begin(self, id);
            let mut unfinished = true;
            while unfinished && !self.failed.load(Ordering::Relaxed) {
                unfinished = workgroup.turn(self);
            }
            if self.failed.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// All given workgroups in random turns.
    fn run_together(&self, ids: impl Iterator<Item = u32>) {
        let start = |id| {
            let mut workgroup = Workgroup::new(self);
            workgroup.begin(self, id);
            workgroup
        };
        let mut workgroups: Vec<Workgroup> = ids.map(start).collect();
        let mut random = Random::for_part(self.settings.seed, u64::MAX);
        while !workgroups.is_empty() && !self.failed.load(Ordering::Relaxed) {
            let at = random.below(workgroups.len() as u64) as usize;
            if !workgroups[at].turn(self) {
                workgroups.swap_remove(at);
            }
        }
    }

    fn fail(&self, fault: Fault) {
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(fault);
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// A workgroup's waves and memory, used again for the next workgroup.
struct Workgroup {
    waves: Vec<Wave>,
    lds: Vec<u8>,
    random: Random,
}

impl Workgroup {
    fn new(context: &Context) -> Workgroup {
        let launch = context.launch;
        let threads = launch.block.iter().product::<u32>() as usize;
        let mut lds = vec![0; (launch.kernel.group_bytes + launch.dynamic_lds) as usize];
        let window = Lds::new(&mut lds);
        let stack = if launch.kernel.dynamic_stack { DYNAMIC_STACK } else { 0 };
        let per_lane = (launch.kernel.private_bytes + stack).next_multiple_of(16);
        let wave = |_| Wave {
            v: boxed_registers(),
            s: [0; 128],
            scc: false,
            pc: 0,
            stop: Stop::Running,
            fault: None,
            flushing: false,
            saved_exec: 0,
            lds: window,
            scratch: vec![0; per_lane as usize * LANES],
            scratch_per_lane: per_lane,
            memory: context.memory.clone(),
            program: launch.program.clone(),
            image: launch.image,
            kernel: launch.kernel.name.clone(),
            workgroup: [0; 3],
        };
        Workgroup { waves: (0..threads.div_ceil(LANES)).map(wave).collect(), lds, random: Random::new(0) }
    }

    /// Puts everything into the state in which workgroup `id` starts.
    fn begin(&mut self, context: &Context, id: u32) {
        let launch = context.launch;
        let [x, y, _] = launch.grid;
        let place = [id % x, id / x % y, id / x / y];
        self.random = Random::for_part(context.settings.seed, u64::from(id));
        fill_with_garbage(&mut self.lds, &mut self.random);
        let rows = (launch.kernel.vgprs as usize).next_multiple_of(8).clamp(8, 256);
        for (number, wave) in self.waves.iter_mut().enumerate() {
            fill_with_garbage(&mut wave.scratch, &mut self.random);
            for row in &mut wave.v[..rows] {
                let garbage = self.random.next_u64() as u32;
                for (lane, value) in row.iter_mut().enumerate() {
                    *value = garbage ^ (lane as u32).wrapping_mul(0x9e37_79b9);
                }
            }
            for register in &mut wave.s {
                *register = self.random.next_u64() as u32;
            }
            start(wave, context, place, number as u32);
        }
    }

    /// Lets one wave run for a while; whether the workgroup goes on.
    fn turn(&mut self, context: &Context) -> bool {
        let runnable = self.waves.iter().filter(|wave| wave.stop == Stop::Running).count();
        if runnable == 0 {
            let waiting = self.waves.iter_mut().filter(|wave| wave.stop == Stop::AtBarrier);
            return waiting.map(|wave| wave.stop = Stop::Running).count() != 0;
        }
        let chosen = self.random.below(runnable as u64) as usize;
        let wave = self.waves.iter_mut().filter(|wave| wave.stop == Stop::Running).nth(chosen).expect("counted");
        let turn = 1 + self.random.below(LONGEST_TURN);
        let executed = run_for(wave, &context.launch.program.code, turn);
        let total = context.instructions.fetch_add(executed, Ordering::Relaxed);
        if wave.stop == Stop::Yields {
            wave.stop = Stop::Running;
        }
        if let Some(fault) = wave.fault.take() {
            context.fail(fault);
        } else if total > context.settings.limit {
            let message = format!("kernel {} ran for more than {total} instructions", wave.kernel);
            context.fail(Fault { code: LAUNCH_TIMEOUT, message });
        }
        true
    }
}

/// Runs up to `turn` instructions; how many it were.
fn run_for(wave: &mut Wave, code: &[Inst], turn: u64) -> u64 {
    let mut left = turn;
    if wave.flushing {
        set_host_flushing(true);
    }
    while left > 0 {
        let inst = &code[wave.pc];
        wave.pc += 1;
        left -= 1;
        // SAFETY: the decoder picked code that this machine can run.
        unsafe { (inst.run)(wave, inst) };
        if wave.stop != Stop::Running {
            break;
        }
    }
    if wave.flushing {
        set_host_flushing(false);
    }
    turn - left
}

fn boxed_registers() -> Box<[[u32; LANES]; ROWS]> {
    let rows = vec![[0; LANES]; ROWS].into_boxed_slice();
    rows.try_into().expect("as many rows as asked for")
}

fn fill_with_garbage(bytes: &mut [u8], random: &mut Random) {
    let word = random.next_u64().to_le_bytes();
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// The registers that the hardware sets before a wave's first instruction.
fn start(wave: &mut Wave, context: &Context, place: [u32; 3], number: u32) {
    let (launch, kernel) = (context.launch, &context.launch.kernel);
    wave.pc = context.entry;
    wave.stop = Stop::Running;
    wave.scc = false;
    wave.flushing = kernel.flushes();
    wave.workgroup = place;
    wave.set_s(crate::inst::NULL, 0);
    let enabled = |bit: u32| kernel.properties >> bit & 1 != 0;
    // (bit of the code properties, registers, value)
    let user = [
        (0, 4, 0),
        (1, 2, context.packet),
        (2, 2, 0),
        (3, 2, context.arguments),
        (4, 2, 0),
        (5, 2, 0),
        (6, 1, u64::from(kernel.private_bytes)),
    ];
    let mut register = 0;
    for (_, count, value) in user.into_iter().filter(|(bit, ..)| enabled(*bit)) {
        wave.set_s(register, value as u32);
        if count > 1 {
            wave.set_s(register + 1, (value >> 32) as u32);
        }
        register += count;
    }
    // The workgroup's place follows the user registers, of which there may be unused ones.
    let mut register = (kernel.rsrc2 >> 1 & 31) as u8;
    for (axis, at) in place.into_iter().enumerate() {
        if kernel.rsrc2 >> (7 + axis) & 1 != 0 {
            wave.set_s(register, at);
            register += 1;
        }
    }
    let [width, height, depth] = launch.block;
    let (threads, mut exec) = (width * height * depth, 0u32);
    for lane in 0..LANES as u32 {
        let thread = number * LANES as u32 + lane;
        if thread < threads {
            exec |= 1 << lane;
            let at = [thread % width, thread / width % height, thread / width / height];
            wave.v[0][lane as usize] = at[0] | at[1] << 10 | at[2] << 20;
        }
    }
    wave.s[EXEC as usize] = exec;
    wave.s[EXEC as usize + 1] = 0;
}
