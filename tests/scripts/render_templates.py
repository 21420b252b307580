#!/usr/bin/env python3
"""Writes tests/data/chat_templates.json: what Python's Jinja2 renders for real chat templates.

    render_templates.py TEMPLATE_FOLDER [OUTPUT]

Needs only `jinja2` (3.1). The environment is the one that `transformers` builds for `apply_chat_template`, because that
is what models were trained on: an immutable sandbox, trim_blocks, lstrip_blocks, loop controls, a `tojson` that is
`json.dumps` without HTML escapes, `tools` and `documents` that are None when absent, and a `generation` tag that
renders its body.

The output holds the cases and, for each template and case, the text without a generation prompt and with one. To stay
small, the second is stored as the suffix that it adds where it only adds one. None means that Python raised.
"""

import datetime
import json
import pathlib
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1721995200  # Friday 26 July 2024, 12:00 UTC
BOS, EOS = "<s>", "</s>"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Gets the weather; units are \"metric\" <or> 'imperial' & so on.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of a city, e.g. Zürich"},
                "days": {"type": "integer", "minimum": 1, "default": 3},
                "unit": {"type": "string", "enum": ["metric", "imperial"]},
                "place": {
                    "type": "object",
                    "description": "Exact place",
                    "properties": {"lat": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}},
                    "required": ["lat"],
                },
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}},
}


def user(text):
    return {"role": "user", "content": text}


def system(text):
    return {"role": "system", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, number=0):
    return {"id": f"call0000{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(text, name="get_weather", number=0):
    return {"role": "tool", "name": name, "tool_call_id": f"call0000{number}", "content": text}


ARGUMENTS = {"city": "Zürich", "days": 2, "exact": True, "ratio": 0.5, "place": {"lat": 47.4, "tags": ["a", "b"]}, "none": None}
TALK = [system("You are terse."), user("Hi"), assistant("Hello!"), user("What is 2+2?")]

CASES = [
    {"name": "user", "messages": [user("Hello there")]},
    {"name": "conversation", "messages": TALK},
    {"name": "assistant_last", "messages": TALK[1:3]},
    {"name": "whitespace", "messages": [system("  padded \n"), user("\n two lines\n\n"), assistant(" x "), user("\t")]},
    {
        "name": "unicode",
        "messages": [user("Grüße, 世界! 🦀 \"quoted\" 'single' \\back\\ <tag> & {{ x }} {% y %}"), assistant("ﬁ\u00a0ñ"), user("Ω")],
    },
    {"name": "tools_offered", "messages": [user("Weather?")], "tools": [WEATHER, CLOCK]},
    {
        "name": "tool_call",
        "messages": [
            system("Use tools."),
            user("Weather in Zürich?"),
            assistant("", tool_calls=[call("get_weather", ARGUMENTS)]),
            tool('{"sky": "clear", "celsius": 21}'),
            assistant("Clear, 21 °C."),
            user("Thanks"),
        ],
        "tools": [WEATHER],
    },
    {
        "name": "tool_call_pending",
        "messages": [user("Weather?"), assistant(None, tool_calls=[call("get_weather", {"city": "Bern"})]), tool("rain")],
        "tools": [WEATHER],
    },
    {
        "name": "tool_call_string",
        "messages": [user("Time?"), assistant("", tool_calls=[call("clock", '{"zone": "UTC"}')]), tool("noon", "clock")],
        "tools": [CLOCK],
    },
    {
        "name": "tool_calls_parallel",
        "messages": [
            user("Both?"),
            assistant("Looking.", tool_calls=[call("get_weather", {"city": "Bern"}), call("clock", {}, 1)]),
            tool("rain"),
            tool("noon", "clock", 1),
        ],
        "tools": [WEATHER, CLOCK],
    },
    {"name": "tool_call_without_tools", "messages": [user("Time?"), assistant("", tool_calls=[call("clock", {})]), tool("noon", "clock")]},
    {
        "name": "parts",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        ],
    },
    {"name": "image", "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]},
    {
        "name": "reasoning",
        "messages": [
            user("2+2?"),
            assistant("4", reasoning_content="two and two"),
            user("3+3?"),
            assistant("<think>\nthree twice\n</think>\n\n6"),
            user("And 4+4?"),
        ],
    },
    {"name": "thinking_on", "messages": TALK, "extra": {"enable_thinking": True, "thinking": True}},
    {"name": "thinking_off", "messages": TALK, "extra": {"enable_thinking": False, "thinking": False}},
    {"name": "effort", "messages": TALK, "extra": {"reasoning_effort": "high"}},
    {"name": "functions", "messages": TALK, "extra": {"functions": "[]", "datetime": "today"}},
    {"name": "developer", "messages": [{"role": "developer", "content": "Obey."}, user("Hi")]},
    {"name": "none", "messages": []},
    {"name": "unknown_role", "messages": [{"role": "wizard", "content": "Abracadabra"}]},
    {"name": "no_role", "messages": [{"content": "x"}]},
    {"name": "no_content", "messages": [{"role": "user"}]},
    {"name": "null_content", "messages": [{"role": "user", "content": None}]},
    {"name": "two_users", "messages": [user("a"), user("b")]},
    {"name": "system_only", "messages": [system("alone")]},
    {"name": "late_system", "messages": [user("a"), assistant("b"), system("c"), user("d")]},
]


class Generation(Extension):
    """`{% generation %}` marks what the assistant said; in a render it is its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(form):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(form)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def render(template, case, add_generation_prompt):
    variables = {"bos_token": BOS, "eos_token": EOS, **case.get("extra", {})}
    # A deep copy, as a template may not change what the next one sees.
    messages, tools = json.loads(json.dumps([case["messages"], case.get("tools")]))
    try:
        return template.render(
            messages=messages, tools=tools, documents=None, add_generation_prompt=add_generation_prompt, **variables
        )
    except Exception:  # whatever Python raises: the template does not accept this case
        return None


def main():
    folder = pathlib.Path(sys.argv[1])
    output = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parents[1] / "data/chat_templates.json")
    env = environment()
    renderings = {}
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        template = env.from_string(source)
        rows = {}
        for case in CASES:
            plain, prompted = render(template, case, False), render(template, case, True)
            if plain is not None and prompted is not None and prompted.startswith(plain):
                rows[case["name"]] = [plain, {"append": prompted[len(plain):]}]
            else:
                rows[case["name"]] = [plain, prompted]
        renderings[path.name] = {"bytes": len(source.encode()), "cases": rows}
    data = {"jinja2": jinja2.__version__, "now": NOW, "bos": BOS, "eos": EOS, "cases": CASES, "templates": renderings}
    output.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":"), indent=0) + "\n", encoding="utf-8")
    accepted = sum(text is not None for t in renderings.values() for pair in t["cases"].values() for text in pair)
    print(f"{output}: {len(renderings)} templates, {accepted} renderings, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
