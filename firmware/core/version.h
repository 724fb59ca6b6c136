/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The release of this code, and the one place that says it: pyproject.toml, the extension and the
 * programs read it from here. What two ends agree on is the protocol's version, SBE_VERSION_MIN and
 * _MAX in wire.h, which has nothing to do with it. docs/support.md says what each step means.
 */
#ifndef SBE_CORE_VERSION_H
#define SBE_CORE_VERSION_H

#define SBE_RELEASE_MAJOR 0
#define SBE_RELEASE_MINOR 1
#define SBE_RELEASE_PATCH 0

#define SBE_RELEASE_TEXT(major, minor, patch) #major "." #minor "." #patch
#define SBE_RELEASE_JOIN(major, minor, patch) SBE_RELEASE_TEXT(major, minor, patch)
/* "MAJOR.MINOR.PATCH" */
#define SBE_RELEASE SBE_RELEASE_JOIN(SBE_RELEASE_MAJOR, SBE_RELEASE_MINOR, SBE_RELEASE_PATCH)

#endif
