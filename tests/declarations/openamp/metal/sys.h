/* SPDX-License-Identifier: Apache-2.0 */
/* Describes libmetal 2025.10: see tests/declarations/README.md. */
#ifndef DECLARED_METAL_SYS_H
#define DECLARED_METAL_SYS_H

struct metal_init_params {
    int log_level;
};
#define METAL_INIT_DEFAULTS \
    {                       \
        .log_level = 0      \
    }

int metal_init(const struct metal_init_params *params);

#endif
