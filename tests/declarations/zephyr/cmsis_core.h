/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_CMSIS_CORE_H
#define DECLARED_CMSIS_CORE_H

#include <stdint.h>

uint32_t __get_PSP(void);

#endif
