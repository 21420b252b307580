//! The engine (threads, processor, log) and the models that it loads: network, tokenizer and chat template together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use once_cell::sync::OnceCell;

use crate::backend::Backend;
use crate::backend::cpu::{CpuBackend, features::Isa, packfile::PackFile, pool::ParallelFor, pool::Pool};
use crate::backend::hip::device::{Device, DeviceInfo};
use crate::backend::hip::{self, Found};
use crate::backend::stages::{Stages, Timed};
use crate::chat::{ChatTemplate, RenderOptions};
use crate::error::{Error, Result};
use crate::gguf::{Metadata, Source};
use crate::load::ModelFile;
use crate::model::{Config, Network};
use crate::placement::{self, Estimate, GpuChoice, Places};
use crate::tokenizer::{self, Tokenizer};

/// Threads that an engine takes at most when it is not told how many.
pub const MAX_DEFAULT_THREADS: usize = 64;
/// Threads that may be asked for.
pub const MAX_THREADS: usize = 1024;

/// How serious a log message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For those who look into the engine.
    Debug = 1,
    /// What was loaded, and how.
    Info = 2,
    /// Something works less well than it could.
    Warning = 3,
    /// Something failed; the call's error says the same.
    Error = 4,
}

/// Receives log messages; may be called from any thread that uses the engine.
pub type Log = Box<dyn Fn(LogLevel, &str) + Send + Sync>;

/// How to make an [`Engine`].
#[derive(Default)]
pub struct EngineOptions {
    /// Threads in all, that of the caller included; 0: as many as the process may use.
    pub threads: usize,
    /// Keep each of the engine's threads on one processor.
    pub pin_threads: bool,
    /// The host's threads in place of the engine's own; `threads` then says how many they are.
    pub parallel_for: Option<ParallelFor>,
    /// The best instruction set to use; `None`: what the processor has.
    pub isa: Option<Isa>,
    /// Which GPUs to use; `None`: what the environment variable [`GPU_DEVICE`] says, else [`GpuChoice::Auto`].
    pub gpus: Option<GpuChoice>,
    /// Bytes that may be taken on each GPU; 0: all that is free.
    pub gpu_memory: u64,
    /// Where log messages go; `None`: nowhere.
    pub log: Option<Log>,
}

/// The environment variable that chooses GPUs where the host does not: "auto", "none", or numbers such as "0,1".
pub const GPU_DEVICE: &str = "ROCMFORGE_GPU_DEVICE";

/// Threads and processors, shared by all models that it loads.
pub struct Engine {
    pool: Arc<Pool>,
    isa: Isa,
    gpus: GpuChoice,
    gpu_memory: u64,
    found: OnceCell<Vec<Found>>,
    opened: OnceCell<Vec<Arc<Device>>>,
    log: Option<Log>,
}

/// Whether weights that were packed for the CPU are kept in a file, named as the model with `.rfpack` behind.
///
/// The first load writes it (as large as the model's file, and as slow as the disk); later loads map it, check its
/// hashes, and share its memory with other processes. A file that belongs to another model, to another version of its
/// file (see [`ModelFile::fingerprint`]) or of this library, or that is damaged, is written anew. Where it cannot be written, the load
/// goes on with a warning in the log. It must not be truncated while a model that uses it lives, and who may write it
/// decides what the model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PackedCache<'a> {
    /// Not kept.
    #[default]
    Off,
    /// Beside the model.
    BesideModel,
    /// In this folder, which must be there. Models of one name need folders of their own.
    Folder(&'a Path),
}

impl PackedCache<'_> {
    /// Where the file for the model at `path` is.
    fn path(self, model: &Path) -> Option<PathBuf> {
        let mut name = model.file_name()?.to_os_string();
        name.push(".rfpack");
        match self {
            PackedCache::Off => None,
            PackedCache::BesideModel => Some(model.with_file_name(name)),
            PackedCache::Folder(folder) => Some(folder.join(name)),
        }
    }
}

/// How to load a [`Model`].
#[derive(Default)]
pub struct ModelOptions<'a> {
    /// Use the weights where the file is mapped, without a copy: loads at once, computes more slowly, and the file
    /// must not be truncated while the model lives.
    pub mapped: bool,
    /// Keep packed weights in a file, so that the next load maps it and need not pack.
    pub packed_cache: PackedCache<'a>,
    /// Treat the text as if the file named this pre-tokenizer (`tokenizer.ggml.pre`).
    pub pre: Option<&'a str>,
    /// Take the tokenizer from this Hugging Face `tokenizer.json` and not from the metadata.
    pub tokenizer_json: Option<&'a [u8]>,
    /// Take this Jinja source and not the file's chat template.
    pub chat_template: Option<&'a str>,
    /// The last layers that go to GPUs: `None` as many as fit, `Some(0)` none.
    pub gpu_layers: Option<usize>,
    /// Times the backend's verbs; `None`: nobody does.
    pub stages: Option<Arc<Stages>>,
    /// Called with the fraction that is loaded, on the calling thread; false cancels the load.
    pub progress: Option<&'a mut dyn FnMut(f32) -> bool>,
}

impl Engine {
    /// Makes an engine and its threads.
    pub fn new(options: EngineOptions) -> Result<Engine> {
        if options.threads > MAX_THREADS {
            return Err(Error::argument(format!(
                "{} threads were asked for, at most {MAX_THREADS} are served",
                options.threads
            )));
        }
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_DEFAULT_THREADS),
            n => n,
        };
        let isa = Isa::up_to(options.isa.unwrap_or(Isa::Amx));
        let gpus = match options.gpus {
            Some(choice) => choice,
            None => GpuChoice::parse(&std::env::var(GPU_DEVICE).unwrap_or_default())?,
        };
        let engine = Engine {
            pool: Arc::new(match options.parallel_for {
                Some(run) => Pool::of_host(threads, run),
                None => Pool::start(threads, options.pin_threads)?,
            }),
            isa,
            gpus,
            gpu_memory: options.gpu_memory,
            found: OnceCell::new(),
            opened: OnceCell::new(),
            log: options.log,
        };
        engine.log(LogLevel::Info, || format!("CPU engine: {threads} threads, {}", isa.name()));
        Ok(engine)
    }

    /// Threads in all, that of the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The GPUs of this machine, usable or not, each with the reason. Drivers are opened when this is first asked.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceInfo> {
        self.found().iter().map(|found| &found.info)
    }

    fn found(&self) -> &[Found] {
        self.found.get_or_init(|| if self.gpus == GpuChoice::None { Vec::new() } else { hip::devices() })
    }

    /// The threads that the engine's models share.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The GPUs that this engine uses.
    pub fn gpus(&self) -> Result<&[Arc<Device>]> {
        self.opened()
    }

    fn opened(&self) -> Result<&[Arc<Device>]> {
        let open = || {
            let mut devices = Vec::new();
            for found in self.gpus.select(self.found())? {
                match found.open() {
                    Ok(device) => {
                        if self.gpu_memory > 0 {
                            device.set_budget(self.gpu_memory);
                        }
                        devices.push(device);
                    }
                    Err(error) if self.gpus == GpuChoice::Auto => {
                        self.log(LogLevel::Warning, || format!("a GPU is not used: {error}"));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(devices)
        };
        self.opened.get_or_try_init(open).map(Vec::as_slice)
    }

    /// Sends a message to the log, if there is one.
    pub fn log(&self, level: LogLevel, message: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log(level, &message());
        }
    }

    /// What the model at `path` would take if it were loaded now.
    pub fn estimate(&self, path: &Path, gpu_layers: Option<usize>) -> Result<Estimate> {
        let file = ModelFile::open(path, false)?;
        let config = Config::from_metadata(&file.metadata)?;
        let devices = if gpu_layers == Some(0) { &[][..] } else { self.opened()? };
        placement::estimate(&file, &config, devices, gpu_layers)
    }

    /// Loads the model at `path`, all its parts if it is split.
    pub fn load(self: &Arc<Self>, path: &Path, options: ModelOptions) -> Result<Arc<Model>> {
        if options.mapped && options.packed_cache != PackedCache::Off {
            return Err(Error::argument(
                "weights that are used where the model is mapped are not packed: there is nothing to keep in a cache",
            ));
        }
        let packs = options.packed_cache.path(path);
        self.load_file(ModelFile::open(path, options.mapped)?, options, packs)
    }

    /// Loads a model from a [`Source`]: memory, or the host's reader.
    pub fn load_source(self: &Arc<Self>, source: Box<dyn Source + '_>, options: ModelOptions) -> Result<Arc<Model>> {
        if options.packed_cache != PackedCache::Off {
            return Err(Error::unsupported("a cache of packed weights", "needs a model that is loaded from a path"));
        }
        self.load_file(ModelFile::from_source(source)?, options, None)
    }

    fn load_file(
        self: &Arc<Self>,
        mut file: ModelFile,
        options: ModelOptions,
        packs: Option<PathBuf>,
    ) -> Result<Arc<Model>> {
        let began = Instant::now();
        let mut always = |_| true;
        let progress = options.progress.unwrap_or(&mut always);
        if !progress(0.0) {
            return Err(Error::Cancelled);
        }
        // The configuration is checked before anything else is read: the commoner refusal, and the cheaper one.
        let config = Config::from_metadata(&file.metadata)?;
        let packs = packs.map(|path| self.open_packs(path, &file)).transpose()?;
        let mut cpu = CpuBackend::new(self.pool.clone(), self.isa, !file.is_mapped());
        if let Some(packs) = &packs {
            cpu = cpu.with_pack_file(packs.clone());
        }
        let cpu = Arc::new(cpu);
        let devices = if options.gpu_layers == Some(0) { &[][..] } else { self.opened()? };
        let places = Places { devices, cpu, pool: &self.pool };
        let placed = placement::place(&file, &config, &places, options.gpu_layers)?;
        self.log(LogLevel::Info, || placed.description.clone());
        let backend: Arc<dyn Backend> = match options.stages {
            Some(stages) => Arc::new(Timed { inner: placed.backend, stages }),
            None => placed.backend,
        };
        let network = Network::load(&file, backend, progress)?;
        let tokenizer = match options.tokenizer_json {
            Some(json) => Tokenizer::from_json("tokenizer.json", json)?,
            None => {
                let pre = options.pre.map(str::to_string);
                Tokenizer::from_metadata(&file.metadata, &tokenizer::Options { pre })?
            }
        };
        if tokenizer.vocab_size() > network.n_vocab() {
            return Err(Error::malformed(
                file.name(),
                format!(
                    "the tokenizer has {} tokens, the embedding only {} rows",
                    tokenizer.vocab_size(),
                    network.n_vocab()
                ),
            ));
        }
        let template = match options.chat_template {
            Some(source) => Some(source.to_string()),
            None => file.metadata.string("tokenizer.chat_template")?.map(str::to_string),
        };
        if let Some(packs) = &packs {
            self.finish_packs(packs);
        }
        let mut metadata = std::mem::take(&mut file.metadata);
        // The tokenizer holds what these arrays said; a vocabulary need not be in memory twice.
        metadata.drop_arrays("tokenizer.ggml.");
        let model = Model {
            path: PathBuf::from(metadata.file()),
            gpu_layers: placed.gpu_layers,
            tensor_bytes: file.tensor_bytes(),
            parameters: file.tensors.iter().map(|t| t.dimensions.iter().product::<usize>() as u64).sum(),
            engine: self.clone(),
            metadata,
            network,
            tokenizer,
            template,
            chat: OnceCell::new(),
        };
        self.log(LogLevel::Info, || {
            format!(
                "loaded {}: {}, {} layers, {:.1} MB in {:.0} ms",
                model.path.display(),
                model.network.config.architecture,
                model.network.config.block_count,
                model.tensor_bytes as f64 / 1e6,
                began.elapsed().as_secs_f64() * 1e3
            )
        });
        Ok(Arc::new(model))
    }
}

impl Engine {
    fn open_packs(&self, path: PathBuf, file: &ModelFile) -> Result<Arc<PackFile>> {
        let (packs, complaint) = PackFile::open(path, file.fingerprint()?, &self.pool);
        if let Some(complaint) = complaint {
            self.log(LogLevel::Warning, || format!("{complaint}; the weights are packed anew"));
        }
        Ok(Arc::new(packs))
    }

    /// Writes what was packed. A cache that cannot be written costs the next load its time, not this one its model.
    fn finish_packs(&self, packs: &PackFile) {
        let path = packs.path().display();
        match packs.finish() {
            Ok(None) => self.log(LogLevel::Info, || format!("packed weights from {path}")),
            Ok(Some(bytes)) => self.log(LogLevel::Info, || format!("wrote {path}, {:.1} MB", bytes as f64 / 1e6)),
            Err(error) => self.log(LogLevel::Warning, || format!("packed weights are not kept: {error}")),
        }
    }
}

/// A loaded model: immutable, usable from any number of threads, shared by all its sessions.
pub struct Model {
    /// Where it came from (`<memory>`, `<reader>` if not from a path).
    pub path: PathBuf,
    /// The file's key-value pairs, without the arrays of the vocabulary.
    pub metadata: Metadata,
    /// Layers that are on GPUs.
    pub gpu_layers: usize,
    /// Bytes of all tensors in the file.
    pub tensor_bytes: u64,
    /// Elements of all tensors.
    pub parameters: u64,
    engine: Arc<Engine>,
    network: Network,
    tokenizer: Tokenizer,
    template: Option<String>,
    chat: OnceCell<ChatTemplate>,
}

impl Model {
    /// The engine that loaded it.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Configuration and weights.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens of `text`. `add_special` adds what the metadata asks for (BOS, EOS), though no second BOS before one
    /// that a chat template has written; `parse_special` reads `<|im_start|>` and its like as tokens, not as text.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let mut tokens = self.tokenizer.encode(text, add_special, parse_special)?;
        if let [first, second, ..] = tokens.as_slice()
            && first == second
            && add_special
            && self.tokenizer.add_bos()
            && Some(*first) == self.tokenizer.bos()
        {
            tokens.remove(0);
        }
        Ok(tokens)
    }

    /// The Jinja source of the chat template, if there is one.
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// The text of a conversation in the model's own chat format.
    pub fn format_chat(&self, messages_json: &str, options: &RenderOptions) -> Result<String> {
        self.chat.get_or_try_init(|| self.compile(self.template.as_deref()))?.render(messages_json, options)
    }

    /// The text of a conversation in the format of another template.
    pub fn format_chat_with(&self, template: &str, messages_json: &str, options: &RenderOptions) -> Result<String> {
        self.compile(Some(template))?.render(messages_json, options)
    }

    fn compile(&self, template: Option<&str>) -> Result<ChatTemplate> {
        let source = template.ok_or_else(|| {
            Error::Template(format!(
                "{} has none (tokenizer.chat_template); give one as an option",
                self.path.display()
            ))
        })?;
        let text = |id: Option<u32>| id.and_then(|id| self.tokenizer.token_text(id)).unwrap_or_default();
        ChatTemplate::new(source, text(self.tokenizer.bos()), text(self.tokenizer.eos()))
    }
}
