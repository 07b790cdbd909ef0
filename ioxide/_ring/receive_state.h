/* SPDX-License-Identifier: MIT */
/* Runs of received bytes. */
#ifndef IOX_RECEIVE_STATE_H
#define IOX_RECEIVE_STATE_H

#include <stdint.h>

/*
 * A run of received bytes: in one buffer of the connection's group, on which it holds a reference, or
 * copied out of such buffers into memory of its own.
 */
struct iox_chunk {
	uint32_t offset, length;
	uint16_t bid;
	char *memory; /* PyMem_RawMalloc(), offset + length bytes; NULL: in a buffer */
};

#define IOX_INLINE_CHUNKS 4

#endif
