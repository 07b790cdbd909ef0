/* SPDX-License-Identifier: MIT */
/*
 * The plaintext server without Python, as the limit of what a loop can reach: one thread.
 *
 *   bare uring|epoll REQUEST-BYTES ANSWER FILL
 *
 * Each REQUEST-BYTES that arrive on a connection are answered by ANSWER and FILL bytes 'x'.  It
 * says {"port": N} and obeys the command "stats" on standard input, as bench/peer.py does; it ends
 * when standard input does.  Exit status: 0; 1 a system call failed; 2 usage.
 *
 * uring: multishot accept and receive, a ring of provided buffers, one submission with each wait
 * (Linux 6.1).  epoll: level-triggered, a receive and a send for each event.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { BUFFERS = 1024, BUFFER_SIZE = 1 << 16, MAX_FDS = 1 << 16, PIPELINED = 16 };

struct conn {
	size_t got;  /* bytes of a request that is not whole yet */
	size_t owed; /* bytes of answers that are not sent yet */
	size_t at;   /* where in `block` the next one is */
	bool open, sending, receiving;
};

static struct conn conns[MAX_FDS];
static char *block; /* answers in a row */
static size_t block_size, answer_size, request_size;
static unsigned connections;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int checked(int ret, const char *what)
{
	if (ret < 0)
		die(what);
	return ret;
}

static int listening(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	int one = 1, fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");

	checked(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), "TCP_NODELAY"); /* inherited */
	checked(bind(fd, (struct sockaddr *)&address, sizeof(address)), "bind");
	checked(listen(fd, 1024), "listen");
	checked(getsockname(fd, (struct sockaddr *)&address, &length), "getsockname");
	printf("{\"port\": %d}\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

/* One read of standard input has brought `length` bytes; 0 is its end. */
static void obey(const char *text, ssize_t length)
{
	struct rusage usage;

	if (length == 0)
		exit(0);
	if (length < 0)
		die("standard input");
	if (length != 6 || memcmp(text, "stats\n", 6)) {
		puts("{\"error\": \"the only command is stats\"}");
	} else {
		getrusage(RUSAGE_SELF, &usage);
		printf("{\"cpu_s\": %.6f, \"switches\": %ld, \"connections_now\": %u}\n",
		       usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
			       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
		       usage.ru_nvcsw + usage.ru_nivcsw, connections);
	}
	fflush(stdout);
}

static void opened(int fd)
{
	if (fd >= MAX_FDS) {
		fputs("bare: too many connections\n", stderr);
		exit(1);
	}
	conns[fd] = (struct conn){ .open = true };
	connections++;
}

static void take(struct conn *conn, size_t length)
{
	conn->got += length;
	conn->owed += conn->got / request_size * answer_size;
	conn->got %= request_size;
}

static size_t next_piece(const struct conn *conn)
{
	size_t left = block_size - conn->at;

	return conn->owed < left ? conn->owed : left;
}

static void gone(struct conn *conn, size_t length)
{
	conn->owed -= length;
	conn->at = (conn->at + length) % block_size;
}

/* -- epoll */

static void epoll_close(int fd)
{
	conns[fd].open = false;
	connections--;
	close(fd);
}

/* False when the connection is gone. */
static bool epoll_send(int set, int fd)
{
	struct conn *conn = &conns[fd];
	bool was = conn->sending;

	conn->sending = false;
	while (conn->owed) {
		ssize_t sent = send(fd, block + conn->at, next_piece(conn), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno != EAGAIN) {
			epoll_close(fd);
			return false;
		}
		if (sent < 0) {
			conn->sending = true;
			break;
		}
		gone(conn, sent);
	}
	if (conn->sending != was) {
		struct epoll_event event = { .events = EPOLLIN | (conn->sending ? EPOLLOUT : 0), .data.fd = fd };

		checked(epoll_ctl(set, EPOLL_CTL_MOD, fd, &event), "epoll_ctl");
	}
	return true;
}

static void watch(int set, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	checked(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static void run_epoll(int listener)
{
	static char buffer[1 << 18];
	struct epoll_event events[512];
	int set = checked(epoll_create1(0), "epoll_create1");

	checked(fcntl(listener, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
	watch(set, listener);
	watch(set, STDIN_FILENO);
	for (;;) {
		int count = checked(epoll_wait(set, events, 512, -1), "epoll_wait");

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd == STDIN_FILENO) {
				obey(buffer, read(fd, buffer, sizeof(buffer)));
			} else if (fd == listener) {
				int new;

				while ((new = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					opened(new);
					watch(set, new);
				}
			} else {
				ssize_t length;

				if (events[i].events & EPOLLOUT && !epoll_send(set, fd))
					continue;
				if (!(events[i].events & ~EPOLLOUT))
					continue;
				length = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
				if (length > 0) {
					take(&conns[fd], length);
					epoll_send(set, fd);
				} else if (length == 0 || errno != EAGAIN) {
					epoll_close(fd);
				}
			}
		}
	}
}

/* -- io_uring */

enum kind { ACCEPT, RECEIVE, SEND, INPUT };

static struct io_uring ring;
static struct io_uring_buf_ring *buffer_ring;
static char *buffers;

static struct io_uring_sqe *get_sqe(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe) {
		checked(io_uring_submit(&ring), "io_uring_submit");
		sqe = io_uring_get_sqe(&ring);
	}
	return sqe;
}

/* After liburing's prep function: some releases set the user data to 0. */
static void tag(struct io_uring_sqe *sqe, enum kind kind, int fd)
{
	io_uring_sqe_set_data64(sqe, (uint64_t)fd << 2 | kind);
}

static void uring_receive(int fd)
{
	struct io_uring_sqe *sqe = get_sqe();

	io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = 0;
	tag(sqe, RECEIVE, fd);
	conns[fd].receiving = true;
}

static void uring_send(int fd)
{
	struct conn *conn = &conns[fd];
	struct io_uring_sqe *sqe;

	if (conn->sending || !conn->owed || !conn->open)
		return;
	sqe = get_sqe();
	io_uring_prep_send(sqe, fd, block + conn->at, next_piece(conn), MSG_NOSIGNAL | MSG_WAITALL);
	tag(sqe, SEND, fd);
	conn->sending = true;
}

/* Closes once no operation is left that names the descriptor. */
static void uring_close(int fd)
{
	struct conn *conn = &conns[fd];

	if (conn->open) {
		conn->open = false;
		shutdown(fd, SHUT_RDWR);
	}
	if (conn->sending || conn->receiving)
		return;
	connections--;
	close(fd);
}

static void complete(struct io_uring_cqe *cqe, int listener, char *input)
{
	int fd = cqe->user_data >> 2;
	struct conn *conn = &conns[fd];

	switch ((enum kind)(cqe->user_data & 3)) {
	case ACCEPT:
		opened(checked(cqe->res, "accept"));
		uring_receive(cqe->res);
		if (!(cqe->flags & IORING_CQE_F_MORE)) {
			struct io_uring_sqe *sqe = get_sqe();

			io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, 0);
			tag(sqe, ACCEPT, listener);
		}
		break;
	case RECEIVE:
		conn->receiving = cqe->flags & IORING_CQE_F_MORE;
		if (cqe->res > 0) {
			int id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

			take(conn, cqe->res);
			io_uring_buf_ring_add(buffer_ring, buffers + (size_t)id * BUFFER_SIZE, BUFFER_SIZE, id,
					      io_uring_buf_ring_mask(BUFFERS), 0);
			io_uring_buf_ring_advance(buffer_ring, 1);
			uring_send(fd);
		}
		if (conn->receiving)
			break;
		if (conn->open && (cqe->res > 0 || cqe->res == -ENOBUFS))
			uring_receive(fd);
		else
			uring_close(fd);
		break;
	case SEND:
		conn->sending = false;
		if (cqe->res > 0 && conn->open) {
			gone(conn, cqe->res);
			uring_send(fd);
		} else {
			uring_close(fd);
		}
		break;
	case INPUT: {
		struct io_uring_sqe *sqe;

		obey(input, cqe->res);
		sqe = get_sqe();
		io_uring_prep_read(sqe, STDIN_FILENO, input, 64, -1);
		tag(sqe, INPUT, STDIN_FILENO);
		break;
	}
	}
}

static void run_uring(int listener)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
		.cq_entries = 16384,
	};
	struct io_uring_buf_reg reg = { .ring_entries = BUFFERS };
	static char input[64];
	struct io_uring_sqe *sqe;

	if (io_uring_queue_init_params(4096, &ring, &params) < 0)
		die("io_uring_setup");
	io_uring_register_ring_fd(&ring);
	if (posix_memalign((void **)&buffer_ring, 4096, BUFFERS * sizeof(struct io_uring_buf)) ||
	    posix_memalign((void **)&buffers, 4096, (size_t)BUFFERS * BUFFER_SIZE))
		die("memory");
	reg.ring_addr = (uintptr_t)buffer_ring;
	if (io_uring_register_buf_ring(&ring, &reg, 0) < 0)
		die("IORING_REGISTER_PBUF_RING");
	io_uring_buf_ring_init(buffer_ring);
	for (int id = 0; id < BUFFERS; id++)
		io_uring_buf_ring_add(buffer_ring, buffers + (size_t)id * BUFFER_SIZE, BUFFER_SIZE, id,
				      io_uring_buf_ring_mask(BUFFERS), id);
	io_uring_buf_ring_advance(buffer_ring, BUFFERS);
	sqe = get_sqe();
	io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, 0);
	tag(sqe, ACCEPT, listener);
	sqe = get_sqe();
	io_uring_prep_read(sqe, STDIN_FILENO, input, sizeof(input), -1);
	tag(sqe, INPUT, STDIN_FILENO);
	for (;;) {
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0;
		int ret = io_uring_submit_and_wait(&ring, 1);

		if (ret < 0 && ret != -EINTR) {
			errno = -ret;
			die("io_uring_enter");
		}
		io_uring_for_each_cqe(&ring, head, cqe) {
			complete(cqe, listener, input);
			seen++;
		}
		io_uring_cq_advance(&ring, seen);
	}
}

int main(int argc, char **argv)
{
	size_t length, fill;

	if (argc != 5 || (strcmp(argv[1], "uring") && strcmp(argv[1], "epoll")) || atol(argv[2]) < 1) {
		fputs("usage: bare uring|epoll REQUEST-BYTES ANSWER FILL\n", stderr);
		return 2;
	}
	request_size = atol(argv[2]);
	length = strlen(argv[3]);
	fill = atol(argv[4]);
	answer_size = length + fill;
	block_size = PIPELINED * answer_size;
	block = malloc(block_size);
	if (!block)
		die("memory");
	for (int i = 0; i < PIPELINED; i++) {
		memcpy(block + i * answer_size, argv[3], length);
		memset(block + i * answer_size + length, 'x', fill);
	}
	if (!strcmp(argv[1], "uring"))
		run_uring(listening());
	else
		run_epoll(listening());
}
