//! The kernels, one by one, against plain computations in f64. They run on the first usable GPU of this machine, or on
//! the emulator (`tests/emulator`), if it has been built; with neither they are skipped.

use std::sync::Arc;

use bytemuck::{NoUninit, Pod};

use super::device::{self, Buffer, Device, Stream};
use super::driver::{Driver, Vendor};
use super::module::{self, Module};

mod attention;
mod rows;

/// A device, its kernels, and a stream for them.
struct Rig {
    device: Arc<Device>,
    module: Arc<Module>,
    stream: Stream,
}

/// Where cargo puts the emulator.
const EMULATORS: [&str; 2] = ["release", "debug"];

fn open_device() -> Option<Arc<Device>> {
    if let Some(found) = super::devices().into_iter().find(|found| found.info.unusable.is_empty()) {
        return Some(found.open().expect("a usable device opens"));
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/emulator/target");
    let path = EMULATORS.iter().map(|profile| format!("{folder}/{profile}/libamdhip64.so"));
    let path = path.into_iter().find(|path| std::path::Path::new(path).exists())?;
    let driver = Driver::open(Vendor::Amd, Some(&path)).expect("the emulator opens");
    let infos = device::list(&driver, &module::why_not).expect("the emulator lists its devices");
    let info = infos.into_iter().find(|info| info.unusable.is_empty())?;
    Some(Device::open(&driver, &info).expect("the emulator's device opens"))
}

impl Rig {
    /// `None`, with a line that says so, without a device.
    fn new() -> Option<Rig> {
        let Some(device) = open_device() else {
            assert!(std::env::var_os("CI").is_none(), "no GPU, and tests/emulator is not built");
            eprintln!("SKIPPED: no GPU, and tests/emulator is not built");
            return None;
        };
        let module = Module::load(&device).expect("the kernels load");
        let stream = device.stream().expect("a stream");
        Some(Rig { device, module, stream })
    }

    /// Device memory that holds `values`, and 256 bytes of room behind, all bits set.
    fn upload<T: NoUninit>(&self, values: &[T]) -> Buffer {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let _entered = self.device.enter().expect("entered");
        let buffer = self.device.allocate(bytes.len() + 256, "a test").expect("memory");
        let mut pinned = self.device.allocate_pinned(bytes.len() + 256).expect("memory");
        pinned.as_mut_slice().fill(0xff);
        pinned.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        self.stream.upload(&buffer, 0, &pinned, 0, bytes.len() + 256).expect("a copy");
        self.stream.synchronize().expect("a copy");
        buffer
    }

    /// Device memory for `len` values, all bits set.
    fn room<T: Pod>(&self, len: usize) -> Buffer {
        self.upload(&vec![0xffu8; len * size_of::<T>()])
    }

    /// What [`Rig::upload`]'s or [`Rig::room`]'s memory holds now; nothing may have been written behind it.
    fn download<T: Pod>(&self, buffer: &Buffer) -> Vec<T> {
        let _entered = self.device.enter().expect("entered");
        let pinned = self.device.allocate_pinned(buffer.bytes()).expect("memory");
        self.stream.download(&pinned, buffer, 0, buffer.bytes()).expect("a copy");
        self.stream.synchronize().expect("a copy");
        let (values, behind) = pinned.as_slice().split_at(buffer.bytes() - 256);
        assert!(behind.iter().all(|&byte| byte == 0xff), "something was written behind a buffer");
        values.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    /// Runs the kernel called `name` with blocks of 256 threads.
    fn run<A: NoUninit>(&self, name: &str, grid: [usize; 3], args: &A) {
        let kernel = self.module.kernel::<A>(name).expect("the kernel");
        let _entered = self.device.enter().expect("entered");
        let launch = kernel.launch(grid.map(|n| n as u32), 256, 0, args);
        launch.send(&self.device, &self.stream).expect("a launch");
        self.stream.synchronize().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The same numbers everywhere: a linear congruential generator.
struct Noise(u64);

impl Noise {
    /// About normal, of deviation `scale`.
    fn float(&mut self, scale: f32) -> f32 {
        let sum: f32 = (0..4)
            .map(|_| {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .sum();
        sum * scale * 0.87
    }

    fn floats(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.float(scale)).collect()
    }
}

/// The greatest difference; not a number if any is none.
fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0.0, |most, (&found, &expected)| {
        let error = (f64::from(found) - expected).abs();
        if error <= most { most } else { error }
    })
}
