/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_SYS_PRINTK_H
#define DECLARED_ZEPHYR_SYS_PRINTK_H

void printk(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
