//! `include/rocmforge.h` is what cbindgen makes of `src/capi`; every function in it says what a caller has to know.
//!
//! `RF_UPDATE_HEADER=1 cargo test --test header` writes the header anew.

use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The include guard's end.
const END: &str = "#endif  /* ROCMFORGE_H */";

/// What stands before the initialisers. Neither form leaves fields out of a list: hosts compile with
/// -Wmissing-field-initializers.
const INITIALISERS: &str = "// Initialisers: they set struct_size and zero the rest.
#ifdef __cplusplus
#  define RF_INIT_(type) [] { type zero{}; zero.struct_size = sizeof(type); return zero; }()
#else
#  define RF_INIT_(type) {.struct_size = sizeof(type)}
#endif
";

/// The size-tagged structs: each gets an initialiser macro.
fn tagged_structs(header: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_struct = false;
    let mut tagged = false;
    for line in header.lines() {
        if line.starts_with("typedef struct") && line.ends_with('{') {
            (in_struct, tagged) = (true, false);
        }
        tagged |= in_struct && line.trim() == "uint32_t struct_size;";
        if let Some(name) = line.strip_prefix("} ").and_then(|rest| rest.strip_suffix(';')) {
            if in_struct && tagged {
                names.push(name.to_string());
            }
            in_struct = false;
        }
    }
    names
}

/// The line, its macro's value in parentheses if it is negative: `0 -RF_E_IO` has to compile.
fn parenthesised(line: &str) -> String {
    let value = line.strip_prefix("#define ").and_then(|rest| rest.split_once(" -"));
    value.map_or(format!("{line}\n"), |(name, digits)| format!("#define {name} (-{digits})\n"))
}

fn generate() -> String {
    let config = cbindgen::Config::from_file(Path::new(ROOT).join("cbindgen.toml")).expect("cbindgen.toml");
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = builder.with_src(Path::new(ROOT).join("src/capi/mod.rs"));
    let mut bytes = Vec::new();
    builder.generate().expect("cbindgen").write(&mut bytes);
    let header = String::from_utf8(bytes).expect("UTF-8");
    let initialisers: String = tagged_structs(&header)
        .iter()
        .map(|name| format!("#define {}_INIT RF_INIT_({name})\n", name.to_uppercase()))
        .collect();
    let header: String = header.lines().map(parenthesised).collect();
    header.replacen(END, &format!("{INITIALISERS}{initialisers}\n{END}"), 1)
}

#[test]
fn header_is_current() {
    let path = Path::new(ROOT).join("include/rocmforge.h");
    let generated = generate();
    if std::env::var_os("RF_UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).expect("write the header");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "include/rocmforge.h is not what src/capi says: run `make header` and commit it");
}

/// Each function's name and the comment before it.
fn functions(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in header.lines() {
        if let Some(text) = line.trim_start().strip_prefix("//") {
            comment.push_str(text);
            comment.push('\n');
            continue;
        }
        if line.starts_with("RF_API") {
            let name = line.split('(').next().and_then(|head| head.split([' ', '*']).next_back()).unwrap_or_default();
            found.push((name.to_string(), comment.clone()));
        }
        comment.clear();
    }
    found
}

#[test]
fn every_function_states_its_terms() {
    let header = generate();
    let functions = functions(&header);
    assert!(functions.len() > 35, "only {} functions were found", functions.len());
    assert!(functions.len() < 90, "{} functions: the design allows fewer than 90", functions.len());
    for (name, comment) in functions {
        for term in ["Ownership:", "Threads:", "Errors:", "Since:"] {
            assert!(comment.contains(term), "{name} does not state '{term}'");
        }
    }
}

#[test]
fn versions_agree() {
    let header = generate();
    let number = |name: &str| {
        let line = header.lines().find_map(|l| l.strip_prefix(&format!("#define {name} "))).expect(name);
        line.trim().parse::<u32>().expect(name)
    };
    let version = ["RF_VERSION_MAJOR", "RF_VERSION_MINOR", "RF_VERSION_PATCH"].map(|n| number(n).to_string()).join(".");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}
