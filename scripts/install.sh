#!/usr/bin/env bash
# What `make install` and `make uninstall` do:
#
#     install.sh install BUILT    installs what cargo built with the feature `cli` in the folder BUILT
#     install.sh uninstall        removes what that installed, and the folders that it made
#
# Environment: PREFIX (/usr/local), DESTDIR (a root to install below, for packagers), and, where they are not below the
# prefix as usual, BINDIR, LIBDIR, INCLUDEDIR and DATADIR. MANIFEST says what is there.
set -euo pipefail
cd "$(dirname "$0")/.."

PREFIX=$(realpath -sm "${PREFIX:-/usr/local}")
DESTDIR=${DESTDIR:+$(realpath -sm "$DESTDIR")}
BINDIR=${BINDIR:-$PREFIX/bin}
LIBDIR=${LIBDIR:-$PREFIX/lib}
INCLUDEDIR=${INCLUDEDIR:-$PREFIX/include}
DATADIR=${DATADIR:-$PREFIX/share}
DOCDIR=$DATADIR/doc/rocmforge
MANIFEST=$DESTDIR$DOCDIR/MANIFEST

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# Makes a folder below DESTDIR, and writes down each part of it that was not there.
folder() {
    [ -d "$DESTDIR$1" ] && return
    [ "$1" = / ] || folder "$(dirname "$1")"
    mkdir -p "$DESTDIR$1" # with DESTDIR, which is the packager's
    made+=("$1")
}

# keep MODE FILE NAME: installs FILE as NAME.
keep() {
    folder "$(dirname "$3")"
    install -m "$1" "$2" "$DESTDIR$3"
    files+=("$3")
}

# link TARGET NAME
link() {
    ln -sfn "$1" "$DESTDIR$2"
    files+=("$2")
}

# fill TEMPLATE NAME: installs TEMPLATE with each @KEY@ as its value.
fill() {
    sed -e "s|@PREFIX@|$PREFIX|; s|@LIBDIR@|$LIBDIR|; s|@INCLUDEDIR@|$INCLUDEDIR|; s|@SONAME@|$soname|" \
        -e "s|@INCLUDE_FROM_LIB@|$(realpath -sm --relative-to="$LIBDIR" "$INCLUDEDIR")|" \
        -e "s|@VERSION@|$version|g; s|@MAJOR@|$major|g; s|@MINOR@|$minor|g; s|@POINTER_BYTES@|$pointer_bytes|g" \
        -e "s|@PRIVATE_LIBS@|$3|" "packaging/$1.in" >"$scratch/$1"
    keep 644 "$scratch/$1" "$2/$1"
}

# What the static library needs of the system besides the compiler's own runtime (rustc --print native-static-libs).
PRIVATE_LIBS="-lpthread -lm -ldl"

install_library() {
    keep 644 include/rocmforge.h "$INCLUDEDIR/rocmforge.h"
    keep 644 bindings/cpp/rocmforge.hpp "$INCLUDEDIR/rocmforge.hpp"
    keep 755 "$built/librocmforge.so" "$LIBDIR/librocmforge.so.$version"
    link "librocmforge.so.$version" "$LIBDIR/$soname"
    link "$soname" "$LIBDIR/librocmforge.so"
    keep 644 "$built/librocmforge.a" "$LIBDIR/librocmforge.a"
    fill rocmforge.pc "$LIBDIR/pkgconfig" "$PRIVATE_LIBS"
    fill rocmforge-config.cmake "$LIBDIR/cmake/rocmforge" "${PRIVATE_LIBS// /;}"
    fill rocmforge-config-version.cmake "$LIBDIR/cmake/rocmforge" ""
}

install_program() {
    keep 755 "$built/rocmforge" "$BINDIR/rocmforge"
    "$built/rocmforge" man >"$scratch/man"
    keep 644 "$scratch/man" "$DATADIR/man/man1/rocmforge.1"
    local shell
    for shell in bash zsh fish; do "$built/rocmforge" completions $shell >"$scratch/$shell"; done
    keep 644 "$scratch/bash" "$DATADIR/bash-completion/completions/rocmforge"
    keep 644 "$scratch/zsh" "$DATADIR/zsh/site-functions/_rocmforge"
    keep 644 "$scratch/fish" "$DATADIR/fish/vendor_completions.d/rocmforge.fish"
}

install_all() {
    built=$1
    local file
    for file in librocmforge.so librocmforge.a rocmforge; do
        [ -f "$built/$file" ] || fail "$built has no $file: build it first (make build)"
    done
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    IFS=. read -r major minor _ <<<"$version"
    soname=librocmforge.so.$major
    [ "$major" -gt 0 ] || soname=librocmforge.so.0.$minor
    # The fifth byte of an ELF file: 1 for 32 bits, 2 for 64.
    pointer_bytes=$(($(od -An -tu1 -j4 -N1 "$built/librocmforge.so") * 4))
    made=() files=()
    # A second installation replaces the first, with whatever that had and this has not.
    local before=""
    [ ! -f "$MANIFEST" ] || before=$(grep '/$' "$MANIFEST" || true)
    [ ! -f "$MANIFEST" ] || remove_files
    install_library
    install_program
    for file in LICENSE-MIT LICENSE-APACHE; do keep 644 $file "$DOCDIR/$file"; done
    files+=("$DOCDIR/MANIFEST")
    {
        printf '%s\n' "${files[@]}"
        # Folders, an inner one after the one that it is in.
        { [ -z "$before" ] || echo "$before"; [ ${#made[@]} -eq 0 ] || printf '%s/\n' "${made[@]}"; } | LC_ALL=C sort -u
    } >"$MANIFEST"
    chmod 644 "$MANIFEST"
    echo "rocmforge $version is installed in $DESTDIR$PREFIX"
    if [ -z "$DESTDIR" ] && [ "$(id -u)" -eq 0 ] && [[ $LIBDIR == /usr/* ]]; then ldconfig || true; fi
}

remove_files() {
    local name
    while read -r name; do
        [[ $name == */ ]] || rm -f "$DESTDIR$name"
    done < <(grep -v '/$' "$MANIFEST")
}

uninstall() {
    [ -f "$MANIFEST" ] || { echo "install.sh: nothing to remove: $MANIFEST is not there" >&2; return; }
    local folders name
    folders=$(grep '/$' "$MANIFEST" | LC_ALL=C sort -r || true)
    remove_files
    # Whoever put something else there keeps it, and the folder.
    while read -r name; do
        [ -z "$name" ] || rmdir "$DESTDIR$name" 2>/dev/null || true
    done <<<"$folders"
    echo "rocmforge is removed from $DESTDIR$PREFIX"
}

case "${1:-} $#" in
"install 2")
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    install_all "$2"
    ;;
"uninstall 1") uninstall ;;
*) fail "usage: install.sh install BUILT | uninstall" ;;
esac
