/* SPDX-License-Identifier: MIT */
#include "group.h"
#include "failing.h"
#include "pages.h"

#include <stdlib.h>
#include <string.h>

/* The least number of buffers that a shared group provides; 2 MiB of the default size. */
#define WINDOW_MIN 64

/*
 * The largest number that it provides, however many it has: a batch that needs more is rare, and goes on with
 * the next enter.  From 6.13 on the pages of a ring count as locked memory (io_uring/memmap.c,
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

static void make_idle(struct iox_group *group, uint16_t bid)
{
	group->idle[group->idle_count++] = bid;
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
	 * The entries of a bundle are read when its completion is taken in.  That completion may come after
	 * those of buffers that were provided later: the last completion of a request is posted at the end of
	 * the enter, the others at once.  With twice as many entries none is overwritten before it is read.
	 */
	group->entries = bundle ? 2 * group->window_max : group->window_max;
	group->buffers = calloc(count, sizeof(*group->buffers));
	group->idle = calloc(count, sizeof(*group->idle));
	group->ring = iox_pages_map(group->entries * sizeof(*group->ring));
	group->pool = iox_pages_map((size_t)count * size);
	if (!group->buffers || !group->idle || !group->ring || !group->pool) {
		iox_group_unref(group);
		return NULL;
	}
	for (uint32_t bid = count; bid--;)
		make_idle(group, (uint16_t)bid);
	group->window = window_min(group);
	while (group->provided < group->window)
		provide(group, group->idle[--group->idle_count]);
	group->idle_discarded = group->idle_low = group->idle_count;
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
	free(group->idle);
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
		return 0; /* the kernel does not have it, so it cannot have written to it */
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
		return 0; /* more than the buffer had room for: only bundles do that, and they are not used here */
	buffer->filled += step;
	buffer->refs++;
	/* Only BUF_MORE counts: a multishot that a full CQ has ended has it set and F_MORE clear. */
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
		make_idle(group, bid);
	return true;
}

void iox_group_grow(struct iox_group *group)
{
	while (group->window < group->window_max && group->window < 2 * group->used)
		group->window *= 2;
}

void iox_group_refill(struct iox_group *group)
{
	while (group->provided < group->window && group->idle_count)
		provide(group, group->idle[--group->idle_count]);
	group->idle_low = smaller(group->idle_low, group->idle_count);
	group->idle_discarded = smaller(group->idle_discarded, group->idle_count);
	group->refused = 0;
	iox_group_publish(group);
}

/*
 * Takes the buffers that were provided last out of the ring again.  The kernel takes them from the other end, on
 * this thread inside an enter, or on a worker thread of its own for a receive that it could not poll for.  So it
 * cannot have reached them while window_min() of them are left and every completion was taken in.
 */
static void take_back(struct iox_group *group)
{
	while (group->provided > group->window) {
		group->tail--;
		group->provided--;
		make_idle(group, group->ring[group->tail & (group->entries - 1)].bid);
	}
	iox_group_publish(group);
}

static int by_id(const void *one, const void *other)
{
	return *(const uint16_t *)other - *(const uint16_t *)one;
}

/* Gives the pages of idle[from] to idle[to - 1] back, adjacent ones with one call. */
static void discard_idle_pages(struct iox_group *group, uint32_t from, uint32_t to)
{
	uint16_t *ids = group->idle;

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
		group->idle_low = group->idle_count;
	if (group->idle_low > group->idle_discarded) {
		discard_idle_pages(group, group->idle_discarded, group->idle_low);
		group->idle_discarded = group->idle_low;
	}
	group->idle_low = group->idle_count;
}

bool iox_group_grown(const struct iox_group *group)
{
	return group->window > window_min(group) || group->idle_discarded < group->idle_count;
}
