#!/bin/sh
# Usage: preflight.sh PYTHON
# Checks what only the system can provide: a C compiler, Python's headers, venv. One message names
# everything that is missing and the one apt line that cures it.
set -u
python=$1
missing=

if ! command -v "$python" >/dev/null 2>&1; then
    echo "sbe: '$python' not found. Install Python 3.11 or later: sudo apt install python3 gcc python3-dev python3-venv" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "sbe: $("$python" --version) is too old, 3.11 or later is needed; name another with 'make PYTHON=...'." >&2
    exit 1
fi

# A compiler counts when it makes a program: gcc without libc's headers is not enough.
try_compile() {
    echo 'int main(void) { return 0; }' | ${CC:-cc} -include stdio.h -x c -o /dev/null - 2>/dev/null
}
try_compile || missing="$missing a C compiler (gcc);"
"$python" -c '
import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").is_file())
' || missing="$missing Python.h (python3-dev);"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing venv (python3-venv);"

[ -z "$missing" ] && exit 0
echo "sbe: missing:${missing%;}. Install with: sudo apt install gcc python3-dev python3-venv" >&2
exit 1
