#!/usr/bin/env bash
# Usage: sanitize.sh VENV_BIN SANITIZERS [pytest arguments]
# Builds the extension and sbe-remote with SANITIZERS ("address,undefined" or "thread") and runs
# tests under them: the conformance suite and those of the extension, unless tests are named. The
# build goes beside the usual one, into build/; the packages of VENV_BIN are used, none is fetched.
set -euo pipefail
bin=$(cd "$1" && pwd)
sanitizers=$2
shift 2
cd "$(dirname "$0")/../.."
root=$PWD
place=$root/build/sanitize/${sanitizers%%,*}
limit_s=${SBE_SANITIZE_LIMIT_S:-1800}

case $sanitizers in
address*) library=libasan.so ;;
thread*) library=libtsan.so ;;
*)
    echo "sanitize: address,undefined or thread, not $sanitizers" >&2
    exit 2
    ;;
esac
preload=$(${CC:-gcc} -print-file-name=$library)
if [ "$preload" = "$library" ]; then
    echo "sanitize: ${CC:-gcc} has no $library (sudo apt install gcc)" >&2
    exit 1
fi

# A venv that sees the other one's packages, but not its editable install of sbe.
mkdir -p "$place"
"$bin/python" -m venv --without-pip "$place/venv"
site=$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/packages.pth"
rm -rf "$place/site"
"$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --no-index --target "$place/site" -C build-dir="$place/build" \
    -C cmake.build-type=Debug -C cmake.define.SBE_SANITIZE="$sanitizers" .

named=0
for argument in "$@"; do
    case $argument in tests/*) named=1 ;; esac
done
if [ $named -eq 0 ]; then
    set -- "$@" tests/conformance tests/unit/test_native_*.py tests/unit/test_session_native.py \
        tests/unit/test_staging.py
fi

# Older compilers cannot place their shadow memory when addresses are randomised with many bits.
fixed=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
    fixed=(setarch "$(uname -m)" -R)
fi

# -P and the emptied pythonpath: the tests come from here, sbe from the build. Python's own blocks
# come from malloc, or the sanitizer would not see them. Leaks are tests/unit/test_leaks.py's: of
# the interpreter's own, there are always some at its end.
echo "== Python tests under $sanitizers"
PYTHONPATH=$place/site:$root PYTHONMALLOC=malloc PYTHONSAFEPATH=1 LD_PRELOAD=$preload \
    ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1:allocator_may_return_null=1 \
    UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1:report_signal_unsafe=0 \
    "${fixed[@]}" timeout --kill-after=10 "$limit_s" "$place/venv/bin/python" -P -m pytest \
    -o pythonpath= -p no:cacheprovider --timeout 300 "$@"
