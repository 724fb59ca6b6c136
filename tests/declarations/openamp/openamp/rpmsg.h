/* SPDX-License-Identifier: Apache-2.0 */
/* Describes OpenAMP 2025.10: see tests/declarations/README.md. */
#ifndef DECLARED_OPENAMP_RPMSG_H
#define DECLARED_OPENAMP_RPMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RPMSG_SUCCESS     0
#define RPMSG_ERR_NO_BUFF (-2002)
#define RPMSG_ADDR_ANY    0xffffffffu

struct rpmsg_device;
struct rpmsg_endpoint;

typedef int (*rpmsg_ept_cb)(struct rpmsg_endpoint *endpoint, void *data, size_t size,
                            uint32_t source, void *user);
typedef void (*rpmsg_ns_unbind_cb)(struct rpmsg_endpoint *endpoint);
typedef void (*rpmsg_ns_bind_cb)(struct rpmsg_device *device, const char *name,
                                 uint32_t destination);

struct rpmsg_endpoint {
    char name[32];
    uint32_t addr;
    void *priv;
};

struct rpmsg_device {
    bool support_ns;
};

int rpmsg_create_ept(struct rpmsg_endpoint *endpoint, struct rpmsg_device *device, const char *name,
                     uint32_t source, uint32_t destination, rpmsg_ept_cb callback,
                     rpmsg_ns_unbind_cb unbind);
void rpmsg_destroy_ept(struct rpmsg_endpoint *endpoint);
int rpmsg_trysendto(struct rpmsg_endpoint *endpoint, const void *data, int size,
                    uint32_t destination);

#endif
