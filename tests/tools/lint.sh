#!/usr/bin/env bash
# Usage: lint.sh VENV_BIN [CHECK...]
# Every static check, or those that are named, as in "ruff check". All of them run, and the names of
# those that failed are printed last.
# A tool that is not installed: its part is skipped with the apt line, or fails under
# SBE_RIGS=required, so that CI can never pass by lacking a tool.
set -uo pipefail
bin=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
only=("${@:2}")
known=()
failed=()

# wanted CHECK...: true when one of these is to run
wanted() {
    local name each
    known+=("$@")
    [ ${#only[@]} -eq 0 ] && return 0
    for name in "$@"; do
        for each in "${only[@]}"; do
            [ "$name" = "$each" ] && return 0
        done
    done
    return 1
}

check() {
    local name=$1
    shift
    wanted "$name" || return 0
    echo "== $name"
    "$@" || failed+=("$name")
}

# needs COMMAND PACKAGES...: true when the command exists
needs() {
    local command=$1
    shift
    command -v "$command" >/dev/null 2>&1 && return 0
    echo "== $command is not installed (sudo apt install $*): its checks are skipped"
    if [ "${SBE_RIGS:-}" = required ]; then
        failed+=("$command missing under SBE_RIGS=required")
    fi
    return 1
}

c_files() {
    git ls-files --cached --others --exclude-standard 'firmware/*.[ch]' 'sbe/native/*.[ch]' 'tests/*.[ch]' \
        ':!tests/rigs/kernel/modules' # which are the kernel's style, checked below
}

# Core, services, sbe-remote, the C tests and benchmarks and the extension, with every warning an error.
strict_build() {
    local cc=$1 dir=build/lint-$1
    mkdir -p build
    CC=$cc "$bin/cmake" -S sbe/native -B "$dir" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" \
        -DPython_EXECUTABLE="$bin/python" -DSBE_WERROR=ON -DSBE_BUILD_TESTS=ON -DSBE_BUILD_BENCH=ON \
        -DCMAKE_BUILD_TYPE=Release >"$dir.log" 2>&1 || { cat "$dir.log"; return 1; }
    "$bin/cmake" --build "$dir" -- --quiet -k 0
}

# The overlay that boards start from; a warning counts.
overlays() {
    local file said
    for file in linux/dts/*.dtso; do
        said=$(dtc -@ -I dts -O dtb -o /dev/null "$file" 2>&1) && [ -z "$said" ] || { echo "$said"; return 1; }
    done
}

check "ruff check" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy --strict" "$bin/mypy" --strict
check "stubtest" "$bin/stubtest" sbe._native --mypy-config-file pyproject.toml \
    --allowlist tests/tools/stubtest_allow.txt --ignore-unused-allowlist
if wanted "clang-format" && needs clang-format clang-format; then
    check "clang-format" sh -c 'xargs -r clang-format --dry-run -Werror' < <(c_files)
fi
if wanted "strict build, gcc" && needs gcc gcc; then
    check "strict build, gcc" strict_build gcc
fi
if wanted "strict build, clang" && needs clang clang; then
    check "strict build, clang" strict_build clang
fi
if wanted "cross builds and footprint"; then
    needs aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    needs arm-none-eabi-gcc gcc-arm-none-eabi libnewlib-arm-none-eabi
    check "cross builds and footprint" "$bin/python" -m tests.tools.footprint --strict
fi
if wanted "device tree overlays" && needs dtc device-tree-compiler; then
    check "device tree overlays" overlays
fi
if wanted "kernel modules: checkpatch, sparse" && needs sparse sparse; then
    if tests/rigs/kernel/build.sh path >/dev/null || [ "${SBE_RIGS:-}" = required ]; then
        check "kernel modules: checkpatch, sparse" tests/tools/kernel_lint.sh
    else
        echo "== the kernel modules are not checked: see above"
    fi
fi

for name in "${only[@]}"; do
    grep -qxF -- "$name" <<<"$(printf '%s\n' "${known[@]}")" || failed+=("$name: there is no such check")
done
if [ ${#failed[@]} -gt 0 ]; then
    printf 'lint: FAILED: %s\n' "${failed[@]}"
    exit 1
fi
echo "lint: all passed"
