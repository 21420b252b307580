#!/usr/bin/env bash
# Builds and runs the binding, its tests, its example and README.md's code: test.sh PREFIX MODEL. PREFIX holds the
# installed library and header, MODEL is SmolLM2's file.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: test.sh PREFIX MODEL" >&2; exit 2; }
prefix=$(cd "$1" && pwd)
model=$(realpath "$2")
cd "$(dirname "$0")"
for tool in mcs mono "${CC:-cc}"; do
    command -v "$tool" >/dev/null ||
        { echo "bindings/csharp: $tool is missing (Debian's packages mono-mcs, mono-runtime and gcc)" >&2; exit 1; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export LD_LIBRARY_PATH="$prefix/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# The tests are about the binding: no GPU.
export ROCMFORGE_GPU_DEVICE=none
compile=(mcs -langversion:7.2 -warn:4 -warnaserror -optimize)

# Documentation is complete: a public member without a comment is a warning, and so an error.
"${compile[@]}" -target:library -doc:"$folder/RocmForge.xml" -out:"$folder/RocmForge.dll" RocmForge/*.cs
# With the sources, because the tests look at what is internal too.
"${compile[@]}" -nowarn:1591 -out:"$folder/Tests.exe" RocmForge/*.cs test/*.cs

mono "$folder/Tests.exe" layout-source >"$folder/layout.c"
"${CC:-cc}" -std=c99 -Wall -Wextra -Werror -I"$prefix/include" "$folder/layout.c" -o "$folder/layout"
"$folder/layout" >"$folder/layout.txt"
mono "$folder/Tests.exe" layout "$prefix/include/rocmforge.h" "$folder/layout.txt"
mono "$folder/Tests.exe" "$model" "$folder"
# Memory in a process of its own: what other tests leave to the collector would hide what is lost.
mono "$folder/Tests.exe" lives "$model"

# The n-th block of code of README.md that is marked with a language.
block() {
    awk -v start='```'"$1" -v n="$2" '/^```/ { on = $0 == start && ++i == n; next } on' README.md
}

[ "$(block csharp 1)" = "$(cat example/Program.cs)" ] ||
    { echo "bindings/csharp: README.md does not show example/Program.cs" >&2; exit 1; }
[ "$(grep -c '^```.' README.md)" -eq 3 ] || { echo "bindings/csharp: a block of README.md is not tested" >&2; exit 1; }

# The second example of README.md, inside a method.
{
    echo 'using System; using System.Linq; using System.Threading.Tasks; using RocmForge;'
    echo 'static class Readme { static async Task Run(Model model, Session session) {'
    block csharp 2
    echo '} static void Main(string[] args) { using (var engine = new Engine()) using (Model model = engine.LoadModel('
    echo 'args[0])) using (Session session = model.CreateSession()) Run(model, session).GetAwaiter().GetResult(); } }'
} >"$folder/Readme.cs"
"${compile[@]}" -r:"$folder/RocmForge.dll" -out:"$folder/Readme.exe" "$folder/Readme.cs"
mono "$folder/Readme.exe" "$model" >"$folder/readme.txt"
grep -q Paris "$folder/readme.txt" || { echo "bindings/csharp: README.md's second example said:" >&2
    cat "$folder/readme.txt" >&2; exit 1; }

# README.md's commands, as they stand there, in a copy of this folder: they build the example and let it answer.
block sh 1 >"$folder/commands.sh"
mkdir "$folder/copy"
cp -r RocmForge example "$folder/copy"
(cd "$folder/copy" && PREFIX="$prefix" MODEL="$model" bash -eu "$folder/commands.sh") >"$folder/answer.txt"
cat "$folder/answer.txt"
grep -q 'tokens/s$' "$folder/answer.txt" || { echo "bindings/csharp: the example gave no answer" >&2; exit 1; }
