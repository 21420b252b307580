#!/usr/bin/env bash
# Builds and runs C programs against an installed library: test.sh PREFIX MODEL
set -euo pipefail
prefix=$1 model=$2
cd "$(dirname "$0")/../.."
CC=${CC:-cc}
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "bindings/c: $*" >&2
    exit 1
}

# answers PROGRAM: it answers, and says what is wrong with a model that is not there.
answers() {
    "$1" "$model" 'Say "hello" and nothing else.' >"$work/answer"
    [ "$(wc -c <"$work/answer")" -gt 3 ] || fail "$1 said: $(cat "$work/answer")"
    if "$1" /no/such/model.gguf 2>"$work/error"; then fail "$1 loaded a model that is not there"; fi
    grep -q /no/such/model.gguf "$work/error" || fail "$1 said: $(cat "$work/error")"
}

for tool in "$CC" cmake pkg-config; do
    command -v "$tool" >/dev/null || fail "$tool is missing (scripts/setup.sh test)"
done

# The name that programs look for at run time, which is a link to the file.
version=$(pkg-config --modversion rocmforge)
soname=librocmforge.so.${version%.*}
[[ $version == 0.* ]] || soname=librocmforge.so.${version%%.*}
readelf -d "$prefix/lib/librocmforge.so" | grep -q "soname: \[$soname\]" || fail "the SONAME is not $soname"
[ "$(readlink -f "$prefix/lib/$soname")" = "$(readlink -f "$prefix/lib/librocmforge.so.$version")" ] ||
    fail "$soname does not lead to librocmforge.so.$version"

strict=(-std=c99 -O2 -Wall -Wextra -Wconversion -pedantic -Werror)
read -ra flags <<<"$(pkg-config --cflags --libs rocmforge) -Wl,-rpath,$prefix/lib"
"$CC" "${strict[@]}" bindings/c/test.c -o "$work/test" "${flags[@]}" -lpthread
readelf -d "$work/test" | grep -q "NEEDED.*\[$soname\]" || fail "programs do not ask for $soname"
"$work/test" "$model" "$work"

echo "static, with the C library too"
read -ra static <<<"$(pkg-config --static --cflags --libs rocmforge)"
# The linker warns of dlopen, which finds no GPU driver there.
"$CC" -static examples/c/generate.c -o "$work/static" "${static[@]}" 2>/dev/null || fail "rocmforge.pc lacks a library"
answers "$work/static"

echo "CMake: shared, static, C++"
cmake -S examples/cmake -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "examples/cmake is not configured"; }
cmake --build "$work/build" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "examples/cmake is not built"; }
for program in generate generate_static stream; do answers "$work/build/$program"; done
readelf -d "$work/build/generate_static" >"$work/dynamic"
if grep -q librocmforge "$work/dynamic"; then fail "the static program asks for the library"; fi
# asks VERSION: whether find_package takes it.
asks() {
    rm -rf "$work/ask"
    mkdir "$work/ask"
    printf 'cmake_minimum_required(VERSION 3.19)\nproject(ask C)\nfind_package(rocmforge %s REQUIRED)\n' "$1" \
        >"$work/ask/CMakeLists.txt"
    cmake -S "$work/ask" -B "$work/ask/build" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1
}
for wanted in "" 0.1 0.1.0 "0.1.0 EXACT" 0 0.0...0.2; do asks "$wanted" || fail "find_package refuses '$wanted'"; done
for wanted in 0.0 0.2 0.1.9 1 1.0 0.2...0.3 '0.0...<0.1'; do
    if asks "$wanted"; then fail "find_package takes '$wanted'"; fi
done

echo "README.md"
python3 scripts/readme_blocks.py bindings/c/README.md "$work/readme"
export MODEL=$model
mkdir -p "$work/tree/chat"
cp -r examples "$work/tree"
for block in "$work"/readme/*; do
    case $block in
    *.sh)
        # Those of make itself are what scripts/test_bindings.sh does.
        if grep -q '^make' "$block"; then
            make -n "$(grep -om1 '^make [a-z]*' "$block" | cut -d ' ' -f 2)" >/dev/null
        else
            (cd "$work/tree" && rm -f generate && bash -euo pipefail "$block" >"$work/answer")
            [ "$(wc -c <"$work/answer")" -gt 3 ] || fail "$block said: $(cat "$work/answer")"
        fi
        ;;
    *.cmake)
        cp "$block" "$work/tree/chat/CMakeLists.txt"
        cp examples/c/generate.c "$work/tree/chat/chat.c"
        cmake -S "$work/tree/chat" -B "$work/tree/chat/build" -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
        cmake --build "$work/tree/chat/build" >/dev/null
        answers "$work/tree/chat/build/chat"
        ;;
    *.c) "$CC" "${strict[@]}" -c "$block" "${flags[0]}" -o "$work/block.o" ;;
    *) fail "nobody tests $block" ;;
    esac
done
echo "bindings/c: passed"
