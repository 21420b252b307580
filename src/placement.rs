//! Where a model goes: which layers on which device, and which on the CPU. Decided before anything is allocated, from
//! the sizes of the file's tensors and the memory that devices have free.

use std::sync::Arc;

use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::pool::Pool;
use crate::backend::hip::device::Device;
use crate::backend::hip::{self, Found, HipBackend};
use crate::backend::split::SplitBackend;
use crate::backend::{Backend, KvShape, KvType, PAGE_TOKENS};
use crate::error::{Error, Result};
use crate::load::ModelFile;
use crate::model::Config;

/// Tokens whose keys and values must find room on a device besides the weights that are put there.
const RESERVED_TOKENS: usize = 4096;
/// Bytes on a device for kernels, activations and the driver's own needs.
const RESERVED_BYTES: u64 = 384 << 20;

/// Which GPUs an engine may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GpuChoice {
    /// The first that is usable, and more of the same driver if a model needs them.
    #[default]
    Auto,
    /// None: the CPU serves.
    None,
    /// These, by their place in the list of devices, integrated ones too.
    These(Vec<usize>),
}

impl GpuChoice {
    /// Reads "auto", "none", or numbers separated by commas.
    pub fn parse(text: &str) -> Result<GpuChoice> {
        match text.trim() {
            "" | "auto" => Ok(GpuChoice::Auto),
            "none" | "cpu" => Ok(GpuChoice::None),
            list => {
                let number = |part: &str| {
                    part.trim().parse().map_err(|_| {
                        Error::argument(format!(
                            "the choice of GPUs is '{text}', expected \"auto\", \"none\", or numbers such as \"0,1\""
                        ))
                    })
                };
                list.split(',').map(number).collect::<Result<Vec<_>>>().map(GpuChoice::These)
            }
        }
    }

    /// The devices of `found` that may be used, in order; an error if one that was asked for cannot be.
    pub fn select(&self, found: &[Found]) -> Result<Vec<Found>> {
        match self {
            GpuChoice::None => Ok(Vec::new()),
            GpuChoice::Auto => {
                let usable: Vec<&Found> = found.iter().filter(|f| f.info.unusable.is_empty()).collect();
                let vendor = usable.first().map(|f| f.info.vendor);
                Ok(usable.into_iter().filter(|f| Some(f.info.vendor) == vendor).cloned().collect())
            }
            GpuChoice::These(numbers) => numbers.iter().map(|&number| Self::one(found, number)).collect(),
        }
    }

    fn one(found: &[Found], number: usize) -> Result<Found> {
        let device = found
            .get(number)
            .ok_or_else(|| Error::argument(format!("GPU {number} was asked for, there are {}", found.len())))?;
        let info = &device.info;
        if info.unusable.is_empty() || info.integrated && hip::module::why_not(info.vendor, &info.architecture).is_none()
        {
            return Ok(device.clone());
        }
        Err(Error::unsupported(format!("GPU {number} ({})", info.name), &info.unusable))
    }
}

/// Bytes of a file's tensors by the part of the network that they belong to.
pub struct Sizes {
    embedding: u64,
    /// The head; that of the embedding where the file has none.
    output: u64,
    layers: Vec<u64>,
    /// Keys and values of [`RESERVED_TOKENS`] in one layer.
    cache: u64,
}

/// Bytes of a page of the cache for `layers` layers.
fn page_bytes(config: &Config, layers: usize) -> u64 {
    let (n_head_kv, head_dim) = (config.head_count_kv, config.head_dim);
    KvShape { layers, n_head_kv, head_dim, kv_type: KvType::F16 }.page_bytes().map_or(u64::MAX, |bytes| bytes as u64)
}

impl Sizes {
    /// Adds up the tensors of `file`.
    pub fn of(file: &ModelFile, config: &Config) -> Sizes {
        let (mut embedding, mut output) = (0, 0);
        let mut layers = vec![0u64; config.block_count];
        for tensor in file.tensors.iter() {
            let bytes = tensor.bytes as u64;
            let layer = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
            match layer.and_then(|layer: usize| layers.get_mut(layer)) {
                Some(layer) => *layer += bytes,
                None if tensor.name.starts_with("token_embd.") => embedding += bytes,
                None => output += bytes,
            }
        }
        if file.tensors.get("output.weight").is_none() {
            output += embedding;
        }
        let tokens = config.context_length.min(RESERVED_TOKENS).next_multiple_of(PAGE_TOKENS);
        let cache = page_bytes(config, 1).saturating_mul((tokens / PAGE_TOKENS) as u64);
        Sizes { embedding, output, layers, cache }
    }

    fn layer(&self, i: usize) -> u64 {
        self.layers.get(i).map_or(0, |bytes| bytes.saturating_add(self.cache))
    }
}

/// How many layers each place gets: the CPU the first, then the devices in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    /// Layers on the CPU, which come first.
    pub cpu: usize,
    /// Layers on each device.
    pub devices: Vec<usize>,
}

impl Division {
    /// Divides a network over devices with `free` bytes each. `wanted` layers, the last of the network, go to devices;
    /// `None`: as many as fit. A device that gets none is left out at the end.
    pub fn new(sizes: &Sizes, free: &[u64], wanted: Option<usize>) -> Division {
        let count = sizes.layers.len();
        let wanted_layers = wanted.unwrap_or(count).min(count);
        let mut devices = vec![0; free.len()];
        let mut next = count;
        // From the end: the head's device is the last, so the devices are filled backwards.
        for (i, &free) in free.iter().enumerate().rev() {
            let mut room = free.saturating_sub(RESERVED_BYTES);
            if next == count {
                if wanted.is_none() && room < sizes.output {
                    continue;
                }
                room = room.saturating_sub(sizes.output);
            }
            // The layers that this device has to take so that all devices share what is to be placed.
            let fair = (wanted_layers - (count - next)).div_ceil(i + 1);
            while next > count - wanted_layers && devices.get(i).is_some_and(|&n| n < fair.max(1)) {
                let need = sizes.layer(next - 1) + if next == 1 { sizes.embedding } else { 0 };
                if wanted.is_none() && room < need {
                    break;
                }
                room = room.saturating_sub(need);
                next -= 1;
                if let Some(n) = devices.get_mut(i) {
                    *n += 1;
                }
            }
        }
        Division { cpu: next, devices }
    }
}

/// A place for a network, and what to say of it.
pub struct Placed {
    /// Runs the verbs.
    pub backend: Arc<dyn Backend>,
    /// For the log: which layers are where.
    pub description: String,
    /// Layers on devices.
    pub gpu_layers: usize,
}

/// What is there to be divided over.
pub struct Places<'a> {
    /// Devices in use.
    pub devices: &'a [Arc<Device>],
    /// The CPU's backend.
    pub cpu: Arc<CpuBackend>,
    /// Threads that rearrange weights for devices.
    pub pool: &'a Arc<Pool>,
}

/// How many devices of those in `free` a network needs: the fewest of the first that hold it whole, else all.
fn enough(sizes: &Sizes, free: &[u64]) -> usize {
    (1..=free.len()).find(|&n| Division::new(sizes, free.get(..n).unwrap_or_default(), None).cpu == 0).unwrap_or(free.len())
}

/// What a network would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Layers on devices.
    pub gpu_layers: usize,
    /// Bytes of weights in the host's memory.
    pub host_bytes: u64,
    /// Bytes of weights on devices.
    pub device_bytes: u64,
    /// Bytes of the cache of one token, everywhere.
    pub kv_bytes_per_token: u64,
}

/// What the network of `file` would take of `devices` and of the host.
pub fn estimate(
    file: &ModelFile,
    config: &Config,
    devices: &[Arc<Device>],
    gpu_layers: Option<usize>,
) -> Result<Estimate> {
    let sizes = Sizes::of(file, config);
    let division = divide(&sizes, devices, gpu_layers)?;
    let tied = file.tensors.get("output.weight").is_none();
    let on_host: u64 = sizes.layers.iter().take(division.cpu).sum();
    let all: u64 = sizes.layers.iter().sum();
    let (host_bytes, device_bytes) = match division.cpu {
        0 if !devices.is_empty() => (0, all + sizes.output + if tied { 0 } else { sizes.embedding }),
        n if n == sizes.layers.len() => (file.tensor_bytes(), 0),
        _ => (on_host + sizes.embedding, all - on_host + sizes.output),
    };
    Ok(Estimate {
        gpu_layers: config.block_count - division.cpu,
        host_bytes,
        device_bytes,
        kv_bytes_per_token: page_bytes(config, config.block_count) / PAGE_TOKENS as u64,
    })
}

/// Divides a network over the fewest of `devices` that hold it.
fn divide(sizes: &Sizes, devices: &[Arc<Device>], gpu_layers: Option<usize>) -> Result<Division> {
    let free = devices.iter().map(|device| device.free_memory()).collect::<Result<Vec<_>>>()?;
    let used = free.get(..enough(sizes, &free)).unwrap_or_default();
    Ok(Division::new(sizes, used, gpu_layers))
}

/// Divides the network of `file` over `places`. `gpu_layers`: `None` as many as fit.
pub fn place(file: &ModelFile, config: &Config, places: &Places, gpu_layers: Option<usize>) -> Result<Placed> {
    let on_cpu = |why: &str| Placed {
        backend: places.cpu.clone(),
        description: format!("all {} layers on the CPU{why}", config.block_count),
        gpu_layers: 0,
    };
    if places.devices.is_empty() || gpu_layers == Some(0) {
        return Ok(on_cpu(""));
    }
    let sizes = Sizes::of(file, config);
    let division = divide(&sizes, places.devices, gpu_layers)?;
    if division.cpu == config.block_count {
        return Ok(on_cpu(": no device has room for one"));
    }
    let mut sections: Vec<(Arc<dyn Backend>, usize)> = Vec::new();
    let mut parts = Vec::new();
    if division.cpu > 0 {
        sections.push((places.cpu.clone(), division.cpu));
        parts.push(format!("{} on the CPU", division.cpu));
    }
    for (device, &layers) in places.devices.iter().zip(&division.devices).filter(|&(_, &layers)| layers > 0) {
        let backend = HipBackend::new(device, config.head_dim, config.head_count / config.head_count_kv, places.pool)?;
        parts.push(format!("{layers} on {} ({})", device.info.name, backend.origin()));
        sections.push((Arc::new(backend), layers));
    }
    let description = format!("layers: {}", parts.join(", "));
    let gpu_layers = config.block_count - division.cpu;
    let backend = match sections.len() {
        1 => sections.remove(0).0,
        _ => Arc::new(SplitBackend::new(sections)?),
    };
    Ok(Placed { backend, description, gpu_layers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(layers: usize) -> Sizes {
        Sizes { embedding: 50, output: 100, layers: vec![10; layers], cache: 5 }
    }

    fn divide(layers: usize, free: &[u64], wanted: Option<usize>) -> Division {
        let free: Vec<_> = free.iter().map(|free| free + RESERVED_BYTES).collect();
        Division::new(&sizes(layers), &free, wanted)
    }

    #[test]
    fn what_fits_goes_to_the_device() {
        assert_eq!(divide(4, &[1000], None), Division { cpu: 0, devices: vec![4] });
        // 100 for the head, 15 a layer, 50 for the embedding with the first.
        assert_eq!(divide(4, &[100 + 4 * 15 + 50], None), Division { cpu: 0, devices: vec![4] });
        assert_eq!(divide(4, &[100 + 4 * 15 + 49], None), Division { cpu: 1, devices: vec![3] });
        assert_eq!(divide(4, &[99], None), Division { cpu: 4, devices: vec![0] });
    }

    #[test]
    fn a_number_of_layers_is_obeyed() {
        assert_eq!(divide(4, &[0], Some(3)), Division { cpu: 1, devices: vec![3] });
        assert_eq!(divide(4, &[1000], Some(99)), Division { cpu: 0, devices: vec![4] });
    }

    #[test]
    fn devices_share() {
        assert_eq!(divide(6, &[1000, 1000], None), Division { cpu: 0, devices: vec![3, 3] });
        assert_eq!(divide(6, &[1000, 1000], Some(3)), Division { cpu: 3, devices: vec![1, 2] });
        assert_eq!(enough(&sizes(6), &[RESERVED_BYTES + 1000, RESERVED_BYTES + 1000]), 1);
    }

    #[test]
    fn choices_are_read() {
        assert_eq!(GpuChoice::parse("auto").expect("a choice"), GpuChoice::Auto);
        assert_eq!(GpuChoice::parse("none").expect("a choice"), GpuChoice::None);
        assert_eq!(GpuChoice::parse("0, 2").expect("a choice"), GpuChoice::These(vec![0, 2]));
        assert!(GpuChoice::parse("first").is_err());
    }
}
