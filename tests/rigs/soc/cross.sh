#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds this checkout's wheel for ARCH (arm64 or armhf) with Debian's cross compiler and unpacks it.
#   cross.sh ARCH CACHE   CACHE is what build.sh printed; prints the folder that `sbe` lies in
set -eu
checkout=$(cd "$(dirname "$0")/../../.." && pwd)
arch=$1 cache=$2
case $arch in
arm64) machine=aarch64 triplet=aarch64-linux-gnu ;;
armhf) machine=armv7l triplet=arm-linux-gnueabihf ;;
esac
python=$checkout/.venv/bin/python
out=$checkout/build/soc/$arch
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
cat >"$out/toolchain.cmake" <<END
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR $machine)
set(CMAKE_C_COMPILER $triplet-gcc)
set(CMAKE_C_FLAGS_INIT -I$cache/headers/usr/include)
END
log=$out/build.log
rm -rf "$out/wheel" "$out/package"
{
    _PYTHON_HOST_PLATFORM=linux-$machine "$python" -m pip --disable-pip-version-check wheel --no-deps \
        --no-build-isolation --wheel-dir "$out/wheel" --config-settings=build-dir="$out/cmake-${cache##*-}" \
        --config-settings=cmake.define.CMAKE_TOOLCHAIN_FILE="$out/toolchain.cmake" \
        --config-settings=cmake.define.Python_INCLUDE_DIR="$cache/headers/usr/include/python3.11" "$checkout" &&
    "$python" -m pip --disable-pip-version-check install --no-deps --target "$out/package" --only-binary=:all: \
        --platform "linux_$machine" --python-version 3.11 "$out"/wheel/*.whl
} >"$log" 2>&1 9>&- || {
    tail -n 30 "$log" >&2
    exit 1
}
echo "$out/package"
