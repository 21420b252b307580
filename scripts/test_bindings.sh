#!/usr/bin/env bash
# Installs what cargo built (with the feature `cli`) into a clean prefix, tests the installation and all bindings from
# there, and removes it again: test_bindings.sh BUILT [BINDING...], for example target/release c go
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "test_bindings.sh: $*" >&2
    exit 1
}

[ $# -ge 1 ] || fail "usage: test_bindings.sh BUILT [BINDING...]"
built=$1
shift
# Only what the tests install is found: nothing of the user's own.
unset DESTDIR PREFIX BINDIR LIBDIR INCLUDEDIR DATADIR PKG_CONFIG_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH
export ROCMFORGE_GPU_DEVICE=none
toolchains=${XDG_CACHE_HOME:-$HOME/.cache}/rocmforge/toolchains.sh
# shellcheck source=/dev/null
[ ! -f "$toolchains" ] || . "$toolchains"
model=$(scripts/fetch_models.py --path smollm2)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

# below ROOT: the files and links there, and what they are.
below() {
    (cd "$1" && find . \( -type f -o -type l \) ! -name MANIFEST -printf '%p %M %l\n' | LC_ALL=C sort)
}

# Into a prefix; below a root as packagers do; and all of it removed again, but for what is not ours.
test_installation() {
    PREFIX=$prefix scripts/install.sh install "$built" >/dev/null
    DESTDIR=$work/root PREFIX=/usr LIBDIR=/usr/lib64 scripts/install.sh install "$built" >/dev/null
    if grep -rIlq "$work" "$work/root"; then fail "an installation names the folder that it was staged in"; fi
    grep -qx 'libdir=/usr/lib64' "$work/root/usr/lib64/pkgconfig/rocmforge.pc" || fail "rocmforge.pc ignores LIBDIR"
    diff <(below "$prefix") <(below "$work/root/usr" | sed 's|^\./lib64/|./lib/|' | LC_ALL=C sort) ||
        fail "DESTDIR changes what is installed"
    # Again over itself, then away.
    DESTDIR=$work/root PREFIX=/usr LIBDIR=/usr/lib64 scripts/install.sh install "$built" >/dev/null
    DESTDIR=$work/root PREFIX=/usr scripts/install.sh uninstall >/dev/null
    [ ! -e "$work/root" ] || fail "uninstall leaves $(find "$work/root")"
    mkdir -p "$work/shared/include"
    touch "$work/shared/include/other.h"
    PREFIX=$work/shared scripts/install.sh install "$built" >/dev/null
    PREFIX=$work/shared scripts/install.sh uninstall >/dev/null
    [ "$(find "$work/shared" -type f)" = "$work/shared/include/other.h" ] || fail "uninstall: $(find "$work/shared")"
    [ "$(find "$work/shared" -type d | wc -l)" -eq 2 ] || fail "uninstall leaves $(find "$work/shared")"
}

test_program() {
    local share=$prefix/share command
    local version
    version=$(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --modversion rocmforge)
    [ "$("$prefix/bin/rocmforge" --version)" = "rocmforge $version" ] ||
        fail "the command line and pkg-config name different versions"
    for command in generate chat tokenize inspect perplexity bench devices; do
        grep -q "^\.SH ${command^^}\$" "$share/man/man1/rocmforge.1" || fail "the man page lacks $command"
        grep -q "$command" "$share/zsh/site-functions/_rocmforge" || fail "zsh does not complete $command"
        grep -q "$command" "$share/fish/vendor_completions.d/rocmforge.fish" || fail "fish does not complete $command"
    done
    # What bash offers after `rocmforge ch`.
    command=$(bash -c '. "$0"; COMP_WORDS=(rocmforge ch) COMP_CWORD=1; _rocmforge rocmforge ch rocmforge
        echo "${COMPREPLY[*]}"' "$share/bash-completion/completions/rocmforge")
    [ "$command" = chat ] || fail "bash completes 'rocmforge ch' as '$command'"
    if command -v groff >/dev/null; then
        [ -z "$(groff -man -Tascii -ww -z "$share/man/man1/rocmforge.1" 2>&1)" ] || fail "groff warns of the man page"
    fi
}

echo "== installation"
test_installation
test_program
bindings=("$@")
[ $# -gt 0 ] || bindings=(bindings/*/)
for binding in "${bindings[@]}"; do
    binding=$(basename "$binding")
    echo "== $binding"
    "bindings/$binding/test.sh" "$prefix" "$model" || fail "bindings/$binding failed"
done
PREFIX=$prefix scripts/install.sh uninstall >/dev/null
[ ! -e "$prefix" ] || fail "uninstall leaves $(find "$prefix")"
echo "test_bindings.sh: passed"
