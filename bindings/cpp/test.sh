#!/usr/bin/env bash
# Builds and runs C++ programs with rocmforge.hpp from an installed library: test.sh PREFIX MODEL
set -euo pipefail
prefix=$1 model=$2
cd "$(dirname "$0")/../.."
CXX=${CXX:-c++}
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "bindings/cpp: $*" >&2
    exit 1
}

for tool in "$CXX" pkg-config python3; do
    command -v "$tool" >/dev/null || fail "$tool is missing (scripts/setup.sh test)"
done
read -ra cflags <<<"$(pkg-config --cflags rocmforge)"
read -ra libs <<<"$(pkg-config --libs rocmforge) -Wl,-rpath,$prefix/lib -pthread"
strict=(-O2 -Wall -Wextra -Wconversion -Wshadow -pedantic -Werror)

"$CXX" -std=c++17 "${strict[@]}" "${cflags[@]}" bindings/cpp/test.cpp -o "$work/test" \
    "${libs[@]}" -Wl,--wrap=rf_session_next
"$work/test" "$model" "$work"

"$CXX" -std=c++17 "${strict[@]}" "${cflags[@]}" bindings/cpp/example.cpp -o "$work/example" "${libs[@]}"
"$work/example" "$model" 'Say "hello" and nothing else.' >"$work/answer"
[ "$(wc -c <"$work/answer")" -gt 3 ] || fail "the example said: $(cat "$work/answer")"
if "$work/example" /no/such/model.gguf 2>"$work/error"; then fail "the example loaded a model that is not there"; fi
grep -q /no/such/model.gguf "$work/error" || fail "the example said: $(cat "$work/error")"

# A fragment of the README as a function of a program, with what it takes for granted.
program() {
    printf '#include <rocmforge.hpp>\n#include <cstdio>\n#include <iostream>\n#include <thread>\n'
    printf 'void fragment(rocmforge::Engine &, rocmforge::Model &, rocmforge::Session &);\n'
    printf 'void fragment([[maybe_unused]] rocmforge::Engine &engine, [[maybe_unused]] rocmforge::Model &model,\n'
    printf '              [[maybe_unused]] rocmforge::Session &session) {\n'
    cat "$1"
    printf '}\nint main(int, char **argv) {\n    rocmforge::Engine engine;\n'
    printf '    rocmforge::Model model = engine.load(argv[1]);\n    rocmforge::Session session = model.session();\n'
    printf '    fragment(engine, model, session);\n}\n'
}

echo "README.md"
python3 scripts/readme_blocks.py bindings/cpp/README.md "$work/readme"
cmp <(sed -n '/^#include/,$p' bindings/cpp/example.cpp) <(sed -n '/^#include/,$p' "$work/readme/1.cpp") ||
    fail "README.md shows another example"
for block in "$work"/readme/*; do
    case $block in
    *.cpp)
        if grep -q 'int main' "$block"; then cat "$block"; else program "$block"; fi >"$work/block.cpp"
        for standard in c++17 c++20; do
            "$CXX" -std=$standard "${strict[@]}" "${cflags[@]}" "$work/block.cpp" -o "$work/block" "${libs[@]}"
        done
        grep -q 'catch' "$block" || "$CXX" -std=c++17 -fno-exceptions -fno-rtti "${strict[@]}" "${cflags[@]}" \
            -c "$work/block.cpp" -o "$work/block.o"
        timeout 120 "$work/block" "$model" >"$work/answer" 2>&1 ||
            { cat "$work/answer" >&2; fail "$block does not run"; }
        ;;
    *.sh)
        MODEL=$model bash -euo pipefail -c 'cp -r bindings "$0" && cd "$0" && . "$1"' "$work" "$block" >"$work/answer"
        [ "$(wc -c <"$work/answer")" -gt 3 ] || fail "$block said: $(cat "$work/answer")"
        ;;
    *) fail "nobody tests $block" ;;
    esac
done
echo "bindings/cpp: passed"
