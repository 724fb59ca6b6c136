/* SPDX-License-Identifier: Apache-2.0 */
/* Included before anything else: each point at which an end may die asks whether it does so there.
 */
#ifndef SBE_TESTS_DEATHS_STEP_H
#define SBE_TESTS_DEATHS_STEP_H

void deaths_step(const char *name);

#define SBE_STEP(name) deaths_step(name)

#endif
