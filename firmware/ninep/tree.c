/* SPDX-License-Identifier: Apache-2.0 */
#include "ninep/tree.h"

#include <string.h>

#include "core/status.h"

static struct {
    bool made;
    uint64_t paths; /* handed out so far */
    uint64_t now_ns;
    uint32_t used_nodes;
    struct ninep_node nodes[NINEP_NODES];
} tree;

void ninep_tree_at(uint64_t now_ns)
{
    tree.now_ns = now_ns;
}

struct ninep_node *ninep_node(uint32_t index)
{
    return &tree.nodes[index];
}

uint32_t ninep_index(const struct ninep_node *node)
{
    return (uint32_t)(node - tree.nodes);
}

uint64_t ninep_size(const struct ninep_node *node)
{
    return node->kind == NINEP_SPECIAL ? node->special->size(node->special) : node->size;
}

void ninep_touch(struct ninep_node *node)
{
    node->version++;
    node->mtime_s = tree.now_ns / 1000000000u;
    node->mtime_ns = (uint32_t)(tree.now_ns % 1000000000u);
}

static struct ninep_node *new_node(struct ninep_node *dir, struct ninep_text name,
                                   enum ninep_kind kind)
{
    for (uint32_t i = 0; i < NINEP_NODES; i++) {
        struct ninep_node *node = &tree.nodes[i];
        if (node->kind != NINEP_FREE)
            continue;
        *node = (struct ninep_node){
            .kind = (uint8_t)kind,
            .name_size = (uint8_t)name.size,
            .parent = (uint16_t)ninep_index(dir),
            .path = ++tree.paths,
            .first = NINEP_NONE,
            .last = NINEP_NONE,
            .at_block = NINEP_NONE,
            .mode = kind == NINEP_DIR || kind == NINEP_RAM_DIR ? NINEP_MODE_DIR | 0755u
                                                               : NINEP_MODE_FILE | 0644u,
        };
        if (name.size != 0)
            memcpy(node->name, name.bytes, name.size);
        ninep_touch(node);
        tree.used_nodes++;
        if (node != dir)
            dir->children++;
        return node;
    }
    return NULL;
}

static struct ninep_text text_of(const char *name)
{
    return (struct ninep_text){.bytes = name, .size = (uint16_t)strlen(name)};
}

void ninep_tree_init(void)
{
    if (tree.made)
        return;
    tree.made = true;
    (void)new_node(&tree.nodes[NINEP_ROOT], text_of(""), NINEP_DIR);
}

struct ninep_node *ninep_find(const struct ninep_node *dir, struct ninep_text name)
{
    uint32_t parent = ninep_index(dir);
    if (dir->children == 0 || dir->removed)
        return NULL;
    for (uint32_t i = NINEP_ROOT + 1; i < NINEP_NODES; i++) {
        struct ninep_node *node = &tree.nodes[i];
        if (node->kind != NINEP_FREE && node->parent == parent && !node->removed &&
            node->name_size == name.size && memcmp(node->name, name.bytes, name.size) == 0)
            return node;
    }
    return NULL;
}

struct ninep_node *ninep_next(const struct ninep_node *dir, uint64_t place)
{
    uint32_t parent = ninep_index(dir);
    for (uint64_t i = place > NINEP_ROOT ? place : NINEP_ROOT + 1; i < NINEP_NODES; i++) {
        struct ninep_node *node = &tree.nodes[i];
        if (node->kind != NINEP_FREE && node->parent == parent && !node->removed)
            return node;
    }
    return NULL;
}

static int check_name(struct ninep_text name)
{
    if (name.size == 0 || memchr(name.bytes, '/', name.size) != NULL ||
        memchr(name.bytes, '\0', name.size) != NULL || ninep_text_is(name, ".") ||
        ninep_text_is(name, ".."))
        return SBE_EINVAL;
    return name.size > NINEP_NAME ? NINEP_ENAMETOOLONG : SBE_OK;
}

/* That names in it may change. */
static int check_dir(const struct ninep_node *dir)
{
    if (!ninep_is_dir(dir))
        return NINEP_ENOTDIR;
    if (dir->removed)
        return SBE_ENOENT;
    if (dir->kind != NINEP_RAM_DIR)
        return SBE_EPERM;
    return ninep_read_only ? NINEP_EROFS : SBE_OK;
}

int ninep_create(struct ninep_node *dir, struct ninep_text name, enum ninep_kind kind,
                 struct ninep_node **made)
{
    int status = check_dir(dir);
    if (status == SBE_OK)
        status = check_name(name);
    if (status != SBE_OK)
        return status;
    if (ninep_find(dir, name) != NULL)
        return SBE_EEXIST;
    *made = new_node(dir, name, kind);
    if (*made == NULL)
        return SBE_ENOSPC;
    ninep_touch(dir);
    return SBE_OK;
}

int ninep_add_special(struct ninep_node *dir, const struct ninep_special *file)
{
    struct ninep_text name = text_of(file->name);
    int status = check_name(name);
    if (status != SBE_OK)
        return status;
    if (ninep_find(dir, name) != NULL)
        return SBE_EEXIST;
    struct ninep_node *node = new_node(dir, name, NINEP_SPECIAL);
    if (node == NULL)
        return SBE_ENOMEM;
    node->special = file;
    node->mode = NINEP_MODE_FILE | (file->write == NULL ? 0444u : 0644u);
    return SBE_OK;
}

struct ninep_node *ninep_add_dir(struct ninep_node *dir, const char *name, enum ninep_kind kind)
{
    return new_node(dir, text_of(name), kind);
}

static void detach(struct ninep_node *node)
{
    struct ninep_node *dir = &tree.nodes[node->parent];
    dir->children--;
    ninep_touch(dir);
    node->removed = true;
    node->parent = NINEP_ROOT; /* its own may end before it does */
    ninep_let_go(node);
}

int ninep_remove(struct ninep_node *node)
{
    int status = node->removed ? SBE_ENOENT : check_dir(&tree.nodes[node->parent]);
    if (status != SBE_OK)
        return status;
    if (node->kind == NINEP_RAM_DIR && node->children != 0)
        return NINEP_ENOTEMPTY;
    detach(node);
    return SBE_OK;
}

/* Whether a directory is this node, or below it: at most as many steps as there are nodes. */
static bool is_below(const struct ninep_node *dir, const struct ninep_node *node)
{
    for (uint32_t i = 0; i < NINEP_NODES && dir != &tree.nodes[NINEP_ROOT]; i++) {
        if (dir == node)
            return true;
        dir = &tree.nodes[dir->parent];
    }
    return false;
}

/* What has the name is replaced, if it may be. */
static int make_way(struct ninep_node *node, struct ninep_node *there)
{
    if (node->kind == NINEP_RAM_DIR && there->kind != NINEP_RAM_DIR)
        return NINEP_ENOTDIR;
    if (node->kind != NINEP_RAM_DIR && there->kind == NINEP_RAM_DIR)
        return NINEP_EISDIR;
    return ninep_remove(there);
}

int ninep_rename(struct ninep_node *node, struct ninep_node *dir, struct ninep_text name)
{
    struct ninep_node *from = &tree.nodes[node->parent];
    int status = node->removed ? SBE_ENOENT : check_dir(from);
    if (status == SBE_OK)
        status = check_dir(dir);
    if (status == SBE_OK)
        status = check_name(name);
    if (status == SBE_OK && is_below(dir, node))
        status = SBE_EINVAL;
    if (status != SBE_OK)
        return status;
    struct ninep_node *there = ninep_find(dir, name);
    if (there == node)
        return SBE_OK;
    if (there != NULL)
        status = make_way(node, there);
    if (status != SBE_OK)
        return status;
    from->children--;
    dir->children++;
    node->parent = (uint16_t)ninep_index(dir);
    node->name_size = (uint8_t)name.size;
    memcpy(node->name, name.bytes, name.size);
    ninep_touch(from);
    ninep_touch(dir);
    return SBE_OK;
}

void ninep_let_go(struct ninep_node *node)
{
    if (!node->removed || node->fids != 0)
        return;
    ninep_ram_cut(node, 0);
    node->kind = NINEP_FREE;
    tree.used_nodes--;
}

uint32_t ninep_tree_free_nodes(void)
{
    return NINEP_NODES - tree.used_nodes;
}
