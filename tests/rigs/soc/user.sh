#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command in the Debian of another architecture with qemu-user, which starts its processes' programs too.
#   user.sh ARCH CACHE COMMAND...        ARCH is arm64 or armhf, CACHE what build.sh printed
#   user.sh ARCH CACHE here COMMAND...   the same in this machine's files: its own programs may start foreign ones
# The emulator is registered in a user namespace of its own (Linux 6.7 or later): this machine stays as it is. This
# checkout is /checkout there, with the cross-built package in the place of `sbe`.
set -eu
checkout=$(cd "$(dirname "$0")/../../.." && pwd)
arch=$1 cache=$2
shift 2
case $arch in # what the head of an ELF file of the machine has: class, machine
arm64) emulator=qemu-aarch64-static class=02 machine=b7 ;;
armhf) emulator=qemu-arm-static class=01 machine=28 ;;
esac
emulator=$(command -v "$emulator") || {
    echo "no $emulator (sudo apt install qemu-user-static)" >&2
    exit 1
}
zeros='\x00\x00\x00\x00\x00\x00\x00\x00'
ones='\xff\xff\xff\xff\xff\xff\xff\xff'
magic="\\x7fELF\\x$class\\x01\\x01\\x00$zeros\\x02\\x00\\x$machine\\x00"
mask="\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00$ones\\xfe\\xff\\xff\\xff"
export rule=":sbe-$arch:M::$magic:$mask:$emulator:OCF" root="$cache/root" checkout package="$checkout/build/soc/$arch/package/sbe"

# shellcheck disable=SC2016 # expanded by the inner shell
exec unshare --user --map-root-user --mount --pid --fork --kill-child --mount-proc sh -euc '
mount -t binfmt_misc binfmt /proc/sys/fs/binfmt_misc
printf "%s" "$rule" >/proc/sys/fs/binfmt_misc/register
if [ "$1" = here ]; then
    shift
    exec env QEMU_LD_PREFIX="$root" "$@"
fi
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmp "$root/tmp"
mount -t tmpfs run "$root/run"
mount --bind "$checkout" "$root/checkout"
mount --bind "$package" "$root/checkout/sbe"
cd "$root"
exec env -i PATH=/usr/sbin:/usr/bin:/bin HOME=/run LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 SBE_EMULATED=1 \
    PYTHONPATH=/checkout chroot . /bin/sh -c "cd /checkout && exec \"\$@\"" sh "$@"
' sh "$@"
