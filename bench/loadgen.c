/* SPDX-License-Identifier: MIT */
/*
 * The load generator: C connections over one io_uring, every answer compared byte for byte.
 *
 *   loadgen --port P --connections C (--requests N | --seconds S) --request TEXT --answer TEXT
 *           [--request-fill BYTES] [--answer-fill BYTES] [--depth D] [--batches] [--reconnect] [--tls]
 *           [--timeout-ms MS]
 *
 * A connection sends D requests at once, waits for the D answers, and goes on.  So many bytes 'x'
 * follow each request and each answer as the two options of fill say.  With --reconnect each request
 * has a connection of its own, which this side closes once it has its answer.  --tls is there when
 * this is compiled with -DTLS and linked with OpenSSL; the certificate is not verified.
 *
 * With --batches none
 * sends again before all have their answers: then the server finds the whole batch waiting, and what
 * it needs for one does not depend on who is scheduled when.  That is how requests are counted; how
 * fast they are is measured without it.
 *
 * One JSON object on standard output.  Exit status: 0 every request had its right answer; 1 not so,
 * with "error" saying why; 2 usage.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#endif

struct conn {
	int fd;
	char *buffer;
	size_t got;
	uint64_t began; /* ns */
	uint64_t left;  /* times it still sends; with --seconds no limit */
	bool used;      /* its connection has had an answer */
#ifdef TLS
	SSL *tls;
#endif
};

struct options {
	unsigned port, connections, depth, timeout_ms;
	uint64_t requests;
	double seconds;
	size_t request_fill, answer_fill;
	const char *request, *answer;
	bool batches, reconnect, tls;
};

static struct options options = { .connections = 64, .depth = 1, .timeout_ms = 20000 };
static struct io_uring ring;
static struct conn *conns;
static char *requests, *answers;
static size_t requests_size, answers_size;
static uint32_t *latencies; /* ns; 4.2 s and more are all the same */
static size_t latency_count, latency_capacity;
static uint64_t answered, rounds, deadline;
static char failure[256];

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void *need(void *memory)
{
	if (memory)
		return memory;
	fputs("loadgen: out of memory\n", stderr);
	exit(1);
}

/* The first failure is the one that is told. */
__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list args;

	if (failure[0])
		return;
	va_start(args, format);
	vsnprintf(failure, sizeof(failure), format, args);
	va_end(args);
}

static void usage(const char *what)
{
	fprintf(stderr, "loadgen: %s; its source says how it is called\n", what);
	exit(2);
}

static char *repeat(const char *text, size_t fill, unsigned times, size_t *size)
{
	size_t length = strlen(text), one = length + fill;
	char *whole = need(malloc(one * times));

	for (unsigned i = 0; i < times; i++) {
		memcpy(whole + i * one, text, length);
		memset(whole + i * one + length, 'x', fill);
	}
	*size = one * times;
	return whole;
}

static struct io_uring_sqe *get_sqe(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe) { /* the queue has two entries for each connection */
		fputs("loadgen: the submission queue is full\n", stderr);
		exit(1);
	}
	return sqe;
}

static void receive(unsigned index)
{
	struct conn *conn = &conns[index];
	struct io_uring_sqe *sqe = get_sqe();

#ifdef TLS
	if (conn->tls) {
		io_uring_prep_poll_add(sqe, conn->fd, POLLIN);
		io_uring_sqe_set_data64(sqe, index);
		return;
	}
#endif
	io_uring_prep_recv(sqe, conn->fd, conn->buffer + conn->got, answers_size - conn->got, MSG_WAITALL);
	io_uring_sqe_set_data64(sqe, index);
}

static bool open_connection(struct conn *conn);
static void close_connection(struct conn *conn);

/* Sends, if there is more to send; true when it did. */
static bool begin(unsigned index)
{
	struct conn *conn = &conns[index];
	struct io_uring_sqe *sqe;

	if (options.requests ? !conn->left : now_ns() >= deadline)
		return false;
	conn->left--;
	conn->got = 0;
	conn->began = now_ns();
	if (options.reconnect && conn->used) {
		close_connection(conn);
		if (!open_connection(conn))
			return false;
	}
#ifdef TLS
	if (conn->tls) { /* a few hundred bytes, for which a socket buffer always has room here */
		if (SSL_write(conn->tls, requests, requests_size) != (int)requests_size) {
			fail("connection %u: its request does not fit into the socket", index);
			return false;
		}
		receive(index);
		return true;
	}
#endif
	sqe = get_sqe();
	io_uring_prep_send(sqe, conn->fd, requests, requests_size, MSG_WAITALL | MSG_NOSIGNAL);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS; /* what was sent is answered, or its receive times out */
	io_uring_sqe_set_data64(sqe, options.connections + index);
	receive(index);
	return true;
}

static void record(uint64_t ns)
{
	if (latency_count == latency_capacity) {
		latency_capacity = latency_capacity ? 2 * latency_capacity : 1 << 16;
		latencies = need(realloc(latencies, latency_capacity * sizeof(*latencies)));
	}
	latencies[latency_count++] = ns < UINT32_MAX ? ns : UINT32_MAX;
}

/* True when the connection has all its answers. */
static bool complete(uint64_t data, int res)
{
	struct conn *conn;

	if (data >= options.connections) {
		fail("connection %u: its send ended with %d (%s)", (unsigned)(data - options.connections),
		     res, res < 0 ? strerror(-res) : "short");
		return false;
	}
	conn = &conns[data];
	if (res <= 0) {
		fail("connection %u: %s after %zu of %zu bytes", (unsigned)data,
		     res ? strerror(-res) : "the server closed it", conn->got, answers_size);
		return false;
	}
#ifdef TLS
	if (conn->tls) {
		while (conn->got < answers_size) {
			res = SSL_read(conn->tls, conn->buffer + conn->got, answers_size - conn->got);
			if (res > 0) {
				conn->got += res;
				continue;
			}
			if (SSL_get_error(conn->tls, res) != SSL_ERROR_WANT_READ) {
				fail("connection %u: TLS ended after %zu of %zu bytes", (unsigned)data,
				     conn->got, answers_size);
				return false;
			}
			break;
		}
		res = 0;
	}
#endif
	conn->got += res;
	if (conn->got < answers_size) {
		receive(data);
		return false;
	}
	if (memcmp(conn->buffer, answers, answers_size) != 0) {
		fail("connection %u: the answer is not the one that was expected", (unsigned)data);
		return false;
	}
	record(now_ns() - conn->began);
	conn->used = true;
	answered += options.depth;
	return true;
}

/* Waits for completions and takes them in; returns how many connections have their answers. */
static unsigned take(unsigned *ready, unsigned wait_for)
{
	struct __kernel_timespec limit = {
		.tv_sec = options.timeout_ms / 1000,
		.tv_nsec = options.timeout_ms % 1000 * 1000000ll,
	};
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0, count = 0;
	int ret = io_uring_submit_and_wait_timeout(&ring, &cqe, wait_for, &limit, NULL);

	if (ret == -ETIME)
		fail("no answer within %u ms", options.timeout_ms);
	else if (ret < 0 && ret != -EINTR)
		fail("io_uring_enter: %s", strerror(-ret));
	io_uring_for_each_cqe(&ring, head, cqe) {
		if (complete(cqe->user_data, cqe->res))
			ready[count++] = cqe->user_data;
		seen++;
	}
	io_uring_cq_advance(&ring, seen);
	return count;
}

static void run(void)
{
	unsigned *ready = need(calloc(options.connections, sizeof(*ready)));
	unsigned *waiting = need(calloc(options.connections, sizeof(*waiting)));
	unsigned in_flight = 0, waiting_count = options.connections;

	for (unsigned i = 0; i < options.connections; i++)
		waiting[i] = i;
	while (!failure[0]) {
		/* Where nothing may go on before the last has its answer, all begin together. */
		if (!options.batches || !in_flight) {
			for (unsigned i = 0; i < waiting_count; i++)
				in_flight += begin(waiting[i]);
			waiting_count = 0;
			rounds++;
		}
		if (!in_flight)
			break;
		unsigned count = take(ready, options.batches ? in_flight : 1);

		in_flight -= count;
		for (unsigned i = 0; i < count; i++)
			waiting[waiting_count++] = ready[i];
	}
	rounds--;
	free(ready);
	free(waiting);
}

/* Nothing may come that was not asked for. */
static void check_silence(void)
{
	for (unsigned i = 0; i < options.connections; i++) {
		char byte;

#ifdef TLS
		if (conns[i].tls) {
			if (SSL_read(conns[i].tls, &byte, 1) > 0)
				fail("connection %u: more came than was asked for", i);
			continue;
		}
#endif
		if (recv(conns[i].fd, &byte, 1, MSG_DONTWAIT) > 0)
			fail("connection %u: more came than was asked for", i);
	}
}

#ifdef TLS
static bool begin_tls(struct conn *conn)
{
	static SSL_CTX *context;

	if (!context)
		context = need(SSL_CTX_new(TLS_client_method()));
	conn->tls = need(SSL_new(context));
	if (!SSL_set_fd(conn->tls, conn->fd) || SSL_connect(conn->tls) != 1 ||
	    fcntl(conn->fd, F_SETFL, O_NONBLOCK)) {
		fail("connecting to port %u: %s", options.port,
		     ERR_reason_error_string(ERR_get_error()) ?: "no TLS");
		return false;
	}
	return true;
}
#endif

static void close_connection(struct conn *conn)
{
#ifdef TLS
	if (conn->tls)
		SSL_free(conn->tls);
	conn->tls = NULL;
#endif
	close(conn->fd);
}

static bool open_connection(struct conn *conn)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(options.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct timeval limit = {
		.tv_sec = options.timeout_ms / 1000,
		.tv_usec = options.timeout_ms % 1000 * 1000,
	};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	/* SO_SNDTIMEO bounds connect(2), too (socket(7)). */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		fail("connecting to port %u: %s", options.port, strerror(errno));
		return false;
	}
	conn->fd = fd;
	conn->used = false;
#ifdef TLS
	if (options.tls)
		return begin_tls(conn);
#endif
	return true;
}

static bool open_all(void)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};
	int ret = io_uring_queue_init_params(2 * options.connections, &ring, &params);

	if (ret < 0) {
		fail("io_uring_setup: %s", strerror(-ret));
		return false;
	}
	io_uring_register_ring_fd(&ring);
	conns = need(calloc(options.connections, sizeof(*conns)));
	for (unsigned i = 0; i < options.connections; i++) {
		conns[i].buffer = need(malloc(answers_size));
		conns[i].left = options.requests / options.connections / options.depth;
		if (!open_connection(&conns[i]))
			return false;
	}
	return true;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile(double share)
{
	if (!latency_count)
		return 0;
	return latencies[(size_t)(share * (latency_count - 1))] / 1000.0;
}

static void report(double seconds)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	if (latency_count)
		qsort(latencies, latency_count, sizeof(*latencies), by_size);
	printf("{\"requests\": %llu, \"seconds\": %.6f, \"rounds\": %llu, "
	       "\"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_s\": %.6f, \"error\": \"%s\"}\n",
	       (unsigned long long)answered, seconds, (unsigned long long)rounds, percentile(0.5),
	       percentile(0.99),
	       usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
	       failure);
}

static double number(const char *text, double low, double high)
{
	char *end;
	double value = strtod(text, &end);

	if (*end || !*text || value < low || value > high)
		usage("a number is none, or out of range");
	return value;
}

static void parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "connections", required_argument, NULL, 'c' },
		{ "requests", required_argument, NULL, 'n' },
		{ "seconds", required_argument, NULL, 's' },
		{ "depth", required_argument, NULL, 'd' },
		{ "request", required_argument, NULL, 'q' },
		{ "answer", required_argument, NULL, 'a' },
		{ "timeout-ms", required_argument, NULL, 't' },
		{ "request-fill", required_argument, NULL, 'Q' },
		{ "answer-fill", required_argument, NULL, 'A' },
		{ "batches", no_argument, NULL, 'b' },
		{ "reconnect", no_argument, NULL, 'r' },
		{ "tls", no_argument, NULL, 'T' },
		{ 0 },
	};
	int name;

	while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (name) {
		case 'p': options.port = number(optarg, 1, 65535); break;
		case 'c': options.connections = number(optarg, 1, 8192); break;
		case 'n': options.requests = number(optarg, 1, 1e12); break;
		case 's': options.seconds = number(optarg, 0.01, 3600); break;
		case 'd': options.depth = number(optarg, 1, 256); break;
		case 't': options.timeout_ms = number(optarg, 1, 3600000); break;
		case 'q': options.request = optarg; break;
		case 'a': options.answer = optarg; break;
		case 'Q': options.request_fill = number(optarg, 0, 1 << 26); break;
		case 'A': options.answer_fill = number(optarg, 0, 1 << 26); break;
		case 'b': options.batches = true; break;
		case 'r': options.reconnect = true; break;
		case 'T': options.tls = true; break;
		default: usage("an option is unknown");
		}
	}
	if (optind < argc || !options.port || !options.request || !options.answer ||
	    !options.request[0] || !options.answer[0])
		usage("--port, --request and --answer are needed, and nothing but options");
#ifndef TLS
	if (options.tls)
		usage("--tls needs a load generator that was compiled with -DTLS");
#endif
	if (!options.requests == !options.seconds)
		usage("one of --requests and --seconds is needed");
	if (options.requests % ((uint64_t)options.connections * options.depth))
		usage("--requests must be a multiple of --connections times --depth");
}

int main(int argc, char **argv)
{
	uint64_t began;
	double seconds;

	parse(argc, argv);
	requests = repeat(options.request, options.request_fill, options.depth, &requests_size);
	answers = repeat(options.answer, options.answer_fill, options.depth, &answers_size);
	if (!open_all()) {
		report(0);
		return 1;
	}
	began = now_ns();
	deadline = began + (uint64_t)(options.seconds * 1e9);
	run();
	seconds = (now_ns() - began) / 1e9;
	check_silence();
	report(seconds);
	return failure[0] ? 1 : 0;
}
