/* SPDX-License-Identifier: MIT */
#include "group.h"
#include "failing.h"
#include "pages.h"

#include <stdlib.h>
#include <string.h>

/* A shared group provides so many buffers at least; 2 MiB of the default size. */
#define WINDOW_MIN 64

/*
 * And so many at most, whatever it has: a batch that uses up more is rare, and goes on with the next
 * enter.  From 6.13 on the pages of a ring count as locked memory (io_uring/memmap.c,
 * io_create_region()).
 */
#define WINDOW_MAX 2048

static uint32_t smaller(uint32_t one, uint32_t other)
{
	return one < other ? one : other;
}

static uint32_t window_min(const struct iox_group *group)
{
	return group->incremental ? group->window_max : smaller(group->window_max, WINDOW_MIN);
}

static void provide(struct iox_group *group, uint16_t bid)
{
	uint16_t position = group->tail & (group->entries - 1);
	struct iox_buf *entry = &group->ring[position];

	entry->addr = (uint64_t)(uintptr_t)iox_group_buffer(group, bid);
	entry->len = group->size;
	entry->bid = bid;
	group->buffers[bid] = (struct iox_buffer){ .position = position };
	group->tail++;
	group->provided++;
}

static void put_to_rest(struct iox_group *group, uint16_t bid)
{
	group->resting[group->resting_count++] = bid;
}

struct iox_group *iox_group_new(uint32_t count, uint32_t size, bool incremental, bool bundle)
{
	struct iox_group *group = calloc(1, sizeof(*group));

	if (!group)
		return NULL;
	group->refs = 1;
	group->count = count;
	group->size = size;
	group->incremental = incremental;
	group->bundle = bundle;
	group->window_max = incremental ? count : smaller(count, WINDOW_MAX);
	/*
	 * What is in the ring of a bundle is read again when its completion is taken in, and that may come
	 * behind those of buffers that were provided later: the last completion of a request is posted
	 * with the enter's end, the others at once.  In twice the room no entry is written over before.
	 */
	group->entries = bundle ? 2 * group->window_max : group->window_max;
	group->buffers = calloc(count, sizeof(*group->buffers));
	group->resting = calloc(count, sizeof(*group->resting));
	group->ring = iox_pages_map(group->entries * sizeof(*group->ring));
	group->pool = iox_pages_map((size_t)count * size);
	if (!group->buffers || !group->resting || !group->ring || !group->pool) {
		iox_group_unref(group);
		return NULL;
	}
	for (uint32_t bid = count; bid--;)
		put_to_rest(group, (uint16_t)bid);
	group->window = window_min(group);
	while (group->provided < group->window)
		provide(group, group->resting[--group->resting_count]);
	group->resting_bare = group->resting_low = group->resting_count;
	return group;
}

void iox_group_unref(struct iox_group *group)
{
	if (--group->refs)
		return;
	if (group->ring)
		iox_pages_unmap(group->ring, group->entries * sizeof(*group->ring));
	if (group->pool)
		iox_pages_unmap(group->pool, (size_t)group->count * group->size);
	free(group->buffers);
	free(group->resting);
	free(group);
}

int iox_group_register(struct iox_group *group, int ring_fd, uint16_t id)
{
	struct iox_buf_reg reg;
	int ret;

	memset(&reg, 0, sizeof(reg));
	reg.ring_addr = (uint64_t)(uintptr_t)group->ring;
	reg.ring_entries = group->entries;
	reg.bgid = id;
	reg.flags = group->incremental ? IOX_PBUF_RING_INC : 0;
	ret = IOX_MAY_FAIL(IOX_FAILING_REGISTER, iox_sys_register(ring_fd, IOX_REGISTER_PBUF_RING, &reg, 1));
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
	IOX_MAY_FAIL(IOX_FAILING_REGISTER, iox_sys_register(ring_fd, IOX_UNREGISTER_PBUF_RING, &reg, 1));
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
	if (group->bundle) {
		/*
		 * The kernel cuts the last buffer of a bundle to what it expects to receive, in the ring
		 * itself, and where it then receives less, or nothing, the buffer stays that short for the
		 * next one (6.10 to 6.13, IOX-ERR-005 and IOX-ERR-004, io_ring_buffers_peek()).
		 */
		uint32_t length_given = group->ring[buffer->position].len;

		if (!length_given || length_given > group->size)
			return 0;
		room = length_given;
	}
	step = length < room ? length : room;
	if (group->incremental && step < length)
		return 0; /* more than the buffer had room for: not without bundles, which are not used */
	buffer->filled += step;
	buffer->refs++;
	/* BUF_MORE alone decides: a multishot that a full CQ ended has it set and F_MORE clear. */
	if (!group->incremental || !more) {
		buffer->done = true;
		group->held++;
		group->provided--;
	}
	/* A bundle goes on in the buffer that was provided next. */
	*next = group->ring[(buffer->position + 1) & (group->entries - 1)].bid;
	return step;
}

bool iox_group_release(struct iox_group *group, uint16_t bid)
{
	struct iox_buffer *buffer = &group->buffers[bid];

	buffer->refs--;
	if (buffer->refs || !buffer->done || !group->registered)
		return false;
	group->held--;
	if (group->provided < group->window)
		provide(group, bid);
	else
		put_to_rest(group, bid);
	return true;
}

void iox_group_grow(struct iox_group *group)
{
	while (group->window < group->window_max && group->window < 2 * group->used)
		group->window *= 2;
}

void iox_group_refill(struct iox_group *group)
{
	while (group->provided < group->window && group->resting_count)
		provide(group, group->resting[--group->resting_count]);
	group->resting_low = smaller(group->resting_low, group->resting_count);
	group->resting_bare = smaller(group->resting_bare, group->resting_count);
	group->refused = 0;
	iox_group_publish(group);
}

/*
 * Takes the buffers that were provided last back.  The kernel begins at the other end, on this thread
 * inside an enter, or on a worker of its own for a receive that it could not poll for; so it cannot
 * have come as far while window_min() are left to it and no completion waits.
 */
static void take_back(struct iox_group *group)
{
	while (group->provided > group->window) {
		group->tail--;
		group->provided--;
		put_to_rest(group, group->ring[group->tail & (group->entries - 1)].bid);
	}
	iox_group_publish(group);
}

static int by_id(const void *one, const void *other)
{
	return *(const uint16_t *)other - *(const uint16_t *)one;
}

/* Gives the pages of resting[from] to resting[to - 1] back, neighbours with one call. */
static void lay_bare(struct iox_group *group, uint32_t from, uint32_t to)
{
	uint16_t *ids = group->resting;

	qsort(ids + from, to - from, sizeof(*ids), by_id);
	for (uint32_t i = from, next; i < to; i = next) {
		for (next = i + 1; next < to && ids[next] + 1 == ids[next - 1];)
			next++;
		iox_pages_discard(iox_group_buffer(group, ids[next - 1]), (size_t)(next - i) * group->size);
	}
}

void iox_group_trim(struct iox_group *group)
{
	uint32_t used = group->used, window = window_min(group);

	group->used = 0;
	while (window < group->window && window < 2 * used)
		window *= 2;
	group->window = window;
	take_back(group);
	if (!used)
		group->resting_low = group->resting_count;
	if (group->resting_low > group->resting_bare) {
		lay_bare(group, group->resting_bare, group->resting_low);
		group->resting_bare = group->resting_low;
	}
	group->resting_low = group->resting_count;
}

bool iox_group_grown(const struct iox_group *group)
{
	return group->window > window_min(group) || group->resting_bare < group->resting_count;
}
