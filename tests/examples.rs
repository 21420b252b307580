//! The first ten minutes: `examples/c/generate.c` is short, is the one that README.md shows, and answers.

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
