#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the applications of firmware/zephyr with a Zephyr that the user has, into build/zephyr.
#   ZEPHYR_BASE     Zephyr's tree, 4.3.0 or later
#   ZEPHYR_MODULES  its modules, separated by semicolons; empty: west's workspace knows them
#   ZEPHYR_TARGETS  APPLICATION@BOARD ...; by default those of the emulated board, of OpenAMP if it is there
#   ZEPHYR_ARGS     more arguments for CMake
# The toolchain and Python are Zephyr's to find (ZEPHYR_TOOLCHAIN_VARIANT, a virtual environment that is active).
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
targets=${ZEPHYR_TARGETS:-carveout@mps2/an521/cpu0}
case ${ZEPHYR_TARGETS:-}:${ZEPHYR_MODULES:-open-amp} in
:*open-amp*) targets="$targets openamp@mps2/an521/cpu0" ;;
esac

fail() {
    echo "rig-zephyr: $1; see docs/tutorials/zephyr.md" >&2
    exit 1
}

[ -n "${ZEPHYR_BASE:-}" ] || fail "name Zephyr's tree: make rig-zephyr ZEPHYR_BASE=... ZEPHYR_MODULES=..."
[ -f "$ZEPHYR_BASE/VERSION" ] || fail "ZEPHYR_BASE=$ZEPHYR_BASE is no tree of Zephyr"
for tool in cmake ninja; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done
export ZEPHYR_BASE
if [ -n "${ZEPHYR_MODULES:-}" ]; then
    modules="-DZEPHYR_MODULES=$ZEPHYR_MODULES;$root"
else
    modules="-DEXTRA_ZEPHYR_MODULES=$root"
fi
unset ZEPHYR_MODULES

for target in $targets; do
    name=$(echo "$target" | tr '/@' '__')
    out=$root/build/zephyr/$name
    rm -rf "$out" # Zephyr looks for a board's files once per build folder
    mkdir -p "$out"
    echo "rig-zephyr: $target" >&2
    # shellcheck disable=SC2086 # ZEPHYR_ARGS are words
    cmake -S "$root/firmware/zephyr/samples/${target%@*}" -B "$out" -G Ninja -DBOARD="${target#*@}" \
        "$modules" ${ZEPHYR_ARGS:-} >"$out.log" 2>&1 && ninja -C "$out" >>"$out.log" 2>&1 || {
        tail -n 40 "$out.log" >&2
        fail "$target does not build, log: $out.log"
    }
    sed -n '/^Memory region/,$p' "$out.log" | grep -E '^(Memory| +(FLASH|RAM):)' || true
done
