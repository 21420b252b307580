//! Runs `llvm-objdump` and splits what it prints into lines.
//!
//! Reading LLVM's text instead of machine words leaves the decoding of encodings to LLVM, which the compiler of the
//! kernels shares: there is one decoder less to get wrong.

use std::io::Write;
use std::process::Command;

/// An instruction as it was disassembled.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its address in the object's image.
    pub address: u64,
    pub words: Vec<u32>,
    /// The text without address and words.
    pub text: String,
}

impl Line {
    pub fn size(&self) -> u64 {
        4 * self.words.len() as u64
    }
}

pub struct Disassembly {
    pub lines: Vec<Line>,
    /// Addresses of functions.
    pub labels: Vec<u64>,
}

/// The disassembly of an object's text.
pub fn disassemble(object: &[u8], arch: &str) -> Result<Disassembly, String> {
    let path = std::env::temp_dir().join(format!("rfemu-{}-{:x}.hsaco", std::process::id(), unique()));
    let write = || std::fs::File::create(&path)?.write_all(object);
    write().map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    let output = run(&path, arch);
    let _ = std::fs::remove_file(&path);
    parse(&output?)
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// `$RFEMU_OBJDUMP`, or the first `llvm-objdump` that starts.
fn run(path: &std::path::Path, arch: &str) -> Result<String, String> {
    let chosen = std::env::var("RFEMU_OBJDUMP").ok();
    let candidates = match &chosen {
        Some(program) => vec![program.as_str()],
        None => vec!["llvm-objdump-19", "/usr/lib/llvm-19/bin/llvm-objdump", "llvm-objdump", "llvm-objdump-20"],
    };
    let mut reason = String::new();
    for program in candidates {
        match Command::new(program).arg("-d").arg(format!("--mcpu={arch}")).arg(path).output() {
            Ok(output) if output.status.success() => return Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(output) => reason = format!("{program}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(e) => reason = format!("{program}: {e}"),
        }
    }
    Err(format!("no llvm-objdump could disassemble the object (set RFEMU_OBJDUMP): {reason}"))
}

fn parse(output: &str) -> Result<Disassembly, String> {
    let mut disassembly = Disassembly { lines: Vec::new(), labels: Vec::new() };
    for text in output.lines() {
        if let Some(rest) = text.strip_prefix('\t') {
            disassembly.lines.push(parse_line(rest).ok_or_else(|| format!("a line without an address: {rest}"))?);
        } else if let Some((address, name)) = text.split_once(' ')
            && name.starts_with('<')
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            disassembly.labels.push(address);
        }
    }
    Ok(disassembly)
}

/// `text // address: words <branch target>`
fn parse_line(line: &str) -> Option<Line> {
    let (text, comment) = line.rsplit_once("//")?;
    let (address, words) = comment.trim().split_once(':')?;
    let hex = |word: &str| u32::from_str_radix(word, 16).ok();
    Some(Line {
        address: u64::from_str_radix(address, 16).ok()?,
        words: words.split_whitespace().map_while(hex).collect(),
        text: text.trim().to_string(),
    })
}
