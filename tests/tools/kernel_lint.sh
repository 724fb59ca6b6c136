#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# checkpatch and sparse over linux/kernel and the rig's own modules, both against the rig's kernel tree, which has to be built.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
tree=$("$root/tests/rigs/kernel/build.sh" path)/tree
series=${SBE_KERNEL_SERIES:-6.1}
said=$root/build/kernel-lint.log

# Outside of a kernel tree, as far as it is concerned: inside it wants our licences in the tree's list.
perl "$tree/scripts/checkpatch.pl" --no-tree --strict --terse --show-types --file \
    "$root"/linux/kernel/*.[ch] "$root"/tests/rigs/kernel/modules/*.[ch]

# Neither of make's exit status nor of sparse's can be read whether it has complained.
for modules in "$root/build/kernel/$series" "$root/build/kernel/$series/rig"; do
    make -C "$tree" ARCH=um M="$modules" C=2 modules >"$said" 2>&1 || { cat "$said"; exit 1; }
    if ! grep -q 'CHECK ' "$said" || grep -E 'warning:|error:' "$said"; then
        echo "sparse complained, or did not run: $said" >&2
        exit 1
    fi
done
