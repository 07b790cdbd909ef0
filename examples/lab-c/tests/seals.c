// SPDX-License-Identifier: MIT
// A memfd that is sealed is what everybody who has it may rely on: it does not shrink, nor change.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tap.h"

int main(void)
{
	static const char words[] = "for good";
	char read_back[sizeof words] = "";
	int fd = memfd_create("seals", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	plan(5);
	ok(fd >= 0 && write(fd, words, sizeof words) == sizeof words, "a memfd is written");
	ok(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE) == 0, "it is sealed");
	ok(pwrite(fd, "x", 1, 0) < 0 && errno == EPERM, "then nothing writes to it");
	ok(ftruncate(fd, 1) < 0 && errno == EPERM, "nor makes it shorter");
	ok(pread(fd, read_back, sizeof read_back, 0) == sizeof words && read_back[0] == 'f',
	   "and it can be read");
	return done();
}
