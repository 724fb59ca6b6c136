#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Another architecture's Debian as a folder: Python, what the package needs, and for arm64 a kernel that boots it.
#   build.sh ARCH [build]   build unless the cache has it, then the extension and sbe-remote of this checkout;
#                           prints the cache's folder
#   build.sh ARCH path      the same, but fail with what is missing when there is no such folder yet
# ARCH is Debian's name: arm64 or armhf. Packages come by apt and pip as they are configured on this machine, whose
# own packages and architectures stay as they are.
# The cache is ${XDG_CACHE_HOME:-~/.cache}/sbe/soc-ARCH-KEY; deleting it is always safe.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../../.." && pwd)
arch=$1
python=$checkout/.venv/bin/python
PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "$1" >&2
    exit 1
}

case $arch in
arm64) triplet=aarch64-linux-gnu platforms="manylinux_2_28_aarch64 manylinux2014_aarch64" ;;
armhf) triplet=arm-linux-gnueabihf platforms="manylinux_2_31_armv7l manylinux2014_armv7l" ;;
*) fail "$arch is neither arm64 nor armhf" ;;
esac

need() {
    command -v "$1" >/dev/null || fail "no $1 (sudo apt install $2)"
}
need "$triplet-gcc" "gcc-$triplet"
need cpio cpio
need modprobe kmod
need apt-get apt
[ -x "$python" ] || fail "no virtual environment in this checkout: make build"

# Neither what is only for development nor what has no wheel there.
without="scipy|matplotlib|mypy|ruff|z3-solver|griffelib"
packages="python3 libpython3-stdlib busybox-static libudev1 libstdc++6"
[ "$arch" = arm64 ] || { without="$without|numpy|pillow" packages="$packages python3-numpy python3-pil"; }
wheels=$("$python" "$checkout/tests/tools/requirements.py" test | grep -vE "^($without)\b")
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
key=$({ echo "$release $packages" "$wheels"; cat "$here/build.sh" "$here/init.sh"; } | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sbe/soc-$arch-$key

if [ "${2:-build}" = path ] && [ ! -e "$cache/built" ]; then
    fail "no Debian for $arch is built: make soc-parts"
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # two checkouts may start at once
log=$cache/build.log

attempt() {
    "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "$1 failed, log: $log"; }
}

# apt with lists and a (void) status of its own: what is installed here neither counts nor changes.
apt_of_arch() {
    tool=$1
    shift
    "$tool" -o Dir::State="$cache/apt" -o Dir::State::status="$cache/apt/status" -o Dir::Cache="$cache/apt/cache" \
        -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User= "$@"
}

fetch_packages() {
    rm -rf "$cache/apt"
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
    : >"$cache/apt/status"
    apt_of_arch apt-get update >>"$log" 2>&1 || true # a list that a mirror lacks today need not be the one that is needed
    # shellcheck disable=SC2086 # words
    attempt apt_of_arch apt-get install --download-only --yes --no-install-recommends $packages
    for package in "$cache"/apt/cache/archives/*.deb; do
        attempt dpkg-deb -x "$package" "$root"
    done
    headers=$cache/headers
    rm -rf "$headers"
    (cd "$cache/apt" && attempt apt_of_arch apt-get download libpython3.11-dev)
    attempt dpkg-deb -x "$cache"/apt/libpython3*-dev_*.deb "$headers"
}

fetch_wheels() {
    set -- --target "$root/usr/lib/python3/dist-packages" --only-binary=:all: --python-version 3.11 --no-compile
    for platform in $platforms; do
        set -- "$@" --platform "$platform"
    done
    # shellcheck disable=SC2086 # words
    attempt "$python" -m pip --disable-pip-version-check install --quiet "$@" $wheels
}

# The stock kernel, and an initramfs of the drivers that it needs to get at its root.
fetch_kernel() {
    image=$(apt_of_arch apt-cache depends --important linux-image-arm64 | awk '/Depends: linux-image/ {print $2; exit}')
    (cd "$cache/apt" && attempt apt_of_arch apt-get download "$image")
    rm -rf "$cache/kernel" "$cache/initramfs"
    attempt dpkg-deb -x "$cache/apt/$image"_*.deb "$cache/kernel"
    version=${image#linux-image-}
    mv "$cache/kernel/boot/vmlinuz-$version" "$cache/vmlinuz"
    attempt depmod --basedir "$cache/kernel" "$version"
    mkdir -p "$cache/initramfs/bin" "$cache/initramfs/dev" "$cache/initramfs/mnt" "$cache/initramfs/modules"
    cp "$root/bin/busybox" "$cache/initramfs/bin"
    cp "$here/init.sh" "$cache/initramfs/init"
    for module in virtio_pci 9pnet_virtio 9p; do
        modprobe --dirname "$cache/kernel" --set-version "$version" --show-depends "$module"
    done | awk '/^insmod/ && !seen[$2]++ {print $2}' >"$cache/kernel/order"
    while read -r file; do
        cp "$file" "$cache/initramfs/modules"
        basename "$file"
    done <"$cache/kernel/order" >"$cache/initramfs/modules/order"
    (cd "$cache/initramfs" && find . | cpio --quiet --create --format=newc | gzip -1) >"$cache/initramfs.gz"
    rm -rf "$cache/kernel" "$cache/initramfs"
}

if [ ! -e "$cache/built" ]; then
    echo "fetching Debian $release for $arch (a minute, once); log: $log" >&2
    : >"$log"
    root=$cache/root
    rm -rf "$root"
    for place in proc sys dev run tmp work checkout; do
        mkdir -p "$root/$place"
    done
    fetch_packages
    [ -e "$root/bin/sh" ] || ln -s busybox "$root/bin/sh"
    for library in blas lapack; do # links that packages make when they are installed
        [ ! -d "$root/usr/lib/$triplet/$library" ] || ln -s "$library/lib$library.so.3" "$root/usr/lib/$triplet/"
    done
    fetch_wheels
    [ "$arch" != arm64 ] || fetch_kernel
    # The root is read-only there, and Python slow at compiling.
    attempt "$python" -m compileall -q -j 0 -s "$root" "$root/usr/lib/python3" "$root/usr/lib/python3.11"
    rm -rf "$cache/apt"
    touch "$cache/built"
fi
echo "$cache"
