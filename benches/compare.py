#!/usr/bin/env python3
"""rocmforge and llama.cpp side by side, on the same machine, models and thread counts.

    compare.py --llama-bin DIR [--rocmforge FILE] [--threads N...] [--rounds R] [--json FILE] MODEL...

Both compute a prompt of 512 tokens and then, from an empty context, 128 tokens one at a time. The two programs take
turns (A B A B ...), so that a machine that slows down or has neighbours does so for both; the median of the rounds is
printed with its range. Peak memory is what the system counted for the process.

DIR holds `llama-bench` of a release build (cmake -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON). A ratio above 1 means
that rocmforge is faster, or takes less memory.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Measurement(typing.NamedTuple):
    """One run of one program."""

    prefill: float  # tokens per second
    decode: float  # tokens per second
    rss: float  # bytes at the peak


class Failure(Exception):
    """Said in one line."""


def run(command):
    """What the command prints as JSON, and its peak resident set in bytes."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}") from None
    # Read before waiting: a full pipe would keep the process from ending. What goes to stderr is short.
    output, complaint = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["no message"]
        raise Failure(f"{' '.join(command)} ended with {process.returncode}: {lines[-1]}")
    return json.loads(output), usage.ru_maxrss * 1024


def run_rocmforge(args, model, threads):
    command = [args.rocmforge, "bench", model, "--threads", threads, "--prompt", args.prompt]
    record, rss = run([str(word) for word in [*command, "--generate", args.generate, "--repeat", 1, "--json"]])
    return Measurement(record["prefill_tps"], record["decode_tps"], rss)


def run_llama(args, model, threads):
    program = pathlib.Path(args.llama_bin) / "llama-bench"
    command = [program, "-m", model, "-t", threads, "-p", args.prompt, "-n", args.generate, "-r", 1, "-o", "json"]
    records, rss = run([str(word) for word in command])
    prefill = next(r["avg_ts"] for r in records if r["n_gen"] == 0)
    decode = next(r["avg_ts"] for r in records if r["n_prompt"] == 0)
    return Measurement(prefill, decode, rss)


def spread(values, scale=1.0):
    """Median and range as text."""
    values = [value * scale for value in values]
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def compare(args, model, threads):
    """Takes turns, prints the rows, and returns them."""
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(run_rocmforge(args, model, threads))
        theirs.append(run_llama(args, model, threads))
    rows = []
    measures = [("prefill tokens/s", "prefill", 1), ("decode tokens/s", "decode", 1), ("peak memory MB", "rss", 1e-6)]
    for label, field, scale in measures:
        a = [getattr(m, field) for m in ours]
        b = [getattr(m, field) for m in theirs]
        ratio = statistics.median(a) / statistics.median(b)
        ratio = 1 / ratio if field == "rss" else ratio
        print(f"{model.name:45} {threads:>7}  {label:17} {spread(a, scale):>24} {spread(b, scale):>24}  {ratio:5.2f}")
        sys.stdout.flush()
        rows.append({"model": model.name, "threads": threads, "measure": field, "rocmforge": a, "llama.cpp": b, "ratio": ratio})
    return rows


def machine():
    """The processor's name and what else the machine was doing."""
    name = "unknown processor"
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=pathlib.Path, metavar="MODEL")
    parser.add_argument("--llama-bin", required=True, metavar="DIR", help="the folder of llama-bench")
    parser.add_argument("--rocmforge", default=ROOT / "target/release/rocmforge", metavar="FILE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="R")
    parser.add_argument("--prompt", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--generate", type=int, default=128, metavar="TOKENS")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every run's numbers there")
    args = parser.parse_args()
    about = machine()
    print(f"{about}; medians (and ranges) of {args.rounds} rounds, in turns")
    print(f"{'model':45} threads  {'measure':17} {'rocmforge':>24} {'llama.cpp':>24}  ratio")
    rows = [row for model in args.models for threads in args.threads for row in compare(args, model, threads)]
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"compare.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
