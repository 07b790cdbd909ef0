/* SPDX-License-Identifier: MIT */
/*
 * The settings of a driver.  This list is the one place where a value is passed from Python to C: each
 * line is a member of struct iox_settings and a keyword of Driver(), which takes it from the attribute of
 * ioxide.ServerConfig with that name (ioxide/_driver/opening.py says where it differs).
 */
#ifndef IOX_SETTINGS_H
#define IOX_SETTINGS_H

#include "interpreter.h"

#define IOX_SETTINGS(SETTING)                                                                            \
	SETTING(uint32_t, ring_entries)       /* submission queue entries */                            \
	SETTING(uint32_t, cq_entries)         /* completion queue entries */                            \
	SETTING(bool,     register_ring_fd)   /* enter by an index (IORING_REGISTER_RING_FDS, 5.18) */  \
	SETTING(uint32_t, groups)             /* incremental: connections with buffers of their own */  \
	SETTING(uint32_t, recv_slots)         /* receive buffers: shared ones, or of a connection */    \
	SETTING(uint32_t, recv_buffer_size)   /* bytes */                                               \
	SETTING(bool,     recv_bundle)        /* IORING_RECVSEND_BUNDLE (6.10) */                       \
	SETTING(uint32_t, recv_queue_entries) /* unread buffers of a connection */                      \
	SETTING(size_t,   recv_queue_bytes)   /* unread bytes of a connection */                        \
	SETTING(uint32_t, max_connections)    /* handlers'; those of transports are not counted */      \
	SETTING(size_t,   write_slab_size)    /* bytes */                                               \
	SETTING(size_t,   write_limit)        /* unsent bytes of a connection */                        \
	SETTING(bool,     segmented)          /* another slab instead of a larger one */                \
	SETTING(uint32_t, pool_max)           /* idle slabs that are kept */                            \
	SETTING(bool,     zero_copy_send)     /* IORING_OP_SEND_ZC (6.0) */                             \
	SETTING(uint64_t, read_timeout_ms)    /* 0: no limit */                                         \
	SETTING(uint64_t, send_timeout_ms)    /* 0: no limit */                                         \
	SETTING(uint32_t, min_wait_us)        /* 0: off (IORING_FEAT_MIN_TIMEOUT, 6.12) */              \
	SETTING(uint32_t, min_wait_nr)        /* completions that end a minimum wait */              \
	SETTING(bool,     record)             /* keep the last submissions and completions */

struct iox_settings {
#define IOX_SETTING_MEMBER(type, name) type name;
	IOX_SETTINGS(IOX_SETTING_MEMBER)
#undef IOX_SETTING_MEMBER
};

/*
 * Takes all of them from a dict.  -1 with an exception set: TypeError for one that is missing, unknown or of
 * another type, OverflowError for a number that does not fit.
 */
int iox_settings_take(struct iox_settings *settings, PyObject *keywords);
PyObject *iox_settings_names(void); /* a tuple of str; NULL with an exception set */

#endif
