//! The C face as C programs see it: the harness in `tests/c`, the header in three languages, the exported symbols.

#[path = "common/compile.rs"]
mod compile;
#[path = "common/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};
use std::process::Command;

use compile::{ROOT, compiler, declared_functions, library_folder, link, run};

fn harness_sources() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(Path::new(ROOT).join("tests/c")).expect("tests/c");
    let files = folder.map(|entry| entry.expect("an entry").path());
    let mut sources: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "c")).collect();
    sources.sort();
    sources
}

/// Builds the harness with `flags` and runs it on a tiny model; what it printed.
fn run_harness(flags: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("tiny.gguf");
    std::fs::write(&model, tiny::llama().bytes()).expect("write");
    let program = folder.path().join("harness");
    let mut build = compiler(false);
    build.arg("-std=c99").args(flags).args(harness_sources());
    link(&mut build, &program);
    run(&mut build);
    let output = Command::new(program).arg(model).output().expect("the harness");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    // The harness prints one line at its end; whatever else there is came from the library.
    assert!(out.lines().count() == 1 && err.is_empty(), "the library printed:\n{out}{err}");
    out.into_owned()
}

fn assert_all_passed(output: &str) {
    let words: Vec<&str> = output.split_whitespace().collect();
    let checks = words.first().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    assert!(checks > 500 && output.trim_end().ends_with(" 0 failed"), "{output}");
}

#[test]
fn harness_passes() {
    assert_all_passed(&run_harness(&[]));
}

/// Nothing that C gives or gets is lost, read too far, or used after it was freed.
#[test]
fn harness_passes_under_address_and_undefined_behaviour_sanitizers() {
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("empty.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("write");
    let mut probe = compiler(false);
    probe.args(flags).arg(source).arg("-o").arg(folder.path().join("empty"));
    if !probe.output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "in CI the C compiler must have sanitizers");
        eprintln!("SKIPPED: the C compiler has no sanitizers");
        return;
    }
    assert_all_passed(&run_harness(&flags));
}

#[test]
fn header_compiles_in_every_language_that_it_promises() {
    let header = std::fs::read_to_string(Path::new(ROOT).join("include/rocmforge.h")).expect("the header");
    let initialisers: Vec<&str> =
        header.lines().filter_map(|l| l.strip_prefix("#define RF_")?.split_once("_INIT ")).map(|(n, _)| n).collect();
    assert!(initialisers.len() >= 10, "{initialisers:?}");
    let mut source =
        String::from("#include <rocmforge.h>\n#include <rocmforge.h>\nint main(void) {\n    uint32_t size = 0;\n");
    for name in initialisers {
        let lower = name.to_lowercase();
        source += &format!("    rf_{lower} {lower} = RF_{name}_INIT;\n    size += {lower}.struct_size;\n");
    }
    source += "    return size == 0 || 0 -RF_E_IO != 2 || RF_STRLEN != SIZE_MAX;\n}\n";
    let folder = tempfile::tempdir().expect("a folder");
    for (standard, extension) in
        [("c99", "c"), ("c11", "c"), ("c17", "c"), ("c++11", "cc"), ("c++17", "cc"), ("c++20", "cc")]
    {
        let file = folder.path().join(format!("header.{extension}"));
        std::fs::write(&file, &source).expect("write");
        let program = folder.path().join("header");
        let mut build = compiler(extension == "cc");
        build
            .arg(format!("-std={standard}"))
            .args(["-Wconversion", "-Wshadow", "-Wundef"])
            .arg(&file)
            .arg("-o")
            .arg(&program);
        run(&mut build);
        run(&mut Command::new(program));
    }
}

/// A function that is added comes with calls in the harness, and with NULL for its pointers.
#[test]
fn harness_calls_every_function() {
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a source");
    let all: String = harness_sources().iter().map(read).collect();
    let null = read(&Path::new(ROOT).join("tests/c/null.c"));
    let takes_no_pointer = ["rf_version", "rf_abi_version", "rf_abi_compatible", "rf_status_name"];
    // These meet NULL in a file of their own object.
    let elsewhere = ["rf_error_status", "rf_error_message", "rf_has_feature"];
    let functions = declared_functions();
    assert!(functions.len() > 40, "{functions:?}");
    for name in functions {
        let call = format!("{name}(");
        assert!(all.contains(&call), "tests/c never calls {name}");
        let exempt = takes_no_pointer.contains(&name.as_str());
        let file = if elsewhere.contains(&name.as_str()) { &all } else { &null };
        assert!(exempt || file.contains(&call), "tests/c/null.c never calls {name}");
        if !exempt && elsewhere.contains(&name.as_str()) {
            assert!(all.contains(&format!("{name}(NULL)")), "tests/c never calls {name}(NULL)");
        }
    }
}

#[test]
fn library_exports_what_the_header_declares_and_nothing_else() {
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library_folder().join("librocmforge.so")));
    let mut exported: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    exported.sort_unstable();
    let mut declared = declared_functions();
    declared.sort_unstable();
    assert_eq!(exported, declared);
}

/// The C library, its mathematics, the compiler's support and the loader: what every Linux machine has.
#[test]
fn library_needs_what_every_machine_has() {
    let dynamic = run(Command::new("readelf").arg("-dW").arg(library_folder().join("librocmforge.so")));
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let names: Vec<&str> = needed.filter_map(|line| line.split(['[', ']']).nth(1)).collect();
    assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
    for name in names {
        let common = ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux", "libdl.so.", "libpthread.so."];
        assert!(common.iter().any(|known| name.starts_with(known)), "the library needs {name}");
    }
}

/// Programs ask for the library by a name that changes when its interface may: `.so.0.N` before 1.0.
#[test]
fn library_has_the_name_that_programs_keep() {
    let library = library_folder().join("librocmforge.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(&library));
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let suffix = if major == "0" { format!("0.{minor}") } else { major.to_string() };
    let name = format!("librocmforge.so.{suffix}");
    assert!(dynamic.contains(&format!("Library soname: [{name}]")), "{dynamic}");
    let link = library_folder().join(name);
    assert_eq!(std::fs::canonicalize(link).expect("a link"), std::fs::canonicalize(library).expect("the library"));
}
