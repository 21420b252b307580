//! Modules, functions and launches.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use super::device::{COMPUTE_UNITS, LDS_PER_BLOCK, MAX_THREADS};
use super::error::{
    COOPERATIVE_TOO_LARGE, Code, INVALID_CONFIGURATION, INVALID_IMAGE, INVALID_VALUE, LAUNCH_FAILURE,
    NO_BINARY_FOR_GPU, NOT_FOUND,
};
use super::graph::Node;
use super::state::{Handle, Runtime, find, put};
use crate::entries;
use crate::launch::{Launch, run};
use crate::memory::{Kind, PRIVATE_BASE, SHARED_BASE};
use crate::object::{ARCH, Kernel, Object, Program};

/// `hipModule_t`
pub struct Module {
    object: Object,
    program: Arc<Program>,
    /// Address of the loaded image.
    image: u64,
    functions: Vec<Handle>,
}

/// `hipFunction_t`
#[derive(Clone)]
pub struct Function {
    kernel: Arc<Kernel>,
    program: Arc<Program>,
    image: u64,
}

/// The object behind an image pointer, whose length its own header tells.
fn read_image(image: *const c_void) -> Result<Vec<u8>, String> {
    // SAFETY: the caller's image has at least an ELF header.
    let header = unsafe { image.cast::<[u8; 64]>().read_unaligned() };
    let size = crate::elf::file_size(&header)?;
    // SAFETY: the header says that the image is this long.
    Ok(unsafe { std::slice::from_raw_parts(image.cast::<u8>(), size as usize) }.to_vec())
}

/// What makes a kernel one that cannot be interpreted, though its instructions can.
fn check_kernel(kernel: &Kernel) -> Result<(), String> {
    let (rounding, denormals) = kernel.float_mode();
    let problem = if kernel.wave_size != 32 {
        format!("waves of {} lanes", kernel.wave_size)
    } else if rounding != 0 {
        format!("rounding mode {rounding}")
    } else if denormals != 15 && (denormals != 12 || cfg!(not(target_arch = "x86_64"))) {
        format!("mode {denormals} of subnormal numbers")
    } else {
        return Ok(());
    };
    Err(format!("kernel {}: the emulator does not support {problem}", kernel.name))
}

impl Runtime {
    fn load(&mut self, file: Vec<u8>) -> Result<Handle, Code> {
        let refuse = |runtime: &mut Runtime, code, message: String| {
            runtime.message = message;
            Err(code)
        };
        let object = match Object::parse(&file) {
            Ok(object) => object,
            Err(problem) => return refuse(self, INVALID_IMAGE, problem),
        };
        if object.arch != self.config.arch || object.arch != ARCH {
            let (have, device) = (object.arch, self.config.arch.clone());
            let message = format!("the code is for {have}, the device is {device}, and {ARCH} is interpreted");
            return refuse(self, NO_BINARY_FOR_GPU, message);
        }
        if let Some(problem) = object.kernels.iter().find_map(|kernel| check_kernel(kernel).err()) {
            return refuse(self, INVALID_IMAGE, problem);
        }
        let build = |file: &Vec<u8>| Program::build(file, &object).map(Arc::new);
        let program = match self.programs.get(&file) {
            Some(program) => program.clone(),
            None => {
                let program = build(&file);
                self.programs.insert(file, program.clone());
                program
            }
        };
        let program = match program {
            Ok(program) => program,
            Err(problem) => return refuse(self, INVALID_IMAGE, problem),
        };
        let image = self.allocate(object.image_size().max(1), Kind::Image)?;
        let loaded = match self.allocations.get_mut(&image) {
            Some(allocation) => object.load(allocation.bytes(), image),
            None => Err("the image is gone".into()),
        };
        if let Err(problem) = loaded {
            let _ = self.release(image, Kind::Image);
            return refuse(self, INVALID_IMAGE, problem);
        }
        let handle = self.handle();
        self.modules.insert(handle, Module { object, program, image, functions: Vec::new() });
        Ok(handle)
    }

    fn function(&mut self, module: Handle, name: &str) -> Result<Handle, Code> {
        let handle = self.handle();
        let module = find(&mut self.modules, module)?;
        let Some(kernel) = module.object.kernels.iter().find(|kernel| &*kernel.name == name) else {
            self.message = format!("the module has no kernel {name}");
            return Err(NOT_FOUND);
        };
        let function = Function { kernel: kernel.clone(), program: module.program.clone(), image: module.image };
        module.functions.push(handle);
        self.functions.insert(handle, function);
        Ok(handle)
    }

    /// Runs a launch now. A fault loses the device.
    pub fn run(&mut self, launch: &Launch) -> Result<(), Code> {
        self.launches += 1;
        match run(launch, self.config.settings, &self.ranges()) {
            Ok(instructions) => {
                self.instructions += instructions;
                Ok(())
            }
            Err(fault) => {
                self.message = fault.message;
                self.device()?.lost = Some(fault.code);
                Err(fault.code)
            }
        }
    }

    fn check_shape(&mut self, kernel: &Kernel, grid: [u32; 3], block: [u32; 3], lds: u32) -> Result<(), Code> {
        let threads: u64 = block.iter().map(|&n| u64::from(n)).product();
        let blocks: u128 = grid.iter().map(|&n| u128::from(n)).product();
        let group = u64::from(kernel.group_bytes) + u64::from(lds);
        let (code, problem) = if threads == 0 || blocks == 0 {
            (INVALID_CONFIGURATION, "an empty grid or block".to_string())
        } else if threads > u64::from(MAX_THREADS) || blocks > i32::MAX as u128 {
            (INVALID_CONFIGURATION, format!("{blocks} blocks of {threads} threads"))
        } else if group > u64::from(LDS_PER_BLOCK) {
            (INVALID_CONFIGURATION, format!("{group} bytes of workgroup memory"))
        } else if threads > u64::from(kernel.max_threads) {
            (LAUNCH_FAILURE, format!("{threads} threads, the kernel is compiled for {}", kernel.max_threads))
        } else {
            return Ok(());
        };
        self.message = format!("launch of {}: {problem}", kernel.name);
        Err(code)
    }

    fn launch(&mut self, shape: Shape, function: Handle, stream: Handle, arguments: Arguments) -> Result<(), Code> {
        let function = find(&mut self.functions, function)?.clone();
        let kernel = function.kernel;
        self.check_stream(stream)?;
        self.check_shape(&kernel, shape.grid, shape.block, shape.lds)?;
        if shape.cooperative {
            let units = COMPUTE_UNITS as u64 * u64::from(blocks_per_unit(&kernel, shape.block, shape.lds));
            let blocks: u64 = shape.grid.iter().map(|&n| u64::from(n)).product();
            if blocks > units {
                self.message = format!("cooperative launch of {blocks} blocks of {}, {units} fit", kernel.name);
                return Err(COOPERATIVE_TOO_LARGE);
            }
        }
        let arguments = pack_arguments(&kernel, &shape, arguments)?;
        let launch = Launch {
            kernel,
            program: function.program,
            image: function.image,
            grid: shape.grid,
            block: shape.block,
            dynamic_lds: shape.lds,
            arguments,
            cooperative: shape.cooperative || self.config.cooperative,
        };
        self.submit(stream, Node::Launch(Box::new(launch)))
    }
}

struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    lds: u32,
    cooperative: bool,
}

/// How the caller passes arguments.
enum Arguments {
    /// A pointer to each.
    Pointers(*mut *mut c_void),
    /// A buffer laid out as the kernel wants it.
    Buffer(Vec<u8>),
}

/// Blocks that a compute unit of the emulated card holds: as registers, workgroup memory and waves allow.
fn blocks_per_unit(kernel: &Kernel, block: [u32; 3], lds: u32) -> u32 {
    let waves = block.iter().product::<u32>().div_ceil(32).max(1);
    let by_registers = 2 * (1536 / kernel.vgprs.next_multiple_of(24).max(24)).min(16);
    let group = kernel.group_bytes + lds;
    let by_lds = LDS_PER_BLOCK.checked_div(group).unwrap_or(u32::MAX);
    (by_registers / waves).min(by_lds)
}

/// `HIP_LAUNCH_PARAM_*`: the buffer's address follows 1, the address of its size 2, and 3 is the end.
fn read_extra(extra: *mut *mut c_void) -> Result<Vec<u8>, Code> {
    let (mut buffer, mut size) = (std::ptr::null::<u8>(), 0);
    // SAFETY: the caller's list ends with 3, and each of its other tags has a value.
    unsafe {
        let mut at = extra;
        loop {
            match (*at).addr() {
                1 => buffer = (*at.add(1)).cast(),
                2 if !(*at.add(1)).is_null() => size = *(*at.add(1)).cast::<usize>(),
                3 => break,
                _ => return Err(INVALID_VALUE),
            }
            at = at.add(2);
        }
        if buffer.is_null() && size != 0 {
            return Err(INVALID_VALUE);
        }
        Ok(if size == 0 { Vec::new() } else { std::slice::from_raw_parts(buffer, size).to_vec() })
    }
}

/// The argument segment: what the caller passes, and what the runtime adds.
fn pack_arguments(kernel: &Kernel, shape: &Shape, arguments: Arguments) -> Result<Vec<u8>, Code> {
    let mut segment = vec![0; kernel.argument_bytes as usize];
    let explicit = kernel.arguments.iter().filter(|argument| !argument.is_hidden());
    match arguments {
        Arguments::Pointers(list) => {
            for (i, argument) in explicit.enumerate() {
                if list.is_null() {
                    return Err(INVALID_VALUE);
                }
                let (at, size) = (argument.offset as usize, argument.size as usize);
                // SAFETY: the caller's list has a pointer to each explicit argument.
                unsafe {
                    let from = (*list.add(i)).cast::<u8>();
                    if from.is_null() {
                        return Err(INVALID_VALUE);
                    }
                    segment[at..at + size].copy_from_slice(std::slice::from_raw_parts(from, size));
                }
            }
        }
        Arguments::Buffer(bytes) => {
            let end = explicit.map(|argument| (argument.offset + argument.size) as usize).max().unwrap_or(0);
            if bytes.len() < end {
                return Err(INVALID_VALUE);
            }
            segment[..end].copy_from_slice(&bytes[..end]);
        }
    }
    for argument in kernel.arguments.iter().filter(|argument| argument.is_hidden()) {
        let value = hidden_argument(&argument.kind, shape).to_le_bytes();
        let (at, size) = (argument.offset as usize, (argument.size as usize).min(8));
        segment[at..at + size].copy_from_slice(&value[..size]);
    }
    Ok(segment)
}

/// The value of an argument that the runtime adds; those of features that are not there are 0.
fn hidden_argument(kind: &str, shape: &Shape) -> u64 {
    let axis = match kind.as_bytes().last() {
        Some(b'y') => 1,
        Some(b'z') => 2,
        _ => 0,
    };
    match kind.trim_end_matches(['x', 'y', 'z']) {
        "hidden_block_count_" => u64::from(shape.grid[axis]),
        "hidden_group_size_" => u64::from(shape.block[axis]),
        "hidden_grid_dims" => {
            let used = |i: usize| shape.grid[i] > 1 || shape.block[i] > 1;
            if used(2) {
                3
            } else if used(1) {
                2
            } else {
                1
            }
        }
        "hidden_dynamic_lds_size" => u64::from(shape.lds),
        "hidden_private_base" => u64::from(PRIVATE_BASE),
        "hidden_shared_base" => u64::from(SHARED_BASE),
        _ => 0,
    }
}

entries! {
    Device fn hipModuleLoadData(runtime; to: *mut Handle, image: *const c_void) {
        if to.is_null() || image.is_null() {
            return Err(INVALID_VALUE);
        }
        let file = match read_image(image) {
            Ok(file) => file,
            Err(problem) => {
                runtime.message = problem;
                return Err(INVALID_IMAGE);
            }
        };
        let handle = runtime.load(file)?;
        put(to, handle)
    }

    Release fn hipModuleUnload(runtime; module: Handle) {
        find(&mut runtime.modules, module)?;
        let Some(module) = runtime.modules.remove(&module) else { return Err(INVALID_VALUE) };
        for function in module.functions {
            runtime.functions.remove(&function);
        }
        runtime.release(module.image, Kind::Image)
    }

    Device fn hipModuleGetFunction(runtime; to: *mut Handle, module: Handle, name: *const c_char) {
        if to.is_null() || name.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's name ends with NUL.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let handle = runtime.function(module, &name)?;
        put(to, handle)
    }

    /// Address and size of a global variable of the module.
    Device fn hipModuleGetGlobal(runtime; to: *mut u64, size: *mut usize, module: Handle, name: *const c_char) {
        if name.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's name ends with NUL.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let module = find(&mut runtime.modules, module)?;
        let symbol = module.object.elf.symbols.iter().find(|s| s.name == name && s.is_object && s.defined);
        let symbol = symbol.ok_or(NOT_FOUND)?;
        if !to.is_null() {
            put(to, module.image + symbol.address)?;
        }
        if size.is_null() { Ok(()) } else { put(size, symbol.size as usize) }
    }

    Device fn hipModuleLaunchKernel(
        runtime; function: Handle, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, lds: c_uint, stream: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void
    ) {
        let arguments = match (parameters.is_null(), extra.is_null()) {
            (false, false) => return Err(INVALID_VALUE),
            (true, false) => Arguments::Buffer(read_extra(extra)?),
            _ => Arguments::Pointers(parameters),
        };
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        runtime.launch(Shape { grid, block, lds, cooperative: false }, function, stream, arguments)
    }

    Device fn hipModuleLaunchCooperativeKernel(
        runtime; function: Handle, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, lds: c_uint, stream: Handle, parameters: *mut *mut c_void
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let shape = Shape { grid, block, lds, cooperative: true };
        runtime.launch(shape, function, stream, Arguments::Pointers(parameters))
    }

    /// An attribute by its number in `hipFunction_attribute`.
    Device fn hipFuncGetAttribute(runtime; value: *mut c_int, attribute: c_int, function: Handle) {
        let kernel = find(&mut runtime.functions, function)?.kernel.clone();
        put(value, match attribute {
            0 => kernel.max_threads as c_int,
            1 => kernel.group_bytes as c_int,
            2 => 0,
            3 => kernel.private_bytes as c_int,
            4 => kernel.vgprs as c_int,
            5 | 6 => 110,
            7 | 9 => 0,
            8 => LDS_PER_BLOCK.saturating_sub(kernel.group_bytes) as c_int,
            _ => return Err(INVALID_VALUE),
        })
    }

    /// Accepts what the hardware can do anyway: dynamic workgroup memory up to what a block can have.
    Device fn hipFuncSetAttribute(runtime; function: Handle, attribute: c_int, value: c_int) {
        let kernel = find(&mut runtime.functions, function)?.kernel.clone();
        match attribute {
            8 if (0..=(LDS_PER_BLOCK - kernel.group_bytes) as c_int).contains(&value) => Ok(()),
            9 => Ok(()),
            _ => Err(INVALID_VALUE),
        }
    }

    Device fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        runtime; blocks: *mut c_int, function: Handle, block: c_int, lds: usize
    ) {
        let kernel = find(&mut runtime.functions, function)?.kernel.clone();
        if block <= 0 || block as u32 > MAX_THREADS {
            return Err(INVALID_VALUE);
        }
        let lds = u32::try_from(lds).map_err(|_| INVALID_VALUE)?;
        put(blocks, blocks_per_unit(&kernel, [block as u32, 1, 1], lds) as c_int)
    }
}
