//! Compiling at run time, for devices that no embedded code object serves: hiprtc or NVRTC, opened like the driver.

use std::ffi::{CString, c_char, c_int, c_void};

use super::driver::{Library, Vendor};

/// Source files by their names.
pub type Sources = &'static [(&'static str, &'static str)];

type Program = *mut c_void;

/// A run-time compiler.
pub struct Compiler {
    /// The library's name.
    pub name: String,
    vendor: Vendor,
    library: Library,
}

/// The file that includes all others.
const MAIN: &str = "all.hip";

impl Compiler {
    /// Opens the compiler for devices of `vendor`, or says why not.
    pub fn open(vendor: Vendor) -> Result<Compiler, String> {
        let names: &[&str] = match vendor {
            Vendor::Amd => &["libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so"],
            Vendor::Nvidia => &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
        };
        let mut reason = String::new();
        for name in names {
            match Library::open(name) {
                Ok(library) => return Ok(Compiler { name: name.to_string(), vendor, library }),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    fn function(&self, part: &str) -> Result<*mut c_void, String> {
        let prefix = match self.vendor {
            Vendor::Amd => "hiprtc",
            Vendor::Nvidia => "nvrtc",
        };
        let name = format!("{prefix}{part}");
        match self.library.symbol(&name) {
            address if address.is_null() => Err(format!("{} has no function {name}", self.name)),
            address => Ok(address),
        }
    }

    /// Compiles the kernels for `architecture`; the compiler's own words if it cannot.
    pub fn compile(&self, sources: Sources, defines: &[&str], architecture: &str) -> Result<Vec<u8>, String> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

        let text = |s: &str| CString::new(s).map_err(|e| e.to_string());
        let main = sources.iter().find(|(name, _)| *name == MAIN).ok_or("the sources have no main file")?;
        let (source, name) = (text(main.1)?, text(main.0)?);
        let headers = sources.iter().filter(|(name, _)| *name != MAIN);
        let contents = headers.clone().map(|(_, source)| text(source)).collect::<Result<Vec<_>, _>>()?;
        let names = headers.map(|(name, _)| text(name)).collect::<Result<Vec<_>, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let (content_pointers, name_pointers) = (pointers(&contents), pointers(&names));
        let mut options: Vec<CString> = match self.vendor {
            Vendor::Amd => vec![text(&format!("--offload-arch={architecture}"))?, text("-O3")?, text("-nogpuinc")?],
            Vendor::Nvidia => {
                let include = std::env::var("CUDA_HOME").unwrap_or_else(|_| "/usr/local/cuda".into());
                vec![
                    text(&format!("--gpu-architecture={architecture}"))?,
                    text("--std=c++17")?,
                    text(&format!("--include-path={include}/include"))?,
                    // Where CUDA 13 keeps what cuda_fp16.h includes.
                    text(&format!("--include-path={include}/include/cccl"))?,
                ]
            }
        };
        options.extend(defines.iter().map(|define| text(define)).collect::<Result<Vec<_>, _>>()?);
        let option_pointers = pointers(&options);
        // SAFETY: the documented types of these functions; all texts live until the program is destroyed.
        unsafe {
            use std::mem::transmute;
            let create = transmute::<*mut c_void, Create>(self.function("CreateProgram")?);
            let compile = transmute::<*mut c_void, Compile>(self.function("CompileProgram")?);
            let destroy = transmute::<*mut c_void, Destroy>(self.function("DestroyProgram")?);
            let mut program = std::ptr::null_mut();
            let code = create(
                &mut program,
                source.as_ptr(),
                name.as_ptr(),
                names.len() as c_int,
                content_pointers.as_ptr(),
                name_pointers.as_ptr(),
            );
            if code != 0 {
                return Err(format!("{} error {code} creating the program", self.name));
            }
            let result = match compile(program, option_pointers.len() as c_int, option_pointers.as_ptr()) {
                0 if self.vendor == Vendor::Amd => self.output(program, "GetCodeSize", "GetCode"),
                0 => self.output(program, "GetCUBINSize", "GetCUBIN"),
                code => Err(match self.output(program, "GetProgramLogSize", "GetProgramLog") {
                    Ok(log) => String::from_utf8_lossy(&log).trim_matches('\0').chars().take(2000).collect(),
                    Err(_) => format!("{} error {code}", self.name),
                }),
            };
            destroy(&mut program);
            result
        }
    }

    /// # Safety
    /// `program` is alive; `size` and `get` name a pair of functions that tell a size and fill as many bytes.
    unsafe fn output(&self, program: Program, size: &str, get: &str) -> Result<Vec<u8>, String> {
        let size_name = size;
        let (size, get) = (self.function(size)?, self.function(get)?);
        // SAFETY: the documented types; as the caller promises.
        unsafe {
            let size = std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Program, *mut usize) -> c_int>(size);
            let get = std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Program, *mut c_char) -> c_int>(get);
            let mut bytes = 0;
            if size(program, &mut bytes) != 0 {
                return Err(format!("{}: {size_name} failed", self.name));
            }
            let mut out = vec![0u8; bytes];
            if get(program, out.as_mut_ptr().cast()) != 0 {
                return Err(format!("{}: what {size_name} announced cannot be had", self.name));
            }
            Ok(out)
        }
    }
}
