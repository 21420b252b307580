//! `rf_model`: loading and asking.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::guard::{
    Tagged, check_flags, fence, handle, optional_text, options, out, text, total, write_tagged, write_text,
};
use super::*;
use crate::engine::{Model, ModelOptions, PackedCache};
use crate::error::{Error, Result};
use crate::gguf::{MemorySource, ReaderSource};

/// A loaded model: immutable, shared by its sessions, usable from any number of threads.
pub struct rf_model(pub(super) Arc<Model>);

/// `rf_model_options.flags`: use the weights where the file is mapped, without a copy. The model loads at once and
/// shares memory with other processes, but on the CPU it computes several times more slowly than with the default (a token at a
/// time up to ten times), which rearranges the weights in memory of its own. For quick loads and speed see
/// `RF_LOAD_PACKED_CACHE`. The file must not be truncated while the model lives.
pub const RF_LOAD_MMAP: u32 = 1;

/// `rf_model_options.flags`: keep the rearranged weights in a file, `<model>.rfpack` beside the model or in
/// `packed_cache_dir`. The first load writes it, as large as the model; later loads map it, check its hashes, and share
/// its memory with other processes. A file that is damaged, or of another model or version, is written anew; where none
/// can be written, the load goes on and the log has a warning. The file must not be truncated while the model lives,
/// and who may write it decides what the model says. Not with `RF_LOAD_MMAP`, which rearranges nothing.
pub const RF_LOAD_PACKED_CACHE: u32 = 2;

/// Receives the fraction that is loaded, from 0 to 1, on the calling thread. `RF_CONTINUE` goes on, anything else
/// cancels the load. Must not unwind.
pub type rf_progress_callback = Option<unsafe extern "C" fn(user_data: *mut c_void, fraction: f32) -> i32>;

/// How to load a model. Begin with `RF_MODEL_OPTIONS_INIT`; zero means the default in every field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_model_options {
    /// `sizeof(rf_model_options)`.
    pub struct_size: u32,
    /// `RF_LOAD_…`, or 0.
    pub flags: u32,
    /// Called while loading. NULL: not.
    pub on_progress: rf_progress_callback,
    /// Given to `on_progress`.
    pub progress_user_data: *mut c_void,
    /// Split text as this pre-tokenizer does (`tokenizer.ggml.pre`, such as "llama-bpe"), whatever the file says.
    /// UTF-8. NULL: as the file says; one that the library does not know is refused by its name.
    pub pre_tokenizer: *const c_char,
    /// Length of `pre_tokenizer` in bytes. 0: it ends at its NUL.
    pub pre_tokenizer_len: usize,
    /// A Hugging Face `tokenizer.json` (its text, not its path) to use instead of the file's tokenizer. NULL: none.
    pub tokenizer_json: *const c_char,
    /// Length of `tokenizer_json` in bytes. 0: it ends at its NUL.
    pub tokenizer_json_len: usize,
    /// A Jinja chat template to use instead of the file's. NULL: the file's.
    pub chat_template: *const c_char,
    /// Length of `chat_template` in bytes. 0: it ends at its NUL.
    pub chat_template_len: usize,
    /// Layers to put on GPUs, from the last one; the others stay on the CPU. 0: as many as fit; negative: none.
    pub gpu_layers: i32,
    /// Zero.
    pub reserved: u32,
    /// The folder of the file of `RF_LOAD_PACKED_CACHE`, which must be there. UTF-8. Models of one name need folders of
    /// their own. NULL: the model's.
    pub packed_cache_dir: *const c_char,
    /// Length of `packed_cache_dir` in bytes. 0: it ends at its NUL.
    pub packed_cache_dir_len: usize,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_model_options {
    const NAME: &'static str = "rf_model_options";
}

/// Fills `buffer` with the `n` bytes from `offset` of the file; 0 for success, anything else for failure. Called on
/// the calling thread of `rf_model_load_reader`. Must not unwind.
pub type rf_read_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, offset: u64, buffer: *mut std::ffi::c_void, n: usize) -> i32>;

/// A host's own file, such as an entry of a game's asset pack. Begin with `RF_READER_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_reader {
    /// `sizeof(rf_reader)`.
    pub struct_size: u32,
    /// None is defined yet.
    pub flags: u32,
    /// Length of the file in bytes.
    pub length: u64,
    /// Reads from it.
    pub read: rf_read_callback,
    /// Given to `read`.
    pub user_data: *mut c_void,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_reader {
    const NAME: &'static str = "rf_reader";
}

/// What a model is. Begin with `RF_MODEL_INFO_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_model_info {
    /// `sizeof(rf_model_info)`.
    pub struct_size: u32,
    /// Tokens of the vocabulary; logits have as many elements.
    pub n_vocab: u32,
    /// Tokens that the network was trained for.
    pub context_length: u32,
    /// Width of the residual stream.
    pub embedding_length: u32,
    /// Layers.
    pub block_count: u32,
    /// 1 if the model has a chat template.
    pub has_chat_template: u32,
    /// Elements of all tensors.
    pub n_parameters: u64,
    /// Bytes of all tensors in the file.
    pub tensor_bytes: u64,
    /// Bytes of the key-value cache of one token.
    pub kv_bytes_per_token: u64,
    /// Layers that are on GPUs.
    pub gpu_layers: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_model_info {
    const NAME: &'static str = "rf_model_info";
}

struct HostReader {
    read: unsafe extern "C" fn(*mut c_void, u64, *mut std::ffi::c_void, usize) -> i32,
    user_data: *mut c_void,
}

// SAFETY: a source is read on the thread that loads, which is the one that gave the callback.
unsafe impl Send for HostReader {}
// SAFETY: as above.
unsafe impl Sync for HostReader {}

impl HostReader {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        // SAFETY: the host's own function, with the data that it asked for and a buffer of the stated size.
        match unsafe { (self.read)(self.user_data, offset, buffer.as_mut_ptr().cast(), buffer.len()) } {
            0 => Ok(()),
            code => Err(io::Error::other(format!(
                "the host's reader failed with {code} on {} bytes at offset {offset}",
                buffer.len()
            ))),
        }
    }
}

/// Reads the options, and calls `load` with them in Rust's form.
unsafe fn load(
    opts: *const rf_model_options,
    model: *mut *mut rf_model,
    load: impl FnOnce(ModelOptions) -> Result<Arc<Model>>,
) -> Result<rf_status> {
    // SAFETY: as the headers of the callers demand.
    let opts = unsafe {
        out(model, std::ptr::null_mut(), "model")?;
        options(opts)?
    };
    check_flags(opts.flags, RF_LOAD_MMAP | RF_LOAD_PACKED_CACHE, "rf_model_options")?;
    // SAFETY: text as the header demands.
    let folder = unsafe { optional_text(opts.packed_cache_dir, opts.packed_cache_dir_len, "packed_cache_dir")? };
    let packed_cache = match (opts.flags & RF_LOAD_PACKED_CACHE != 0, folder) {
        (true, None) => PackedCache::BesideModel,
        (true, Some(folder)) => PackedCache::Folder(Path::new(folder)),
        (false, None) => PackedCache::Off,
        (false, Some(_)) => {
            return Err(Error::argument("packed_cache_dir is set, but flags lack RF_LOAD_PACKED_CACHE"));
        }
    };
    let mut progress = |fraction: f32| match opts.on_progress {
        // SAFETY: the host's own function, with the data that it asked for.
        Some(call) => unsafe { call(opts.progress_user_data, fraction) == RF_CONTINUE },
        None => true,
    };
    // SAFETY: texts as the header demands.
    let loaded = unsafe {
        load(ModelOptions {
            mapped: opts.flags & RF_LOAD_MMAP != 0,
            packed_cache,
            pre: optional_text(opts.pre_tokenizer, opts.pre_tokenizer_len, "pre_tokenizer")?,
            tokenizer_json: optional_text(opts.tokenizer_json, opts.tokenizer_json_len, "tokenizer_json")?
                .map(str::as_bytes),
            chat_template: optional_text(opts.chat_template, opts.chat_template_len, "chat_template")?,
            gpu_layers: device::gpu_layers_of(opts.gpu_layers),
            stages: None,
            progress: Some(&mut progress),
        })?
    };
    // SAFETY: checked above.
    unsafe { model.write(Box::into_raw(Box::new(rf_model(loaded)))) };
    Ok(RF_OK)
}

/// Loads a GGUF model from a file. If the file's name is that of a part (`NAME-00001-of-00003.gguf`), its fellows are
/// loaded with it.
///
/// Ownership: `*model` is the caller's, to be freed by `rf_model_free`; `path` and `opts` (may be NULL) are not kept.
/// Threads: any; the engine may load several models at once. `on_progress` runs on the calling thread.
/// Errors: `RF_E_IO`, `RF_E_FORMAT`, `RF_E_UNSUPPORTED`, `RF_E_OUT_OF_MEMORY` (of a GPU too; the message says how much
///     is needed and free), `RF_E_DEVICE`, `RF_E_DEVICE_LOST`, `RF_E_ARGUMENT`; `RF_CANCELLED` if
///     `on_progress` asked for it. The message names the file, and the key or tensor.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_load(
    engine: *const rf_engine,
    path: *const c_char,
    path_len: usize,
    opts: *const rf_model_options,
    model: *mut *mut rf_model,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        load(opts, model, |options| {
            let engine = handle(engine, "engine")?;
            let path = text(path, path_len, "path")?;
            if path.is_empty() {
                return Err(Error::argument("path is empty"));
            }
            engine.0.load(Path::new(path), options)
        })
    })
}

/// Loads a GGUF model from memory. The bytes are copied as far as they are needed.
///
/// Ownership: `*model` is the caller's, to be freed by `rf_model_free`; the bytes and `opts` (may be NULL) are not kept.
/// Threads: any; `on_progress` runs on the calling thread.
/// Errors: as `rf_model_load`; `RF_E_UNSUPPORTED` for `RF_LOAD_MMAP`, `RF_LOAD_PACKED_CACHE` and a part of a split model.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_load_memory(
    engine: *const rf_engine,
    bytes: *const std::ffi::c_void,
    n_bytes: usize,
    opts: *const rf_model_options,
    model: *mut *mut rf_model,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        load(opts, model, |options| {
            let engine = handle(engine, "engine")?;
            let bytes = guard::slice(bytes.cast::<u8>(), n_bytes, "bytes")?;
            refuse_mapping(&options)?;
            engine.0.load_source(Box::new(MemorySource::new(bytes)), options)
        })
    })
}

/// Loads a GGUF model through a reader of the host.
///
/// Ownership: `*model` is the caller's, to be freed by `rf_model_free`; `reader` and `opts` (may be NULL) are not kept.
/// Threads: any; `reader->read` and `on_progress` run on the calling thread.
/// Errors: as `rf_model_load`; `RF_E_IO` if the reader fails; `RF_E_UNSUPPORTED` for `RF_LOAD_MMAP`,
///     `RF_LOAD_PACKED_CACHE` and a part of a split model.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_load_reader(
    engine: *const rf_engine,
    reader: *const rf_reader,
    opts: *const rf_model_options,
    model: *mut *mut rf_model,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        load(opts, model, |options| {
            let engine = handle(engine, "engine")?;
            handle(reader, "reader")?;
            let reader = guard::options(reader)?;
            check_flags(reader.flags, 0, "rf_reader")?;
            let read = reader.read.ok_or_else(|| Error::argument("reader->read is NULL"))?;
            refuse_mapping(&options)?;
            let host = HostReader { read, user_data: reader.user_data };
            let source =
                ReaderSource::new(reader.length, move |offset, buffer: &mut [u8]| host.read_at(offset, buffer));
            engine.0.load_source(Box::new(source), options)
        })
    })
}

fn refuse_mapping(options: &ModelOptions) -> Result<()> {
    match options.mapped {
        true => Err(Error::unsupported("RF_LOAD_MMAP", "needs a path: memory and readers are not mapped")),
        false => Ok(()),
    }
}

/// Frees a model. Sessions that use it keep what they need of it until they are freed themselves.
///
/// Ownership: takes `model`; NULL is allowed.
/// Threads: any, but no other call may use this handle at the same time.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_free(model: *mut rf_model) {
    if !model.is_null() {
        // SAFETY: made by a load, freed once.
        total((), || drop(unsafe { Box::from_raw(model) }));
    }
}

/// Writes what the model is to `*info`.
///
/// Ownership: `info` stays the caller's; its `struct_size` must be set (`RF_MODEL_INFO_INIT`).
/// Threads: any.
/// Errors: `RF_E_ARGUMENT`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_get_info(
    model: *const rf_model,
    info: *mut rf_model_info,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        let model = &handle(model, "model")?.0;
        let config = &model.network().config;
        let page = model.network().kv_shape(crate::backend::KvType::F16).page_bytes().unwrap_or(0);
        let value = rf_model_info {
            struct_size: 0,
            n_vocab: model.network().n_vocab() as u32,
            context_length: config.context_length as u32,
            embedding_length: config.embedding_length as u32,
            block_count: config.block_count as u32,
            has_chat_template: model.chat_template().is_some().into(),
            n_parameters: model.parameters,
            tensor_bytes: model.tensor_bytes,
            kv_bytes_per_token: (page / crate::backend::PAGE_TOKENS) as u64,
            gpu_layers: model.gpu_layers as u32,
            reserved: 0,
        };
        write_tagged(info, value)?;
        Ok(RF_OK)
    })
}

/// The number of metadata entries of the model's file; 0 for NULL.
///
/// Ownership: `model` stays the caller's.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_metadata_count(model: *const rf_model) -> usize {
    // SAFETY: NULL or a model of this library.
    total(0, || unsafe { model.as_ref() }.map_or(0, |m| m.0.metadata.iter().len()))
}

/// The key of metadata entry `index`, in the file's order, as NUL-terminated text in the caller's buffer.
///
/// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that
///     is all.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (no such entry), `RF_E_BUFFER` (nothing written but `*needed`).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_metadata_key(
    model: *const rf_model,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::clear(needed);
        let metadata = &handle(model, "model")?.0.metadata;
        let (key, _) = metadata.iter().nth(index).ok_or_else(|| {
            Error::argument(format!("there is no metadata entry {index}, the file has {}", metadata.iter().len()))
        })?;
        write_text(key, buffer, capacity, needed)
    })
}

/// The value of metadata entry `key` as NUL-terminated text in the caller's buffer: a string as it is, a number in
/// decimal, a boolean as "true" or "false", an array as JSON.
///
/// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that
///     is all.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (no such key; the vocabulary's arrays are not kept), `RF_E_BUFFER` (nothing written but
///     `*needed`).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_metadata_value(
    model: *const rf_model,
    key: *const c_char,
    key_len: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::clear(needed);
        let metadata = &handle(model, "model")?.0.metadata;
        let key = text(key, key_len, "key")?;
        let value =
            metadata.get(key).ok_or_else(|| Error::argument(format!("the model has no metadata key '{key}'")))?;
        write_text(&value.to_string(), buffer, capacity, needed)
    })
}

/// `rf_model_special_token`: begin of sequence.
pub const RF_TOKEN_BOS: u32 = 1;
/// `rf_model_special_token`: end of sequence.
pub const RF_TOKEN_EOS: u32 = 2;
/// `rf_model_special_token`: end of turn.
pub const RF_TOKEN_EOT: u32 = 3;
/// `rf_model_special_token`: unknown.
pub const RF_TOKEN_UNK: u32 = 4;
/// `rf_model_special_token`: padding.
pub const RF_TOKEN_PAD: u32 = 5;

/// Writes the id of a special token (`which` is one of `RF_TOKEN_…`) to `*token`.
///
/// Ownership: `model` and `token` stay the caller's.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (unknown `which`), `RF_E_UNSUPPORTED` (the model has no such token).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_special_token(
    model: *const rf_model,
    which: u32,
    token: *mut rf_token,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        out(token, 0, "token")?;
        let tokenizer = handle(model, "model")?.0.tokenizer();
        let (id, name) = match which {
            RF_TOKEN_BOS => (tokenizer.bos(), "BOS"),
            RF_TOKEN_EOS => (tokenizer.eos(), "EOS"),
            RF_TOKEN_EOT => (tokenizer.eot(), "EOT"),
            RF_TOKEN_UNK => (tokenizer.unk(), "UNK"),
            RF_TOKEN_PAD => (tokenizer.pad(), "PAD"),
            _ => return Err(Error::argument(format!("{which} is no RF_TOKEN_ constant"))),
        };
        token.write(id.ok_or_else(|| Error::unsupported("the model", format!("has no {name} token")))?);
        Ok(RF_OK)
    })
}

/// 1 if `token` ends a generation (the model's end of sequence, end of turn, and their like), else 0.
///
/// Ownership: `model` stays the caller's.
/// Threads: any.
/// Errors: none; NULL and unknown tokens give 0.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_is_end_token(model: *const rf_model, token: rf_token) -> i32 {
    // SAFETY: NULL or a model of this library.
    total(0, || unsafe { model.as_ref() }.is_some_and(|m| m.0.tokenizer().is_end_of_generation(token)).into())
}
