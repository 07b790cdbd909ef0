/* SPDX-License-Identifier: MIT */
/*
 * Kernel ABI that may be newer than the liburing or kernel headers we are built with.
 *
 * liburing 2.3 (Debian 12) to 2.15 all have to work.  Newer headers turn some of these names into
 * enumerators (so #ifndef cannot see them) and rename struct fields (io_uring_buf_reg.pad became
 * .flags).  Therefore nothing here borrows their names: every constant has an IOX_ prefix, every
 * structure is our own, and each is cited with the kernel that introduced it.
 */
#ifndef IOX_UAPI_H
#define IOX_UAPI_H

#include <stdint.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <errno.h>

/* The three io_uring system calls have the same numbers on every architecture. */
#define IOX_NR_IO_URING_SETUP    425
#define IOX_NR_IO_URING_ENTER    426
#define IOX_NR_IO_URING_REGISTER 427

/* io_uring_setup(2) flags */
#define IOX_SETUP_CQSIZE        (1U << 3)  /* 5.5 */
#define IOX_SETUP_CLAMP         (1U << 4)  /* 5.6 */
#define IOX_SETUP_R_DISABLED    (1U << 6)  /* 5.10 */
#define IOX_SETUP_SUBMIT_ALL    (1U << 7)  /* 5.18 */
#define IOX_SETUP_COOP_TASKRUN  (1U << 8)  /* 5.19 */
#define IOX_SETUP_SINGLE_ISSUER (1U << 12) /* 6.0 */
#define IOX_SETUP_DEFER_TASKRUN (1U << 13) /* 6.1 */
#define IOX_SETUP_NO_SQARRAY    (1U << 16) /* 6.6 */
#define IOX_SETUP_HYBRID_IOPOLL (1U << 17) /* 6.13 */
#define IOX_SETUP_CQE_MIXED     (1U << 18) /* 6.18 */
#define IOX_SETUP_SQ_REWIND     (1U << 20) /* 7.0 */

/* struct io_uring_params.features */
#define IOX_FEAT_EXT_ARG         (1U << 8)  /* 5.11 */
#define IOX_FEAT_CQE_SKIP        (1U << 11) /* 5.17 */
#define IOX_FEAT_LINKED_FILE     (1U << 12) /* 5.17 */
#define IOX_FEAT_REG_REG_RING    (1U << 13) /* 6.3 */
#define IOX_FEAT_RECVSEND_BUNDLE (1U << 14) /* 6.10 */
#define IOX_FEAT_MIN_TIMEOUT     (1U << 15) /* 6.12 */
#define IOX_FEAT_RW_ATTR         (1U << 16) /* 6.14 */
#define IOX_FEAT_NO_IOWAIT       (1U << 17) /* 6.15 */

/* io_uring_enter(2) flags */
#define IOX_ENTER_GETEVENTS       (1U << 0)
#define IOX_ENTER_EXT_ARG         (1U << 3) /* 5.11 */
#define IOX_ENTER_REGISTERED_RING (1U << 4) /* 5.18 */
#define IOX_ENTER_EXT_ARG_REG     (1U << 6) /* 6.13 */
#define IOX_ENTER_NO_IOWAIT       (1U << 7) /* 6.15 */

/* SQ ring flags, read from shared memory */
#define IOX_SQ_CQ_OVERFLOW (1U << 1) /* 5.8 */

/* Opcodes */
#define IOX_OP_SEND_ZC    47 /* 6.0 */
#define IOX_OP_SENDMSG_ZC 48 /* 6.1 */

/* sqe->ioprio flags of recv, send and accept */
#define IOX_RECVSEND_POLL_FIRST      (1U << 0) /* 5.19 */
#define IOX_RECV_MULTISHOT           (1U << 1) /* 6.0 */
#define IOX_RECVSEND_FIXED_BUF       (1U << 2) /* 6.0 */
#define IOX_SEND_ZC_REPORT_USAGE     (1U << 3) /* 6.2 */
#define IOX_RECVSEND_BUNDLE          (1U << 4) /* 6.10 */
#define IOX_ACCEPT_MULTISHOT         (1U << 0) /* 5.19 */
#define IOX_ACCEPT_POLL_FIRST        (1U << 2) /* 6.10 */
#define IOX_NOTIF_USAGE_ZC_COPIED    (1U << 31) /* 6.2 */

/* sqe->timeout_flags */
#define IOX_TIMEOUT_MULTISHOT (1U << 6) /* 6.4 */

/* sqe->cancel_flags */
#define IOX_ASYNC_CANCEL_ALL (1U << 0) /* 5.19 */
#define IOX_ASYNC_CANCEL_ANY (1U << 2) /* 5.19 */

/* cqe->flags */
#define IOX_CQE_F_BUFFER        (1U << 0)
#define IOX_CQE_F_MORE          (1U << 1)
#define IOX_CQE_F_SOCK_NONEMPTY (1U << 2) /* 5.19 */
#define IOX_CQE_F_NOTIF         (1U << 3) /* 6.0 */
#define IOX_CQE_F_BUF_MORE      (1U << 4) /* 6.12 */
#define IOX_CQE_BUFFER_SHIFT    16

/* io_uring_register(2) opcodes */
#define IOX_REGISTER_BUFFERS         0
#define IOX_REGISTER_PROBE           8
#define IOX_REGISTER_ENABLE_RINGS    12 /* 5.10 */
#define IOX_REGISTER_RING_FDS        20 /* 5.18 */
#define IOX_UNREGISTER_RING_FDS      21 /* 5.18 */
#define IOX_REGISTER_PBUF_RING       22 /* 5.19 */
#define IOX_UNREGISTER_PBUF_RING     23 /* 5.19 */
#define IOX_REGISTER_SYNC_CANCEL     24 /* 6.0 */
#define IOX_REGISTER_NAPI            27 /* 6.9 */
#define IOX_UNREGISTER_NAPI          28 /* 6.9 */
#define IOX_REGISTER_ZCRX_IFQ        32 /* 6.15 */
#define IOX_REGISTER_RESIZE_RINGS    33 /* 6.13 */
#define IOX_REGISTER_MEM_REGION      34 /* 6.13 */
#define IOX_REGISTER_QUERY           35 /* 6.18 */

/* Flags of struct iox_buf_reg */
#define IOX_PBUF_RING_MMAP (1U << 0) /* 6.4 */
#define IOX_PBUF_RING_INC  (1U << 1) /* 6.12 */

/* IORING_REGISTER_PBUF_RING's argument: struct io_uring_buf_reg. */
struct iox_buf_reg {
	uint64_t ring_addr;
	uint32_t ring_entries;
	uint16_t bgid;
	uint16_t flags;    /* "pad" until 6.4 */
	uint32_t min_left; /* 7.1, and stable releases of 2026; had to be zero before */
	uint32_t resv[5];
};

/* One entry of a provided-buffer ring (struct io_uring_buf); the tail overlays entry 0's resv. */
struct iox_buf {
	uint64_t addr;
	uint32_t len;
	uint16_t bid;
	uint16_t resv;
};

/* io_uring_enter(2)'s EXT_ARG argument (struct io_uring_getevents_arg). */
struct iox_getevents_arg {
	uint64_t sigmask;
	uint32_t sigmask_sz;
	uint32_t min_wait_usec; /* "pad" until 6.12 */
	uint64_t ts;
};

struct iox_timespec {
	int64_t tv_sec;
	int64_t tv_nsec;
};

/* One entry of a registered region of wait arguments (struct io_uring_reg_wait), 6.13. */
struct iox_reg_wait {
	struct iox_timespec ts;
	uint32_t min_wait_usec;
	uint32_t flags; /* bit 0: ts counts (IORING_REG_WAIT_TS) */
	uint64_t sigmask;
	uint32_t sigmask_sz;
	uint32_t pad[3];
	uint64_t pad2[2];
};

/* IORING_REGISTER_NAPI's argument (struct io_uring_napi), 6.9. */
struct iox_napi {
	uint32_t busy_poll_to; /* microseconds */
	uint8_t prefer_busy_poll;
	uint8_t opcode;        /* 6.13: 0 register, 1 add id, 2 delete id */
	uint8_t pad[2];
	uint32_t op_param;     /* 6.13: tracking strategy, or the NAPI id */
	uint32_t resv;
};

/* Raw calls return the result or -errno, never -1. */
static inline int iox_sys_register(int fd, unsigned opcode, void *arg, unsigned nr)
{
	long ret = syscall(IOX_NR_IO_URING_REGISTER, fd, opcode, arg, nr);
	return ret < 0 ? -errno : (int)ret;
}

static inline int iox_sys_enter(int fd, unsigned to_submit, unsigned min_complete, unsigned flags,
				void *arg, size_t size)
{
	long ret = syscall(IOX_NR_IO_URING_ENTER, fd, to_submit, min_complete, flags, arg, size);
	return ret < 0 ? -errno : (int)ret;
}

static inline int iox_sys_setup(unsigned entries, void *params)
{
	long ret = syscall(IOX_NR_IO_URING_SETUP, entries, params);
	return ret < 0 ? -errno : (int)ret;
}

#endif
