// SPDX-License-Identifier: MIT
// An eventfd counts what was written while nobody looked, and epoll tells of it once.
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tap.h"

static int ready(int epoll)
{
	struct epoll_event event;

	return epoll_wait(epoll, &event, 1, 0);
}

int main(void)
{
	uint64_t two = 2, sum = 0;
	int counter = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event edge = {.events = EPOLLIN | EPOLLET};

	plan(5);
	ok(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &edge) == 0 && ready(epoll) == 0,
	   "a counter at zero is not ready");
	ok(write(counter, &two, sizeof two) == sizeof two && ready(epoll) == 1, "a write wakes");
	ok(ready(epoll) == 0, "but not twice");
	ok(write(counter, &two, sizeof two) == sizeof two && ready(epoll) == 1,
	   "another write wakes again");
	ok(read(counter, &sum, sizeof sum) == sizeof sum && sum == 4, "and the sum is read");
	return done();
}
