#!/usr/bin/env bash
# Usage: build.sh VENV_BIN [coverage]
# Builds every tests/fuzz/fuzz_*.c into build/fuzz/fuzz/, with AddressSanitizer and UBSan; with
# `coverage` into build/fuzz-coverage/fuzz/, to tell which lines a corpus reaches.
set -euo pipefail
bin=$(cd "$1" && pwd)
kind=${2:-}
cd "$(dirname "$0")/../.."
dir=build/fuzz${kind:+-$kind}
mkdir -p build
exec 9>"$dir.lock" # several tests may want it at a time
flock 9
"$bin/cmake" -S firmware -B "$dir" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" \
    -DCMAKE_C_COMPILER="${SBE_CLANG:-clang}" -DSBE_BUILD_FUZZ=ON -DSBE_FUZZ_COVERAGE="${kind:+ON}" \
    -DSBE_BUILD_HOST=OFF -DSBE_WERROR=ON -DSBE_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Release \
    >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }
"$bin/cmake" --build "$dir" -- --quiet
