/* SPDX-License-Identifier: MIT */
#include "group.h"
#include "pages.h"

#include <stdlib.h>
#include <string.h>

static void provide(struct iox_group *group, uint16_t bid)
{
	uint16_t position = group->tail & (group->count - 1);
	struct iox_buf *entry = &group->ring[position];

	entry->addr = (uint64_t)(uintptr_t)iox_group_buffer(group, bid);
	entry->len = group->size;
	entry->bid = bid;
	group->buffers[bid] = (struct iox_buffer){ .position = position };
	group->tail++;
}

struct iox_group *iox_group_new(uint32_t count, uint32_t size, bool incremental)
{
	struct iox_group *group = calloc(1, sizeof(*group));

	if (!group)
		return NULL;
	group->refs = 1;
	group->count = count;
	group->size = size;
	group->incremental = incremental;
	group->buffers = calloc(count, sizeof(*group->buffers));
	group->ring = iox_pages_map(count * sizeof(*group->ring));
	group->pool = iox_pages_map((size_t)count * size);
	if (!group->buffers || !group->ring || !group->pool) {
		iox_group_unref(group);
		return NULL;
	}
	for (uint32_t bid = 0; bid < count; bid++)
		provide(group, (uint16_t)bid);
	return group;
}

void iox_group_unref(struct iox_group *group)
{
	if (--group->refs)
		return;
	if (group->ring)
		iox_pages_unmap(group->ring, group->count * sizeof(*group->ring));
	if (group->pool)
		iox_pages_unmap(group->pool, (size_t)group->count * group->size);
	free(group->buffers);
	free(group);
}

int iox_group_register(struct iox_group *group, int ring_fd, uint16_t id)
{
	struct iox_buf_reg reg;
	int ret;

	memset(&reg, 0, sizeof(reg));
	reg.ring_addr = (uint64_t)(uintptr_t)group->ring;
	reg.ring_entries = group->count;
	reg.bgid = id;
	reg.flags = group->incremental ? IOX_PBUF_RING_INC : 0;
	ret = iox_sys_register(ring_fd, IOX_REGISTER_PBUF_RING, &reg, 1);
	if (ret < 0)
		return ret;
	group->id = id;
	group->registered = true;
	iox_group_publish(group);
	return 0;
}

int iox_group_register_waiting(struct iox_group *group, int ring_fd, uint16_t id)
{
	int ret, attempt = 0;

	do
		ret = iox_group_register(group, ring_fd, id);
	while (ret == -ENOMEM && iox_pages_wait(attempt++));
	return ret;
}

void iox_group_unregister(struct iox_group *group, int ring_fd)
{
	struct iox_buf_reg reg;

	if (!group->registered)
		return;
	memset(&reg, 0, sizeof(reg));
	reg.bgid = group->id;
	iox_sys_register(ring_fd, IOX_UNREGISTER_PBUF_RING, &reg, 1);
	group->registered = false;
}

uint32_t iox_group_take(struct iox_group *group, uint16_t bid, uint32_t length, bool more,
			uint32_t *offset, uint16_t *next)
{
	struct iox_buffer *buffer = &group->buffers[bid];
	uint32_t room, step;

	if (buffer->done)
		return 0; /* it is ours: the kernel cannot have written to it */
	*offset = buffer->filled;
	room = group->size - buffer->filled;
	step = length < room ? length : room;
	if (group->incremental && step < length)
		return 0; /* more than the buffer had room for: not without bundles, which are not used */
	buffer->filled += step;
	buffer->refs++;
	/* BUF_MORE alone decides: a multishot that a full CQ ended has it set and F_MORE clear. */
	if (!group->incremental || !more) {
		buffer->done = true;
		group->held++;
	}
	/* A bundle goes on in the buffer that was provided next. */
	*next = group->ring[(buffer->position + 1) & (group->count - 1)].bid;
	return step;
}

bool iox_group_release(struct iox_group *group, uint16_t bid)
{
	struct iox_buffer *buffer = &group->buffers[bid];

	buffer->refs--;
	if (buffer->refs || !buffer->done || !group->registered)
		return false;
	group->held--;
	provide(group, bid);
	return true;
}
