use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::*;

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>").unwrap()
}

fn render(source: &str) -> String {
    template(source).render("[]", &RenderOptions::default()).unwrap()
}

fn refusal(source: &str) -> String {
    match ChatTemplate::new(source, "", "").and_then(|template| template.render("[]", &RenderOptions::default())) {
        Err(Error::Template(reason)) => reason,
        other => panic!("{} was not refused: {:?}", &source[..source.len().min(200)], other.map(|text| text.len())),
    }
}

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
                if rendered.as_ref().ok() != expected.as_ref() {
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

/// Refusals of hostile templates must not take much longer than this, on a slow and busy machine too.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn hostile_templates_end_in_an_error() {
    let loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}";
    let nested = |round: &str, use_it: &str| {
        format!(
            "{{% set ns = namespace(x=[], y=[]) %}}{{% for i in range(9999) %}}{{% for j in range(9999) %}}{round}\
             {{% endfor %}}{{% endfor %}}{use_it}"
        )
    };
    let doubled = |use_it: &str| {
        let mut source = "{% set x = [0] %}{% set y = [0] %}".to_owned();
        for _ in 0..60 {
            source += "{% set x = [x, x] %}{% set y = [y, y] %}";
        }
        source + use_it
    };
    for source in [
        // Time.
        format!("{loops}{{% endfor %}}{{% endfor %}}{{% endfor %}}"),
        format!("{loops}x{{% endfor %}}{{% endfor %}}{{% endfor %}}"),
        "{% for i in range(10 ** 18) %}{% endfor %}".to_owned(),
        // Recursion.
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}".to_owned(),
        // Long texts and lists.
        "{{ 'a' * 10 ** 9 }}".to_owned(),
        "{{ ('a' * 10 ** 6) * 10 ** 6 }}".to_owned(),
        "{{ ([0] * 99999999) ~ '' }}".to_owned(),
        "{% set x = [0] %}{{ (x * 99999999) ~ '' }}".to_owned(),
        "{% set x = [] %}{{ (x * 99999999) ~ (x * 10 ** 17) }}{% set y = [x] %}{{ y * 10 ** 17 }}".to_owned(),
        "{{ [0] * 10 ** 17 }}".to_owned(),
        "{{ ([] * 10 ** 17) ~ ([[]] * 10 ** 17) }}".to_owned(),
        format!(
            "{{% set ns = namespace(x='aaaaaaaa') %}}{loops}{{% set ns.x = ns.x ~ ns.x %}}{}",
            "{% endfor %}".repeat(3)
        ),
        format!(
            "{{% set ns = namespace(x='aaaaaaaa') %}}{loops}{{% set ns.x = ns.x + ns.x %}}{}",
            "{% endfor %}".repeat(3)
        ),
        format!("{{% set ns = namespace(x=[1]) %}}{loops}{{% set ns.x = ns.x + ns.x %}}{}", "{% endfor %}".repeat(3)),
        "{% set x = 'a' * 10 ** 6 %}{{ x.replace('a', x) }}".to_owned(),
        "{% set x = 'a' * 10 ** 6 %}{{ x.replace('', x) }}".to_owned(),
        "{% set x = 'a' * 10 ** 6 %}{{ x | replace('a', x) }}".to_owned(),
        "{% set x = 'a' * 10 ** 6 %}{{ x.join(x) }}".to_owned(),
        "{% set x = 'a' * 10 ** 6 %}{{ x | join(x) }}".to_owned(),
        "{% set x = 'a' * 10 ** 6 %}{{ ('b\n' * 10 ** 6) | indent(x) }}".to_owned(),
        "{% set x = '\n' * 10 ** 6 %}{{ x | indent(10 ** 6, blank=true) }}".to_owned(),
        "{{ '{:1000000000}'.format(1) }}".to_owned(),
        "{{ '{:{}}'.format(1, 1000000000) }}".to_owned(),
        "{{ '%1000000000d' | format(1) }}".to_owned(),
        "{{ '%.1000000000f' | format(1.5) }}".to_owned(),
        "{{ [1] | tojson(indent=10 ** 12) }}".to_owned(),
        "{{ range(10 ** 9) | list }}".to_owned(),
        "{{ range(90000) | batch(10 ** 12, 'x') | list }}".to_owned(),
        "{{ [1] | batch(10 ** 9, 'x') | list }}".to_owned(),
        "{{ [1] | slice(10 ** 9) | list }}".to_owned(),
        "{{ 'x' | center(10 ** 9) }}".to_owned(),
        "{{ 10 ** 10 ** 10 }}".to_owned(),
        // Small values that are huge when walked.
        doubled("{{ x }}"),
        doubled("{{ x ~ '' }}"),
        doubled("{{ x | string }}"),
        doubled("{{ x | tojson }}"),
        doubled("{{ x | join }}"),
        doubled("{{ x | upper }}"),
        doubled("{{ x | trim }}"),
        doubled("{{ x | list | sort }}"),
        doubled("{{ [x, y] | unique | list }}"),
        doubled("{{ x == y }}"),
        doubled("{{ x != y }}"),
        doubled("{{ x < y }}"),
        doubled("{{ 1 < 2 < x == y }}"),
        doubled("{{ x in [y] }}"),
        doubled("{{ x is eq(y) }}"),
        doubled("{{ x is in([y]) }}"),
        doubled("{{ [x] | select('eq', y) | list }}"),
        doubled("{{ [x].count(y) }}"),
        doubled("{{ {x: 1} }}"),
        doubled("{{ {1: 1}[x] }}"),
        doubled("{{ {1: 1}.get(x) }}"),
        doubled("{% for i in [x, y] %}{% if loop.changed(i) %}{% endif %}{% endfor %}"),
        doubled("{% set ns = namespace() %}{% set ns.x = x %}"),
        // Nesting.
        nested("{% set ns.x = [ns.x] %}", "{{ ns.x }}"),
        nested("{% set ns.x = {'a': ns.x} %}", "{{ ns.x }}"),
        nested("{% set ns.x = (ns.x,) %}", "{{ ns.x }}"),
        nested("{% set ns.x = [ns.x | reverse] %}", "{{ ns.x }}"),
        nested("{% set ns.x = ns.x | batch(1) %}", "{{ ns.x }}"),
        nested("{% set ns.x = ns.x[0:] %}", "{{ ns.x }}"),
        nested("{% set ns.x = ns.x | reverse %}", "{{ ns.x }}"),
        nested("{% set ns.x = ns.x + [1] %}", "{{ ns.x }}"),
        nested("{% set ns.x = namespace(x=ns.x) %}", ""),
        "{% set ns = namespace() %}{% set ns.x = ns %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}".to_owned(),
        // Sources.
        "{{ ".to_owned() + &"(".repeat(100_000),
        "{{ ".to_owned() + &"[".repeat(100_000),
        "{{ ".to_owned() + &"not ".repeat(30_000),
        "{{ ".to_owned() + &"-".repeat(100_000) + "1 }}",
        "{{ 1".to_owned() + &" + 1".repeat(30_000) + " }}",
        "{{ 'a'".to_owned() + &"~'a'".repeat(30_000) + " }}",
        "{{ x".to_owned() + &".a".repeat(60_000) + " }}",
        "{% if x %}".repeat(12_000),
        "{% for x in y %}".repeat(8_000),
        "x".repeat(MAX_SOURCE_BYTES + 1),
    ] {
        let start = Instant::now();
        let reason = refusal(&source);
        assert!(start.elapsed() < PATIENCE, "{:?} for {}", start.elapsed(), &source[..source.len().min(200)]);
        assert!(reason.len() < 500, "{reason}");
    }
}

#[test]
fn long_sources_do_not_run_off_the_stack() {
    // Valid, and deep in the engine's tree: it recurses over each of them.
    for source in [
        "{{ 1".to_owned() + &" + 1".repeat(490) + " }}",
        "{{ 'a'".to_owned() + &"~'a'".repeat(490) + " }}",
        "{{ 'a'".to_owned() + &"|e".repeat(490) + " }}",
        ("{{ 'a'".to_owned() + &"~'a'".repeat(490) + "~[0][0][0] }}").repeat(64),
        "{{ x".to_owned() + &".a".repeat(490) + " }}",
        "{{ x".to_owned() + &"[0]".repeat(320) + " }}",
        "{{ x".to_owned() + &"()".repeat(490) + " }}",
        "{{ 1".to_owned() + &" if 1 else 1".repeat(100) + " }}",
        "{% if a %}".to_owned() + &"{% elif a %}".repeat(10_000) + "{% endif %}",
        "{% set x = [] %}".to_owned() + &"{% set x = [x] %}".repeat(7_000),
        "{% set x = [] %}".to_owned() + &"{% set x=x|reverse %}".repeat(5_500) + "{% for i in x %}{% endfor %}",
    ] {
        // A host's thread may have a small stack.
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let work = move || {
            let _ = ChatTemplate::new(&source, "", "")
                .and_then(|template| template.render("[]", &RenderOptions::default()));
        };
        let start = Instant::now();
        small.spawn(work).unwrap().join().unwrap();
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }
}

#[test]
fn operators_are_pythons() {
    // Left: a template; right: what Jinja2 prints.
    for (source, expected) in [
        (
            "{{ 1 + 2 }} {{ 1.5 + 1 }} {{ true + 1 }} {{ 2 * 3 }} {{ 2 * 0.5 }} {{ 9223372036854775807 + 1 }}",
            "3 2.5 2 6 1.0 9223372036854775808",
        ),
        (
            "{{ [1] + [2, 'x'] }} {{ (1,) + (2,) }} {% set l = [0] %}{{ l * 3 }} {{ 2 * (1,) }} {{ 'ab' * 2 }} {{ 'ab' * -1 }}",
            "[1, 2, 'x'] (1, 2) [0, 0, 0] (1, 1) abab ",
        ),
        ("{{ none ~ 1 ~ true ~ [1.0, none] ~ nothing }}", "None1True[1.0, None]"),
        (
            "{{ {'a': 1, 2: 'b'} }} {{ {} }} {{ ('x',) }} {{ 1e16 }} {{ 1e-5 }} {{ 100.0 }}",
            "{'a': 1, 2: 'b'} {} ('x',) 1e+16 1e-05 100.0",
        ),
        (
            "{{ 1 in [1, 2] }} {{ 'a' in 'cat' }} {{ 'k' in {'k': 1} }} {{ 3 not in [1] }} {{ 1 in nothing }}",
            "True True True True False",
        ),
        (
            "{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1] == [1] }} {{ none == nothing }} {{ 2 is lt(3) }}",
            "True True True True False True",
        ),
        (
            "{{ 'a<' + 'b'|safe }} {{ '<'|safe + '<' }} {{ ('<'|safe) ~ '<' }} {{ '<'|safe + '<'|safe }}",
            "a&lt;b <&lt; << <<",
        ),
        (
            "{{ 'x\n\ny\n' | indent(2) }}|{{ 'x' | indent('> ', true) }}|{{ 'a\r\n\u{2028}b'.splitlines() }}",
            "x\n\n  y\n|> x|['a', '', 'b']",
        ),
        (
            "{{ none is iterable }} {{ 'a' is iterable }} {{ {} is sequence }} {{ none is sequence }}",
            "False True True False",
        ),
        ("{{ {'b': [1, {}], 'a': '<é\u{7f}\u{1}>'} | tojson }}", "{\"b\": [1, {}], \"a\": \"<é\u{7f}\\u0001>\"}"),
        (
            "{{ {'b': 1.0, 'a': [1e100, true]} | tojson(sort_keys=true, separators=(',', ':')) }}",
            "{\"a\":[1e+100,true],\"b\":1.0}",
        ),
        (
            "{{ ['é🦀\u{7f}'] | tojson(ensure_ascii=true) }}{{ [] | tojson(indent=2) }}",
            "[\"\\u00e9\\ud83e\\udd80\\u007f\"][]",
        ),
        ("{{ [1, {'a': 2}] | tojson(indent=2) }}", "[\n  1,\n  {\n    \"a\": 2\n  }\n]"),
        (
            "{{ ['a', 'b'] | join(', ') }} {{ '-'.join(['a', 'b']) }} {{ [{'n': 1}] | join(attribute='n') }}",
            "a, b a-b 1",
        ),
        (
            "{{ 'aaa'.replace('a', 'bb', 2) }} {{ 'ab'.replace('', '-') }} {{ '{:>4}|{}'.format(1, 'x') }}",
            "bbbba -a-b-    1|x",
        ),
        ("{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}", "1"),
        ("{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "4"),
    ] {
        assert_eq!(render(source), expected, "{source}");
    }
}

#[test]
fn what_python_raises_an_error_for_is_an_error() {
    for source in [
        "{{ none + 'a' }}",
        "{{ nothing + 'a' }}",
        "{{ 'a' + 1 }}",
        "{{ [1] + (1,) }}",
        "{% for x in none %}{% endfor %}",
        "{% for x in 3 %}{% endfor %}",
        "{% set x = 'a' %}{{ 1 < x }}",
        "{% set x = none %}{{ x < 1 }}",
        "{% set x = 1 %}{{ x in 'abc' }}",
        "{% set x = none %}{{ 1 in x }}",
        "{{ nothing.attribute.more }}",
        "{{ nothing | tojson }}",
        "{{ ', '.join([1]) }}",
        "{{ [1].append(2) }}",
        "{{ {[1]: 2} }}",
        "{{ 'x' | no_such_filter }}",
        "{{ no_such_function() }}",
        "{{ strftime_now('%Q') }}",
        "{% include 'other' %}",
        "{{ debug() }}",
    ] {
        refusal(source);
    }
}

#[test]
fn errors_name_the_line_and_the_reason() {
    assert_eq!(refusal("a\nb {{ raise_exception('Roles must alternate') }}"), "line 2: Roles must alternate");
    let syntax = refusal("a\n\n{% if %}");
    assert!(syntax.starts_with("line 3: "), "{syntax}");
    assert!(
        refusal("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}").contains("more work")
    );
    assert!(refusal("x\n{{ 'x' | upside_down }}").contains("upside_down"));
}

#[test]
fn arguments_that_are_not_what_they_should_be_are_named() {
    let template = template("{{ messages | length }}");
    let none = RenderOptions::default();
    for (messages, options, words) in [
        ("{}", none, &["messages", "array"][..]),
        ("[1]", none, &["messages", "element 0"]),
        ("[{}, []]", none, &["messages", "element 1"]),
        ("[{]", none, &["messages", "line 1"]),
        ("", none, &["messages"]),
        ("[]", RenderOptions { tools_json: Some("{}"), ..none }, &["tools", "array"]),
        ("[]", RenderOptions { extra_json: Some("[]"), ..none }, &["extra", "object"]),
        ("[]", RenderOptions { extra_json: Some("{\"tools\": 1}"), ..none }, &["extra", "`tools`"]),
    ] {
        match template.render(messages, &options) {
            Err(Error::Argument(reason)) => assert!(words.iter().all(|word| reason.contains(word)), "{reason}"),
            other => panic!("{messages}: {other:?}"),
        }
    }
    assert!(template.render(&("[".repeat(100_000)), &none).is_err());
}

#[test]
fn variables_are_those_of_transformers() {
    let source = "{{ bos_token }}{{ eos_token }} {{ tools is none }} {{ documents is none }} {{ add_generation_prompt }} \
                  {{ enable_thinking is defined }} {{ strftime_now('%d %b %Y') }} {{ messages[0].content }}";
    let messages = "[{\"role\": \"user\", \"content\": \"hé\"}]";
    let options = RenderOptions { now: Some(1_721_995_200), ..RenderOptions::default() };
    let expected = "<s></s> True True False False 26 Jul 2024 hé";
    assert_eq!(template(source).render(messages, &options).unwrap(), expected);
    let extra_json = Some("{\"enable_thinking\": false, \"bos_token\": \"B\", \"documents\": []}");
    let options = RenderOptions { tools_json: Some("[]"), add_generation_prompt: true, extra_json, ..options };
    let expected = "B</s> False False True True 26 Jul 2024 hé";
    assert_eq!(template(source).render(messages, &options).unwrap(), expected);
}

#[test]
fn one_template_serves_many_threads() {
    let template = template("{% for m in messages %}{{ m.content }}{% endfor %}");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let template = &template;
            scope.spawn(move || {
                for round in 0..50 {
                    let messages = format!("[{{\"content\": \"{thread} {round}\"}}]");
                    let text = template.render(&messages, &RenderOptions::default()).unwrap();
                    assert_eq!(text, format!("{thread} {round}"));
                }
            });
        }
    });
}

#[test]
fn long_talks_have_the_fuel_that_they_need() {
    let source = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}\n{% if m.tool_calls %}{{ m | tojson }}\
                  {% endif %}{% endfor %}";
    let message = format!("{{\"role\": \"user\", \"content\": \"{}\", \"tool_calls\": [1]}}", "word ".repeat(200));
    let messages = format!("[{}]", vec![message; 3_000].join(","));
    let text = template(source).render(&messages, &RenderOptions::default()).unwrap();
    assert!(text.len() > 6_000_000);
}
