//! The first ten minutes: `examples/c/generate.c` is short, is the one that README.md shows, and answers; README.md's
//! table names what the code serves.

mod common;
#[path = "common/compile.rs"]
mod compile;

use std::path::Path;
use std::process::Command;

use common::model_path;
use compile::{ROOT, compiler, link, run};

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn readme_shows_the_example() {
    let example = text("examples/c/generate.c");
    assert!(example.lines().count() < 60, "the example has {} lines", example.lines().count());
    assert!(text("README.md").contains(&format!("```c\n{example}```")), "README.md shows another example");
}

/// README.md's commands: what `make` is asked for exists, and what compiles the example compiles it.
#[test]
fn readme_commands_work() {
    let readme = text("README.md");
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block);
    let commands: Vec<&str> = blocks.flat_map(str::lines).map(|l| l.split(" #").next().unwrap_or(l).trim()).collect();
    assert!(commands.len() >= 7, "{commands:?}");
    let folder = tempfile::tempdir().expect("a folder");
    for command in commands {
        if let Some(target) = command.trim_start_matches("sudo ").strip_prefix("make ") {
            run(Command::new("make").args(["-n", "-C", ROOT, "CI=true", target]));
        } else if command.starts_with("cc ") {
            // From the folder of this build, and as if it were installed.
            let library = compile::library_folder();
            let found = format!("-I{ROOT}/include -L{} -lrocmforge", library.display());
            let command = command
                .replace("$(pkg-config --cflags --libs rocmforge)", &found)
                .replace("target/release", &library.display().to_string())
                .replace("$PWD/", "")
                .replace("-o generate", &format!("-o {}", folder.path().join("generate").display()));
            run(Command::new("sh").args(["-c", &command]).current_dir(ROOT));
        } else {
            // Nothing but the command line, which tests/cli.rs runs.
            assert!(command.starts_with("target/release/rocmforge chat "), "nobody tests '{command}'");
        }
    }
}

#[test]
fn example_answers() {
    let Some(model) = model_path("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("generate");
    let mut build = compiler(false);
    build.args(["-std=c99", "-Wconversion"]).arg(Path::new(ROOT).join("examples/c/generate.c"));
    link(&mut build, &program);
    run(&mut build);
    // Quotes and backslashes have to survive the way through JSON.
    let output = run(Command::new(&program).arg(model).arg(r#"Say "hello" and \ in one sentence."#));
    let (answer, speed) = output.rsplit_once("\n\n").expect("an answer, and its speed");
    assert!(answer.trim().len() > 3 && !answer.contains("<|im_"), "{output}");
    assert!(speed.contains("tokens/s"), "{output}");

    let failed = Command::new(&program).arg("/no/such/model.gguf").output().expect("the program");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("/no/such/model.gguf"));
}

/// The cells of README's table of what is served, by the name in their first cell.
fn served(row: &str) -> String {
    let readme = text("README.md");
    let line = readme.lines().find(|line| line.starts_with(&format!("| {row} |")));
    line.unwrap_or_else(|| panic!("README.md has no row '{row}'")).to_string()
}

#[test]
fn readme_names_what_is_served() {
    let architectures = served("Architectures");
    for name in rocmforge::model::config::architectures() {
        assert!(architectures.contains(&format!("`{name}`")), "README.md does not name {name}");
    }
    let row = served("Tensor types");
    let mut cells: Vec<&str> = row.split('|').nth(2).unwrap_or_default().split(',').map(str::trim).collect();
    let formats = rocmforge::quant::FORMATS.iter().filter(|format| format.decode.is_some());
    let mut names: Vec<&str> = formats.map(|format| format.name).collect();
    names.sort_unstable();
    cells.sort_unstable();
    assert_eq!(cells, names);
}
