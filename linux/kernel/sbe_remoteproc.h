/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What remoteproc exports to drivers but declares in a header that only its
 * own folder has (drivers/remoteproc/remoteproc_internal.h).
 */
#ifndef SBE_REMOTEPROC_H
#define SBE_REMOTEPROC_H

#include <linux/irqreturn.h>

struct rproc;

irqreturn_t rproc_vq_interrupt(struct rproc *rproc, int vq_id);

#endif
