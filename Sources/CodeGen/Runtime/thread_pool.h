/* Persistent threads that run one function together. */
#ifndef MCC_THREAD_POOL_H
#define MCC_THREAD_POOL_H

#include "mcc.h"

enum { MCC_MAX_THREADS = 64 };

/* `count` threads in all: the caller of mcc_pool_run is number 0, so count - 1 are started. */
mcc_pool *mcc_pool_create(int count);

/* Runs body(thread, argument) on every thread and returns when all have. One caller at a time. */
void mcc_pool_run(mcc_pool *pool, void (*body)(mcc_thread *thread, void *argument), void *argument);

int mcc_pool_count(const mcc_pool *pool);

/* Stops and joins the threads. */
void mcc_pool_destroy(mcc_pool *pool);

#endif
