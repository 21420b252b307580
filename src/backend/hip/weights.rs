//! Weights on a device: rearranged into planes on the way there, through a ring of pinned buffers.
//!
//! Mapped memory is never handed to a copy: drivers register it page by page, which takes many times as long.

use std::sync::Arc;

use parking_lot::Mutex;

use super::args::{EmbedArgs, MatmulArgs, MatrixArg};
use super::device::{Buffer, Device, Event, Pinned, Stream};
use super::module::{Kernel, Module};
use super::planes::{MAX_PLANES, Planes, largest_weight, suits_halves};
use crate::backend::cpu::pool::Pool;
use crate::error::{Error, Result};
use crate::load::TensorData;
use crate::quant::TensorType;

/// Bytes of one pinned buffer.
const PIECE: usize = 16 << 20;
/// Pinned buffers: one is filled while those before it are copied.
const RING: usize = 3;

/// A matrix on a device, with the kernels for its format.
pub struct DeviceMatrix {
    buffer: Buffer,
    planes: [u64; 3],
    rows: u32,
    columns: u32,
    /// The type that the file has.
    pub tensor_type: TensorType,
    /// One row of activations, which it normalises and quantises for itself.
    pub gemv: Kernel<MatmulArgs>,
    /// A few rows.
    pub batch: Kernel<MatmulArgs>,
    /// Many rows.
    pub gemm: Kernel<MatmulArgs>,
    /// Many rows, by weights decoded to half precision: where the device has such a kernel and the weights' size allows.
    pub gemm_half: Option<Kernel<MatmulArgs>>,
    /// Activations that are not quantised.
    pub exact: Kernel<MatmulArgs>,
    /// Rows of the matrix itself.
    pub embed: Kernel<EmbedArgs>,
}

impl DeviceMatrix {
    /// As kernels take it.
    pub fn arg(&self) -> MatrixArg {
        MatrixArg { data: self.buffer.address(), plane: self.planes, rows: self.rows, columns: self.columns }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    /// Its kernels multiply by quantised activations.
    pub fn is_quantized(&self) -> bool {
        is_quantized(self.tensor_type)
    }
}

/// Whether a format's kernels multiply by quantised activations.
pub fn is_quantized(tensor_type: TensorType) -> bool {
    !matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}

/// What a format is called in the kernels' names.
pub fn kernel_suffix(tensor_type: TensorType) -> String {
    tensor_type.name().to_lowercase()
}

/// Brings weights to a device.
pub struct Uploader {
    device: Arc<Device>,
    module: Arc<Module>,
    pool: Arc<Pool>,
    ring: Mutex<Option<Ring>>,
}

struct Ring {
    stream: Stream,
    slots: Vec<(Pinned, Event)>,
    next: usize,
    /// Rows as the file has them.
    rows: Vec<u8>,
}

impl Uploader {
    /// For `device`, whose kernels are in `module`; `pool` rearranges.
    pub fn new(device: &Arc<Device>, module: &Arc<Module>, pool: &Arc<Pool>) -> Uploader {
        Uploader { device: device.clone(), module: module.clone(), pool: pool.clone(), ring: Mutex::new(None) }
    }

    fn ring(&self) -> Result<Ring> {
        let slot = |_| Ok((self.device.allocate_pinned(PIECE)?, self.device.event()?));
        Ok(Ring {
            stream: self.device.stream()?,
            slots: (0..RING).map(slot).collect::<Result<Vec<_>>>()?,
            next: 0,
            rows: Vec::new(),
        })
    }

    /// Waits for all copies and gives the pinned memory back: the model is loaded.
    pub fn finish(&self) -> Result<()> {
        match self.ring.lock().take() {
            Some(ring) => {
                let _entered = self.device.enter()?;
                ring.stream.synchronize()
            }
            None => Ok(()),
        }
    }

    /// A vector of float32.
    pub fn vector(&self, values: &[f32]) -> Result<Buffer> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = self.device.allocate(bytes.len(), "a vector of weights")?;
        let _entered = self.device.enter()?;
        let mut guard = self.ring.lock();
        let ring = self.begun(&mut guard)?;
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            let (pinned, _) = ring.slot()?;
            pinned.as_mut_slice()[..piece.len()].copy_from_slice(piece);
            ring.send(&buffer, &[(i * PIECE, 0, piece.len())])?;
        }
        Ok(buffer)
    }

    /// A matrix of `rows` rows of `columns` elements.
    pub fn matrix(
        &self,
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: &TensorData,
    ) -> Result<DeviceMatrix> {
        let file_row = tensor_type.row_bytes(columns);
        let planes = Planes::of(tensor_type, rows, columns);
        let (Some(file_row), Some(planes)) = (file_row, planes) else {
            return Err(Error::unsupported(
                &self.device.info.name,
                format!("{rows} × {columns} weights of type {}", tensor_type.name()),
            ));
        };
        if file_row.checked_mul(rows) != Some(data.len()) {
            return Err(Error::Internal(format!("{} bytes for {rows} × {columns}", data.len())));
        }
        let buffer = self.device.allocate(planes.bytes, "weights")?;
        let _entered = self.device.enter()?;
        let mut guard = self.ring.lock();
        let ring = self.begun(&mut guard)?;
        let mut largest = 0.0f32;
        let per_piece = (PIECE / planes.row_bytes.iter().sum::<usize>().max(file_row).max(1)).min(rows).max(1);
        for first in (0..rows).step_by(per_piece) {
            let n = per_piece.min(rows - first);
            largest = largest.max(self.piece(ring, &buffer, &planes, data, first, n, file_row)?);
        }
        let suffix = kernel_suffix(tensor_type);
        let name = |family: &str| format!("{family}_{suffix}");
        let [p1, p2, p3] = [1, 2, 3].map(|i| planes.offsets.get(i).copied().unwrap_or(0) as u64);
        Ok(DeviceMatrix {
            buffer,
            planes: [p1, p2, p3],
            rows: rows as u32,
            columns: columns as u32,
            tensor_type,
            gemv: self.module.kernel(&name("gemv"))?,
            batch: self.module.kernel(&name("gemv_batch"))?,
            gemm: self.module.kernel(&name("gemm"))?,
            gemm_half: match suits_halves(largest) {
                true => self.module.find(&name("gemm_half"))?,
                false => None,
            },
            exact: self.module.kernel(&name("exact"))?,
            embed: self.module.kernel(&name("embed"))?,
        })
    }

    fn begun<'g>(&self, guard: &'g mut Option<Ring>) -> Result<&'g mut Ring> {
        if guard.is_none() {
            *guard = Some(self.ring()?);
        }
        guard.as_mut().ok_or_else(|| Error::Internal("no ring".into()))
    }

    /// Reads `n` rows from `first`, rearranges them and sends them on their way; a bound on their largest weight.
    #[allow(clippy::too_many_arguments)]
    fn piece(
        &self,
        ring: &mut Ring,
        buffer: &Buffer,
        planes: &Planes,
        data: &TensorData,
        first: usize,
        n: usize,
        file_row: usize,
    ) -> Result<f32> {
        let mut rows = std::mem::take(&mut ring.rows);
        rows.resize(n * file_row, 0);
        data.read(first * file_row, &mut rows)?;
        let largest = largest_weight(planes.tensor_type, &rows);
        let (pinned, _) = ring.slot()?;
        let bytes = pinned.as_mut_slice();
        if bytes.len() < n * planes.row_bytes.iter().sum::<usize>() {
            return Err(Error::unsupported(&self.device.info.name, format!("rows of {file_row} bytes")));
        }
        // The plane's rows one after the other, plane after plane.
        let mut copies = Vec::with_capacity(MAX_PLANES);
        let mut parts: Vec<&mut [u8]> = Vec::with_capacity(MAX_PLANES);
        let (mut rest, mut at) = (bytes, 0);
        for (&offset, &row) in planes.offsets.iter().zip(&planes.row_bytes) {
            let (part, behind) = rest.split_at_mut(n * row);
            parts.push(part);
            rest = behind;
            copies.push((offset + first * row, at, n * row));
            at += n * row;
        }
        planes.pack_rows_on(&self.pool, &rows, n, &mut parts);
        ring.rows = rows;
        ring.send(buffer, &copies)?;
        Ok(largest)
    }
}

impl Ring {
    /// The next buffer, when the copy from it has run.
    fn slot(&mut self) -> Result<&mut (Pinned, Event)> {
        let slot = self.slots.get_mut(self.next).ok_or_else(|| Error::Internal("an empty ring".into()))?;
        slot.1.synchronize()?;
        Ok(slot)
    }

    /// Sends `(to, from, bytes)` of the slot that was filled.
    fn send(&mut self, buffer: &Buffer, copies: &[(usize, usize, usize)]) -> Result<()> {
        let (pinned, event) = self.slots.get(self.next).ok_or_else(|| Error::Internal("an empty ring".into()))?;
        for &(to, from, bytes) in copies {
            self.stream.upload(buffer, to, pinned, from, bytes)?;
        }
        self.stream.record(event)?;
        self.next = (self.next + 1) % RING;
        Ok(())
    }
}
