/* SPDX-License-Identifier: Apache-2.0 */
/* What Linux exports to more than the context that does. */
#ifndef SBE_SERVICES_FILES_H
#define SBE_SERVICES_FILES_H

#include "ninep/client.h"

/* A session with what the user of a context exports to all their contexts, or NULL: nothing. */
struct sbe_9p *sbe_files(uint32_t context);

#endif
