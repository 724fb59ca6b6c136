#!/usr/bin/env bash
# Usage: ctests.sh VENV_BIN
# Builds and runs tests/core/test_*.c under AddressSanitizer and UBSan, and those with two threads,
# test_*_threads.c, once more under ThreadSanitizer.
set -euo pipefail
bin=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

# The sanitizers of older compilers cannot place their shadow memory when the kernel randomises
# addresses with many bits. Running without randomisation is sound for a test; where a sandbox
# forbids asking for it, run as is.
fixed=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
    fixed=(setarch "$(uname -m)" -R)
fi

# run DIR SANITIZERS [ctest -R PATTERN]
run() {
    local dir=$1 sanitizers=$2 pattern=${3:-.}
    echo "== C tests under $sanitizers"
    "$bin/cmake" -S firmware -B "$dir" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" \
        -DSBE_BUILD_TESTS=ON -DSBE_SANITIZE="$sanitizers" -DCMAKE_BUILD_TYPE=Debug >"$dir.log" 2>&1 ||
        { cat "$dir.log"; return 1; }
    "$bin/cmake" --build "$dir" -- --quiet
    "${fixed[@]}" "$bin/ctest" --test-dir "$dir" -R "$pattern" --output-on-failure --no-tests=error -j 2
}

mkdir -p build
run build/asan address,undefined
if compgen -G 'tests/core/test_*_threads.c' >/dev/null; then
    run build/tsan thread '_threads$'
fi
