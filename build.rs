//! Compiles `kernels/` to code objects, one for each GPU architecture, and writes the Rust that embeds them.
//!
//! Any clang from 16 on that can target amdgcn will do, ROCm's or the system's: the kernels use no ROCm header and no
//! device library. Without one the library is built for CPUs, and one warning says so.
//!
//! Environment: `HIPCC`, `ROCM_PATH` (where hipcc is), `ROCm_ARCH` (architectures, separated by semicolons or commas;
//! empty for none), `NVCC` and `CUDA_ARCH` (code for NVIDIA's architectures too), and for tuning `ROCFORGE_BLOCK_SIZE`,
//! `ROCFORGE_WARP_SIZE`, `ROCFORGE_USE_LDS`, `ROCFORGE_LDS_SIZE`, `ROCFORGE_TILE_K`, `ROCFORGE_TILE_N`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

/// Architectures that code is embedded for unless `ROCm_ARCH` says otherwise.
const DEFAULT_ARCHITECTURES: &str = "gfx1030;gfx1100;gfx1101;gfx1201;gfx90a;gfx942";

/// Environment variable, macro of the kernels, what it may be.
const TUNING: [(&str, &str, std::ops::RangeInclusive<u32>); 6] = [
    ("ROCFORGE_BLOCK_SIZE", "RF_BLOCK_SIZE", 64..=1024),
    ("ROCFORGE_WARP_SIZE", "RF_WARP_SIZE", 32..=64),
    ("ROCFORGE_USE_LDS", "RF_USE_LDS", 0..=1),
    ("ROCFORGE_LDS_SIZE", "RF_LDS_SIZE", 16384..=65536),
    ("ROCFORGE_TILE_K", "RF_TILE_K", 32..=256),
    ("ROCFORGE_TILE_N", "RF_TILE_N", 16..=256),
];

/// What the Rust side launches by, unless the environment says otherwise: threads of a block of the matrix-vector kernels,
/// rows of activations of a block of the matrix-matrix kernels, lanes of a wave of RDNA, whether decoding keeps its
/// activations in shared memory (LDS), and how much of that a launch may take (0: what the device has).
const SHARED_WITH_RUST: [(&str, u32); 5] =
    [("RF_BLOCK_SIZE", 512), ("RF_TILE_N", 64), ("RF_WARP_SIZE", 32), ("RF_USE_LDS", 1), ("RF_LDS_SIZE", 0)];

/// The file that includes all others.
const MAIN: &str = "all.hip";

enum Compiler {
    /// A HIP compiler: clang itself, or hipcc before it.
    Hip(PathBuf),
    Cuda(PathBuf),
}

struct Job {
    architecture: String,
    compiler: Compiler,
}

fn main() {
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["HIPCC", "ROCM_PATH", "ROCm_ARCH", "NVCC", "CUDA_ARCH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    name_shared_library(&out);
    let defines = tuning();
    let objects = compile_all(&out, &jobs(), &defines);
    write_table(&out, &objects, &defines);
}

/// Gives the shared library its SONAME: `librocmforge.so.0.N` before 1.0, when a minor version may change the binary
/// interface, `librocmforge.so.N` from then on.
///
/// Programs that link with it where cargo put it look for it by that name, so that a link of that name is laid there.
fn name_shared_library(out: &Path) {
    let target = |key: &str| env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    if target("FAMILY") != "unix" || target("VENDOR") == "apple" {
        return;
    }
    let version = |part: &str| env::var(format!("CARGO_PKG_VERSION_{part}")).expect("cargo sets the version");
    let (major, minor) = (version("MAJOR"), version("MINOR"));
    let name = match major.as_str() {
        "0" => format!("librocmforge.so.0.{minor}"),
        _ => format!("librocmforge.so.{major}"),
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{name}");
    // <target>/<profile>/build/<package>/out; cargo links in <profile>/deps and copies to <profile>.
    #[cfg(unix)]
    if let Some(profile) = out.ancestors().nth(3) {
        for folder in [profile.to_path_buf(), profile.join("deps")] {
            let link = folder.join(&name);
            if fs::symlink_metadata(&link).is_err() {
                // Two builds may lay it at once. A link that could not be laid is missed by those who need it.
                let _ = std::os::unix::fs::symlink("librocmforge.so", link);
            }
        }
    }
}

/// The tuning macros: those that the environment sets, and those that the Rust side has to know.
fn tuning() -> Vec<String> {
    let mut values: BTreeMap<&str, u32> = SHARED_WITH_RUST.into();
    for (variable, name, range) in TUNING {
        println!("cargo:rerun-if-env-changed={variable}");
        let Ok(text) = env::var(variable) else { continue };
        let value: u32 = text.parse().unwrap_or_else(|_| panic!("{variable} is '{text}', which is no number"));
        let (least, most) = (range.start(), range.end());
        assert!(range.contains(&value), "{variable} is {value}, it may be {least} to {most}");
        values.insert(name, value);
    }
    assert!(values["RF_BLOCK_SIZE"].is_multiple_of(64), "ROCFORGE_BLOCK_SIZE must be a multiple of 64");
    assert!([32, 64].contains(&values["RF_WARP_SIZE"]), "ROCFORGE_WARP_SIZE must be 32 or 64");
    assert!(values["RF_TILE_N"].is_multiple_of(16), "ROCFORGE_TILE_N must be a multiple of 16");
    for (name, _) in SHARED_WITH_RUST {
        println!("cargo:rustc-env={name}={}", values[name]);
    }
    values.into_iter().map(|(name, value)| format!("-D{name}={value}")).collect()
}

fn jobs() -> Vec<Job> {
    let mut jobs = Vec::new();
    let architectures = env::var("ROCm_ARCH").unwrap_or_else(|_| DEFAULT_ARCHITECTURES.into());
    let architectures: Vec<_> = list(&architectures);
    if !architectures.is_empty() {
        match hip_compiler() {
            Some(compiler) => jobs.extend(
                architectures
                    .into_iter()
                    .map(|architecture| Job { architecture, compiler: Compiler::Hip(compiler.clone()) }),
            ),
            None => println!(
                "cargo:warning=no HIP compiler was found (HIPCC, ROCM_PATH, clang-19 …): this build has no GPU code and \
                 serves CPUs only"
            ),
        }
    }
    if let Some(nvcc) = env::var_os("NVCC") {
        let architectures = env::var("CUDA_ARCH").unwrap_or_else(|_| "sm_80;sm_90".into());
        jobs.extend(
            list(&architectures)
                .into_iter()
                .map(|architecture| Job { architecture, compiler: Compiler::Cuda(PathBuf::from(&nvcc)) }),
        );
    }
    jobs
}

fn list(text: &str) -> Vec<String> {
    text.split([';', ',', ' ']).map(str::trim).filter(|s| !s.is_empty()).map(str::to_string).collect()
}

/// The first compiler that makes a code object of an empty kernel.
fn hip_compiler() -> Option<PathBuf> {
    if let Some(hipcc) = env::var_os("HIPCC") {
        return Some(PathBuf::from(hipcc));
    }
    let rocm = PathBuf::from(env::var_os("ROCM_PATH").unwrap_or_else(|| "/opt/rocm".into()));
    let mut candidates = vec![rocm.join("bin/hipcc"), rocm.join("llvm/bin/clang++")];
    candidates.extend((16..=24).rev().map(|n| PathBuf::from(format!("clang-{n}"))));
    candidates.push("clang".into());
    candidates.into_iter().find(|compiler| targets_amdgcn(compiler))
}

fn targets_amdgcn(compiler: &Path) -> bool {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let source = out.join("probe.hip");
    let written = fs::write(&source, "extern \"C\" __attribute__((global)) void probe() {}\n");
    written.is_ok()
        && hip_command(compiler, "gfx1100", &out.join("probe.hsaco"), &source)
            .output()
            .is_ok_and(|output| output.status.success())
}

fn hip_command(compiler: &Path, architecture: &str, object: &Path, source: &Path) -> Command {
    let mut command = Command::new(compiler);
    command
        .args(["-x", "hip", &format!("--offload-arch={architecture}"), "--no-gpu-bundle-output", "-O3"])
        .args(["-nogpuinc", "-nogpulib", "-fdeclspec"])
        .arg(if compiler.ends_with("hipcc") { "--genco" } else { "--offload-device-only" })
        .arg(source)
        .arg("-o")
        .arg(object);
    if architecture.starts_with("gfx1") && env::var("ROCFORGE_WARP_SIZE").is_ok_and(|size| size == "64") {
        command.arg("-mwavefrontsize64");
    }
    command
}

fn cuda_command(compiler: &Path, architecture: &str, object: &Path, source: &Path) -> Command {
    let mut command = Command::new(compiler);
    command
        .args(["-x", "cu", "-std=c++17", "-O3", "-cubin", &format!("-arch={architecture}")])
        .arg(source)
        .arg("-o")
        .arg(object);
    command
}

/// Runs the jobs on as many threads as cargo grants; an architecture that fails is left out, and a warning says why.
fn compile_all(out: &Path, jobs: &[Job], defines: &[String]) -> Vec<(String, PathBuf)> {
    let threads = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize).clamp(1, 8);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(object) = compile(out, job, defines) {
                        done.lock().expect("no thread panics").push((job.architecture.clone(), object));
                    }
                }
            });
        }
    });
    let mut objects = done.into_inner().expect("no thread panics");
    objects.sort();
    objects
}

fn compile(out: &Path, job: &Job, defines: &[String]) -> Option<PathBuf> {
    let source = Path::new("kernels").join(MAIN);
    let object = out.join(format!("{}.bin", job.architecture));
    let mut command = match &job.compiler {
        Compiler::Hip(compiler) => hip_command(compiler, &job.architecture, &object, &source),
        Compiler::Cuda(compiler) => cuda_command(compiler, &job.architecture, &object, &source),
    };
    command.arg("-Ikernels").args(defines);
    let kept = kept_object(out, &job.architecture, &command);
    if kept.as_ref().is_some_and(|kept| fs::copy(kept, &object).is_ok()) {
        return Some(object);
    }
    let reason = match command.output() {
        Ok(output) if output.status.success() => {
            if let Some(kept) = kept {
                keep(&object, &kept);
            }
            return Some(object);
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<_> = text.lines().filter(|line| line.contains("error")).take(3).collect();
            if lines.is_empty() { text } else { lines.join(" / ") }
        }
        Err(error) => error.to_string(),
    };
    println!("cargo:warning=no code for {}: {}", job.architecture, reason.replace('\n', " "));
    None
}

/// Where an object of these sources, compiler and arguments is kept for builds of other profiles: compiling takes longer
/// than all of the Rust. The name tells what it was made of.
fn kept_object(out: &Path, architecture: &str, command: &Command) -> Option<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for path in sources() {
        path.hash(&mut hasher);
        fs::read(&path).ok()?.hash(&mut hasher);
    }
    let version = Command::new(command.get_program()).arg("--version").output().ok()?;
    (command.get_program(), version.stdout).hash(&mut hasher);
    // The object's own path differs between builds.
    let arguments = command.get_args().filter(|argument| !Path::new(argument).starts_with(out));
    arguments.for_each(|argument| argument.hash(&mut hasher));
    // <target>/<profile>/build/<package>/out
    let folder = out.ancestors().nth(4)?.join("kernels");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join(format!("{architecture}-{:016x}.bin", hasher.finish())))
}

/// Keeps a finished object; another build may do the same at the same time.
fn keep(object: &Path, kept: &Path) {
    let unfinished = kept.with_extension(std::process::id().to_string());
    if fs::copy(object, &unfinished).is_ok() && fs::rename(&unfinished, kept).is_err() {
        let _ = fs::remove_file(unfinished);
    }
}

/// The files in `kernels/`, by name.
fn sources() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir("kernels")
        .expect("kernels/ is part of the sources")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "hip" || e == "h"))
        .collect();
    files.sort();
    files
}

/// Writes `code_objects.rs`: the objects, and the sources and macros for compilers at run time.
fn write_table(out: &Path, objects: &[(String, PathBuf)], defines: &[String]) {
    let mut text = String::from("/// Code objects by architecture.\nstatic CODE_OBJECTS: &[(&str, &[u8])] = &[\n");
    for (architecture, object) in objects {
        writeln!(text, "    ({architecture:?}, include_bytes!({object:?})),").expect("a String takes all");
    }
    text.push_str("];\n\n/// The kernels' sources by file name.\nstatic KERNEL_SOURCES: rtc::Sources = &[\n");
    for path in sources() {
        let name = path.file_name().and_then(|n| n.to_str()).expect("names are ASCII");
        let path = fs::canonicalize(&path).expect("it was just listed");
        writeln!(text, "    ({name:?}, include_str!({path:?})),").expect("a String takes all");
    }
    text.push_str("];\n\n");
    writeln!(
        text,
        "/// The macros that the kernels were compiled with.\nstatic KERNEL_DEFINES: &[&str] = &{defines:?};"
    )
    .expect("a String takes all");
    fs::write(out.join("code_objects.rs"), text).expect("OUT_DIR can be written");
}
