/* SPDX-License-Identifier: MIT */
/* Doubly linked lists whose nodes are members of the linked structures. */
#ifndef IOX_LIST_H
#define IOX_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* A node that points at itself is in no list. */
struct iox_node {
	struct iox_node *prev, *next;
};

static inline void iox_list_init(struct iox_node *node)
{
	node->prev = node->next = node;
}

static inline bool iox_list_linked(const struct iox_node *node)
{
	return node->next != node;
}

static inline void iox_list_remove(struct iox_node *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	iox_list_init(node);
}

static inline void iox_list_append(struct iox_node *head, struct iox_node *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Moves all of `from` to the front of `head`. */
static inline void iox_list_put_first(struct iox_node *head, struct iox_node *from)
{
	if (!iox_list_linked(from))
		return;
	from->prev->next = head->next;
	head->next->prev = from->prev;
	head->next = from->next;
	from->next->prev = head;
	iox_list_init(from);
}

#define IOX_LISTS_INIT(...)                                                              \
	do {                                                                             \
		struct iox_node *nodes[] = { __VA_ARGS__ };                              \
									                 \
		for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)            \
			iox_list_init(nodes[i]);                                         \
	} while (0)

#define IOX_ENTRY(node, type, member) ((type *)((char *)(node) - offsetof(type, member)))

#endif
