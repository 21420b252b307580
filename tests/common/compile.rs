//! C programs against the shared library that cargo has built for the tests.
#![allow(dead_code)] // each test file uses a part

use std::path::{Path, PathBuf};
use std::process::Command;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What the header, the harness and the examples have to live with.
pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

/// Where cargo puts what the tests link with: beside the test that is running.
pub fn library_folder() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let folder = test.parent().expect("a folder").to_path_buf();
    assert!(folder.join("librocmforge.so").exists(), "{} has no librocmforge.so", folder.display());
    folder
}

/// The C compiler, or the C++ compiler, with this header's folder.
pub fn compiler(cpp: bool) -> Command {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cc::Build::new();
    build.cargo_metadata(false).opt_level(1).debug(true).target(&target).host(&target).out_dir(std::env::temp_dir());
    let mut command = build.cpp(cpp).warnings(false).get_compiler().to_command();
    command.args(WARNINGS).arg(format!("-I{ROOT}/include"));
    command
}

/// Adds what makes `program` find the library when it links and when it runs.
pub fn link(command: &mut Command, program: &Path) {
    let folder = library_folder();
    command.arg("-o").arg(program).arg("-L").arg(&folder).args(["-lrocmforge", "-lpthread", "-lm"]);
    // An rpath of the old kind comes before LD_LIBRARY_PATH, in which cargo names a folder with what was built last, and
    // not for this test.
    command.arg(format!("-Wl,--disable-new-dtags,-rpath,{}", folder.display()));
}

/// Runs the command; its standard output. A failure shows all that it said.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The functions that the header declares.
pub fn declared_functions() -> Vec<String> {
    let header = std::fs::read_to_string(Path::new(ROOT).join("include/rocmforge.h")).expect("the header");
    let mut names = Vec::new();
    for declaration in header.split("\nRF_API").skip(1) {
        let head = declaration.split('(').next().unwrap_or_default();
        names.push(head.split([' ', '*', '\n']).next_back().unwrap_or_default().to_string());
    }
    names
}
