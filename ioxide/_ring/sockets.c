/* SPDX-License-Identifier: MIT */
#include "sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * With O_NONBLOCK io_uring answers -EAGAIN instead of waiting.  The flag belongs to the open file, so other
 * holders of a lent socket see it cleared until the connection ends.
 */
bool iox_conn_block(Connection *conn)
{
	int flags = fcntl(conn->fd, F_GETFL);

	if (flags < 0 || !(flags & O_NONBLOCK))
		return false;
	fcntl(conn->fd, F_SETFL, flags & ~O_NONBLOCK);
	conn->nonblock = true;
	return true;
}

/*
 * connect(2) to AF_UNSPEC dissolves the association, resets it unless both FINs have gone, and drops the
 * write queue (tcp_disconnect).  It changes no option of the file.
 */
int iox_socket_dissolve(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	return connect(fd, &none, sizeof(none));
}

/*
 * RST at once, whoever else holds the file: a duplicate of the caller's, or a forked child.  Linux 6.4 to
 * 6.6 refuse (EBUSY) while one of them waits in a call; where a filter of system calls refuses, the
 * close(2) that follows resets.
 */
void iox_socket_reset(int fd)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };

	if (iox_socket_dissolve(fd) < 0 && errno != EBUSY)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* With SO_LINGER at 0 close(2) resets; shutdown(2), which comes first here, does not (tcp(7)). */
bool iox_socket_resets_on_close(int fd)
{
	struct linger linger;
	socklen_t size = sizeof(linger);

	return !getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) && linger.l_onoff &&
	       !linger.l_linger;
}

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* As Python's socket module gives it; None for another family than the two of TCP. */
static PyObject *address_tuple(const union address *address)
{
	char text[INET6_ADDRSTRLEN];

	switch (address->any.sa_family) {
	case AF_INET:
		inet_ntop(AF_INET, &address->v4.sin_addr, text, sizeof(text));
		return Py_BuildValue("(si)", text, (int)ntohs(address->v4.sin_port));
	case AF_INET6:
		inet_ntop(AF_INET6, &address->v6.sin6_addr, text, sizeof(text));
		return Py_BuildValue("(siII)", text, (int)ntohs(address->v6.sin6_port),
				     (unsigned)ntohl(address->v6.sin6_flowinfo),
				     (unsigned)address->v6.sin6_scope_id);
	default:
		Py_RETURN_NONE;
	}
}

/*
 * SO_PEERNAME, not getpeername(2): that fails with ENOTCONN as soon as the peer has reset, while SO_PEERNAME
 * still has the address that accept(2) saw (inet_getname(), with peer 2 and 1).
 */
PyObject *iox_socket_peername(int fd)
{
	union address peer;
	socklen_t size = sizeof(peer.v4);

	/* EINVAL where the buffer is larger than the address, so the smaller size comes first. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &peer, &size) < 0)
		Py_RETURN_NONE;
	if (peer.any.sa_family == AF_INET6) {
		size = sizeof(peer.v6);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &peer, &size) < 0)
			Py_RETURN_NONE;
	}
	return address_tuple(&peer);
}

PyObject *iox_socket_sockname(int fd)
{
	union address own;
	socklen_t size = sizeof(own);

	if (getsockname(fd, &own.any, &size) < 0)
		Py_RETURN_NONE;
	return address_tuple(&own);
}
