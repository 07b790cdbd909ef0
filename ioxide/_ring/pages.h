/* SPDX-License-Identifier: MIT */
/* Memory that the kernel reads or writes on our behalf. */
#ifndef IOX_PAGES_H
#define IOX_PAGES_H

#include <stddef.h>

void *iox_pages_map(size_t bytes); /* NULL when there is no memory */
void iox_pages_unmap(void *pages, size_t bytes);

#endif
