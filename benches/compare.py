#!/usr/bin/env python3
"""rocmforge and its peers side by side, on the same machine, models and thread counts.

    compare.py --llama-bin DIR [--peer "NAME=DIR [OPTION...]"...] [--rocmforge FILE] [--isa ISA] [--threads N...]
               [--prompt N...] [--generate N] [--rounds R] [--load] [--json FILE] MODEL...

Each program computes prompts and then, from an empty context, tokens one at a time. The programs take turns (A B A B ...),
so that a machine that slows down or has neighbours does so for all; the median of the rounds is printed with its range.
Peak memory is what the system counted for the process.

DIR holds `llama-bench` of a release build (cmake -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON). Further peers are other
builds or other options of it, such as "ik=DIR -rtr 1 -fa 1". The ratio is to the best peer of each row; above 1 means that
rocmforge is faster, or takes less memory. --isa caps rocmforge's instruction set; the peers' is what they were built for.

With --load the measure is another: the time of a whole process that loads the model, which the system has in its cache,
and computes one token. rocmforge runs with its defaults, with a cache of packed weights, and with the file mapped, as llama.cpp has it.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Peer(typing.NamedTuple):
    """A build of llama-bench, and the options that it runs with."""

    name: str
    program: pathlib.Path
    options: list[str]


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
    """Tokens per second by measure, and the peak resident set."""
    found, peak = {}, 0
    for prompt in args.prompt:
        command = [args.rocmforge, "bench", model, "--threads", threads, "--prompt", prompt, "--repeat", args.repeat]
        # Decode is measured once, with the first prompt.
        command += ["--generate", 1 if found else args.generate, "--json"]
        if args.isa:
            command += ["--isa", args.isa]
        record, rss = run([str(word) for word in command])
        found.setdefault("decode", record["decode_tps"])
        found[f"prefill {prompt}"] = record["prefill_tps"]
        peak = max(peak, rss)
    return {**found, "rss": peak}


def run_llama(args, peer, model, threads):
    prompts = ",".join(str(prompt) for prompt in args.prompt)
    command = [peer.program, "-m", model, "-t", threads, "-p", prompts, "-n", args.generate, "-r", args.repeat, "-o", "json"]
    records, rss = run([str(word) for word in [*command, *peer.options]])
    speed = {(r["n_prompt"], r["n_gen"]): statistics.median(r.get("samples_ts") or [r["avg_ts"]]) for r in records}
    found = {f"prefill {prompt}": speed[prompt, 0] for prompt in args.prompt}
    return {"decode": speed[0, args.generate], **found, "rss": rss}


def no_warm_up(peer):
    """The option that keeps a peer from computing anything before it measures; forks spell it differently."""
    usage = subprocess.run([peer.program, "--help"], capture_output=True, text=True, check=False)
    return ["--no-warmup"] if "--no-warmup" in usage.stdout + usage.stderr else ["-w", "0"]


def wall(command):
    """Seconds that the command takes, from its start to its end."""
    began = time.perf_counter()
    process = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if process.returncode != 0:
        raise Failure(f"{command[0]} ended with {process.returncode}: {process.stderr.decode(errors='replace').strip()}")
    return time.perf_counter() - began


def compare_load(args, model, threads):
    """Takes turns in loading for one token, prints the rows, and returns them."""
    with tempfile.TemporaryDirectory() as folder:
        ours = [args.rocmforge, "generate", model, "--threads", threads, "--prompt", "a", "-n", 1, "-c", 64]
        ours += ["--temperature", 0, *(["--isa", args.isa] if args.isa else [])]
        cache, mapped = [*ours, f"--packed-cache={folder}"], [*ours, "--mmap"]
        measures = {"load": ours, "load, packed cache": cache, "load, mapped": mapped}
        one = ["-p", 0, "-n", 1, "-r", 1]
        peers = {p.name: [p.program, "-m", model, "-t", threads, *one, *no_warm_up(p), *p.options] for p in args.peer}
        found = {name: [] for name in [*measures, *peers]}
        # The first round brings files to the system's cache, and writes ours; it is not counted.
        for counted in range(args.rounds + 1):
            for name, command in [*measures.items(), *peers.items()]:
                seconds = wall(command)
                if counted:
                    found[name].append(seconds)
    best = min(peers, key=lambda name: statistics.median(found[name]))
    rows = []
    for measure in measures:
        ratio = statistics.median(found[best]) / statistics.median(found[measure])
        label = f"{measure} ms"
        print(f"{model.name:42} {threads:>2}  {label:21} {spread(found[measure], 1e3):>24} {spread(found[best], 1e3):>24}  {ratio:5.2f} {best}")
        sys.stdout.flush()
        row = {"model": model.name, "threads": threads, "measure": measure, "rocmforge": found[measure]}
        rows.append({**row, "peers": {name: found[name] for name in peers}, "best": best, "ratio": ratio})
    return rows


def spread(values, scale=1.0):
    """Median and range as text."""
    values = [value * scale for value in values]
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def compare(args, model, threads):
    """Takes turns, prints the rows, and returns them."""
    ours, theirs = [], {peer.name: [] for peer in args.peer}
    for _ in range(args.rounds):
        ours.append(run_rocmforge(args, model, threads))
        for peer in args.peer:
            theirs[peer.name].append(run_llama(args, peer, model, threads))
    rows = []
    for measure in [*(f"prefill {prompt}" for prompt in args.prompt), "decode", "rss"]:
        memory = measure == "rss"
        scale, label = (1e-6, "peak memory MB") if memory else (1, f"{measure} tokens/s")
        a = [found[measure] for found in ours]
        peers = {name: [found[measure] for found in runs] for name, runs in theirs.items()}
        best = (min if memory else max)(peers, key=lambda name: statistics.median(peers[name]))
        ratio = statistics.median(a) / statistics.median(peers[best])
        ratio = 1 / ratio if memory else ratio
        print(f"{model.name:42} {threads:>2}  {label:21} {spread(a, scale):>24} {spread(peers[best], scale):>24}  {ratio:5.2f} {best}")
        sys.stdout.flush()
        rows.append({"model": model.name, "threads": threads, "measure": measure, "rocmforge": a, "peers": peers, "best": best, "ratio": ratio})
    return rows


def peer_of(text):
    """A peer from NAME=DIR and options."""
    name, separator, rest = text.partition("=")
    words = shlex.split(rest)
    if not separator or not words:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR [OPTION...]")
    return Peer(name, pathlib.Path(words[0]) / "llama-bench", words[1:])


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
    parser.add_argument("--llama-bin", metavar="DIR", help="the folder of llama-bench")
    parser.add_argument("--peer", action="append", type=peer_of, default=[], metavar="NAME=DIR", help="another build or options")
    parser.add_argument("--isa", metavar="ISA", help="rocmforge's best instruction set")
    parser.add_argument("--rocmforge", default=ROOT / "target/release/rocmforge", metavar="FILE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="R")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="repetitions in a round")
    parser.add_argument("--prompt", nargs="+", type=int, default=[512], metavar="TOKENS")
    parser.add_argument("--generate", type=int, default=128, metavar="TOKENS")
    parser.add_argument("--load", action="store_true", help="measure processes that load and compute one token")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every run's numbers there")
    args = parser.parse_args()
    if args.llama_bin:
        args.peer.insert(0, Peer("llama.cpp", pathlib.Path(args.llama_bin) / "llama-bench", []))
    if not args.peer:
        parser.error("--llama-bin or --peer is needed")
    about = machine()
    print(f"{about}; medians (and ranges) of {args.rounds} rounds, in turns")
    print(f"{'model':42} threads  {'measure':16} {'rocmforge':>24} {'best peer':>24}  ratio")
    measure = compare_load if args.load else compare
    rows = [row for model in args.models for threads in args.threads for row in measure(args, model, threads)]
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
