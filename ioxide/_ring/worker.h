/* SPDX-License-Identifier: MIT */
/* A thread with an asyncio loop of its own, on which handlers live in the pool modes. */
#ifndef IOX_WORKER_H
#define IOX_WORKER_H

#include "interpreter.h"

extern PyType_Spec iox_WorkerSpec;
extern PyTypeObject *iox_WorkerType; /* made of iox_WorkerSpec by module.c */

#endif
