#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds tests/core for ARCH and runs it under qemu-user, cross.sh having been there before.
#   core.sh ARCH CACHE [CTEST ARGUMENTS]
set -eu
checkout=$(cd "$(dirname "$0")/../../.." && pwd)
bin=$checkout/.venv/bin
arch=$1 cache=$2
shift 2
out=$checkout/build/soc/$arch
"$bin/cmake" -S "$checkout/firmware" -B "$out/core" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" -DSBE_BUILD_TESTS=ON \
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-DSLOW --toolchain "$out/toolchain.cmake" >"$out/core.log" 2>&1 || {
    cat "$out/core.log" >&2
    exit 1
}
"$bin/cmake" --build "$out/core" -- --quiet
exec "$checkout/tests/rigs/soc/user.sh" "$arch" "$cache" here \
    "$bin/ctest" --test-dir "$out/core" --output-on-failure --no-tests=error -j 2 "$@"
