#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds Debian's kernel as a user-space process (ARCH=um), once per source version, fragment and compiler.
#   build.sh [build]   build unless the cache has it, then our modules; prints the cache's folder
#   build.sh path      the same, but fail with what is missing when there is no kernel yet
# SBE_KERNEL_SERIES says which kernel: 6.1 (without it) or 6.12, Debian's linux-source-SERIES.
# The cache is ${XDG_CACHE_HOME:-~/.cache}/sbe/kernel-KEY; deleting it is always safe.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
series=${SBE_KERNEL_SERIES:-6.1}
tarball=${SBE_KERNEL_SOURCE:-/usr/src/linux-source-$series.tar.xz}
jobs=${SBE_KERNEL_JOBS:-$(nproc)}
apt="linux-source-$series gcc make flex bison bc xz-utils libc6-dev kmod"

missing() {
    echo "$1: apt-get install $apt" >&2
    exit 1
}

for tool in gcc make flex bison bc xz flock insmod; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing "$tool is missing"
done
[ -r "$tarball" ] || missing "the kernel source $tarball is missing"

version=$(dpkg-query --show --showformat='${Version}' "linux-source-$series" 2>/dev/null ||
    stat --format='%s-%Y' "$tarball")
key=$({ echo "$version"; gcc -dumpfullversion -dumpmachine; cat "$here/fragment.config"; } |
    sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sbe/kernel-$version-$key

if [ "${1:-build}" = path ] && [ ! -e "$cache/built" ]; then
    echo "the kernel is not built: make rig-kernel" >&2
    exit 1
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # two checkouts may start at once

if [ ! -e "$cache/built" ]; then
    log=$cache/build.log
    echo "building Linux $version for the rig (some minutes, once); log: $log" >&2
    rm -rf "$cache/tree"
    mkdir "$cache/tree"
    configure() {
        tar --extract --file "$tarball" --directory "$cache/tree" --strip-components=1 &&
            make -C "$cache/tree" ARCH=um KCONFIG_ALLCONFIG="$here/fragment.config" allnoconfig
    }
    compile() {
        make -C "$cache/tree" ARCH=um -j"$jobs"
    }
    attempt() {
        "$1" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
    }
    : >"$log"
    attempt configure
    # An option that kconfig dropped would only be noticed by a test that fails far from here.
    dropped=$(grep '^CONFIG_' "$here/fragment.config" | grep --invert-match --line-regexp \
        --fixed-strings --file="$cache/tree/.config") || true
    if [ -n "$dropped" ]; then
        echo "the kernel's configuration did not take:" "$dropped" >&2
        exit 1
    fi
    attempt compile
    cp "$cache/tree/linux" "$cache/linux"
    touch "$cache/built"
fi

# What is of this checkout: the preload and our modules, out of their sources' folders.
modules=$root/build/kernel/$series
mkdir -p "$modules"
gcc -std=c11 -O2 -Wall -Wextra -Werror -Wconversion -shared -fPIC \
    -o "$root/build/kernel/uml_ptrace.$$" "$here/uml_ptrace.c"
mv "$root/build/kernel/uml_ptrace.$$" "$root/build/kernel/uml_ptrace.so" # a guest may be starting
"$cache/tree/scripts/dtc/dtc" -q -I dts -O dtb -o "$root/build/kernel/board.$$" "$here/board.dts"
mv "$root/build/kernel/board.$$" "$root/build/kernel/board.dtb"
firmware=$root/firmware
uio=$root/build/kernel/uio-remote
if [ ! -e "$uio" ] || [ -n "$(find "$firmware" "$here/uio" -name '*.[ch]' -newer "$uio")" ]; then
    (cd "$firmware" && gcc -std=c11 -O1 -g -D_GNU_SOURCE -Wall -Wextra -Werror -I. -o "$uio.$$" \
        "$here/uio/remote.c" ports/carveout/carveout.c asg/*.c carveout/*.c core/*.c ninep/*.c \
        pieces/*.c power/*.c services/*.c streams/*.c -lm)
    mv "$uio.$$" "$uio"
fi
build_modules() { # of a folder, into another
    mkdir -p "$2"
    for file in Kbuild $(cd "$1" && ls -- *.[ch]); do
        ln -sfn "$1/$file" "$2/$file"
    done
    make -C "$cache/tree" ARCH=um M="$2" modules >"$2/build.log" 2>&1 ||
        { cat "$2/build.log" >&2; exit 1; }
}
build_modules "$root/linux/kernel" "$modules"
build_modules "$here/modules" "$modules/rig"
echo "$cache"
