/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: KERNEL_VERSION_STRING is in kernel.h here: see
 * tests/declarations/README.md. */
#include <zephyr/kernel.h>
