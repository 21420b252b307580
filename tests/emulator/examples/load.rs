//! Loads code objects and says what the emulator makes of them: `cargo run --example load -- FILE.hsaco…`

use amdhip64::object::{Object, Program};

fn main() {
    for path in std::env::args().skip(1) {
        let outcome = std::fs::read(&path).map_err(|e| e.to_string()).and_then(|file| {
            let object = Object::parse(&file)?;
            let program = Program::build(&file, &object)?;
            let kernels = object.kernels.len();
            Ok(format!("{}: {kernels} kernels, {} different instructions", object.arch, program.mnemonics().len()))
        });
        println!("{path}: {}", outcome.unwrap_or_else(|problem| problem));
    }
}
