/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_DEVICETREE_H
#define DECLARED_ZEPHYR_DEVICETREE_H

/* A tree whose nodes have all that is asked for, but for what the build says they lack. */
#define DT_COMPAT_GET_ANY_STATUS_OKAY(compatible) 0
#define DT_PHANDLE(node, property)                0
#define DT_PHANDLE_BY_IDX(node, property, index)  0
#define DT_FOREACH_PROP_ELEM(node, property, of)  of(node, property, 0) of(node, property, 1)
#define DT_NODE_HAS_PROP(node, property)          DECLARED_HAS_##property
#define DT_REG_ADDR(node)                         0x80000000u
#define DT_REG_SIZE(node)                         0x1000000u

#ifndef DECLARED_HAS_uart
#define DECLARED_HAS_uart 1
#endif

#endif
