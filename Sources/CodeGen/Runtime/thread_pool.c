#define _GNU_SOURCE
#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "failure.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

/*
 * A number that one thread advances and others wait to see change. A waiting thread first looks for a while, then
 * sleeps. How long it looks adapts: on a quiet machine the others arrive soon and looking pays; where other programs
 * want the cores, the one waited for may be off its core for milliseconds, and looking only takes time from it.
 */
typedef struct signal_word {
  _Alignas(64) atomic_uint value;
  atomic_uint sleepers;
  atomic_int looks; /* before sleeping */
  int fewest, most;
} signal_word;

struct mcc_pool {
  int count;
  signal_word phase; /* advanced by the last thread to arrive at the barrier */
  signal_word job;   /* advanced by mcc_pool_run */
  _Alignas(64) atomic_int arrived;
  void (*body)(mcc_thread *, void *); /* NULL: end */
  void *argument;
  atomic_int started; /* hands out the indices */
  pthread_t threads[MCC_MAX_THREADS];
};

static inline void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

static void sleep_while(atomic_uint *word, unsigned value) {
#if defined(__linux__)
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
  (void)word, (void)value;
  sched_yield();
#endif
}

static void wait_for_change(signal_word *word, unsigned value) {
  int looks = atomic_load_explicit(&word->looks, memory_order_relaxed);
  for (int i = 0; i < looks; i++) {
    if (atomic_load_explicit(&word->value, memory_order_acquire) != value) {
      if (looks < word->most) atomic_store_explicit(&word->looks, looks + 16, memory_order_relaxed);
      return;
    }
    pause_briefly();
  }
  if (looks / 2 >= word->fewest) atomic_store_explicit(&word->looks, looks / 2, memory_order_relaxed);
  /* Sequentially consistent, as in `advance`: either that sees the sleeper, or the sleeper sees the new value. */
  atomic_fetch_add(&word->sleepers, 1);
  while (atomic_load(&word->value) == value) sleep_while(&word->value, value);
  atomic_fetch_sub(&word->sleepers, 1);
}

static void allow_looks(signal_word *word, int fewest, int most) {
  word->fewest = fewest;
  word->most = most;
  atomic_store(&word->looks, most);
}

static void advance(signal_word *word) {
  atomic_fetch_add(&word->value, 1);
#if defined(__linux__)
  if (atomic_load(&word->sleepers) > 0) {
    syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, MCC_MAX_THREADS, NULL, NULL, 0);
  }
#endif
}

void mcc_barrier_wait(mcc_pool *pool) {
  if (pool->count == 1) return;
  unsigned phase = atomic_load_explicit(&pool->phase.value, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == pool->count - 1) {
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    advance(&pool->phase);
  } else {
    wait_for_change(&pool->phase, phase);
  }
}

static void *run_worker(void *argument) {
  mcc_pool *pool = argument;
  mcc_thread thread = {.index = atomic_fetch_add(&pool->started, 1) + 1, .count = pool->count, .pool = pool};
  for (unsigned job = 0;; job++) {
    wait_for_change(&pool->job, job);
    if (pool->body == NULL) return NULL;
    pool->body(&thread, pool->argument);
    mcc_barrier_wait(pool);
  }
}

mcc_pool *mcc_pool_create(int count) {
  if (count < 1) count = 1;
  if (count > MCC_MAX_THREADS) count = MCC_MAX_THREADS;
  mcc_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
  if (pool == NULL) mcc_fail(MCC_EXIT_INTERNAL, "not enough memory for the thread pool");
  memset(pool, 0, sizeof *pool);
  pool->count = count;
  /* About 25 ns each. Threads that share a core must not look for one another. */
  bool alone = count <= mcc_cpu_cores();
  allow_looks(&pool->phase, alone ? 200 : 16, alone ? 20000 : 16);
  allow_looks(&pool->job, alone ? 200 : 16, alone ? 4000 : 16);

  /* Signals are for the caller's thread. */
  sigset_t all, previous;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &previous);
  for (int i = 1; i < count; i++) {
    int problem = pthread_create(&pool->threads[i], NULL, run_worker, pool);
    if (problem != 0) mcc_fail(MCC_EXIT_INTERNAL, "cannot start thread %d of %d: %s", i + 1, count, strerror(problem));
  }
  pthread_sigmask(SIG_SETMASK, &previous, NULL);
  return pool;
}

void mcc_pool_run(mcc_pool *pool, void (*body)(mcc_thread *thread, void *argument), void *argument) {
  mcc_thread thread = {.count = pool->count, .pool = pool};
  if (pool->count > 1) {
    pool->body = body;
    pool->argument = argument;
    advance(&pool->job);
  }
  body(&thread, argument);
  mcc_barrier(&thread);
}

int mcc_pool_count(const mcc_pool *pool) {
  return pool->count;
}

void mcc_pool_destroy(mcc_pool *pool) {
  pool->body = NULL;
  advance(&pool->job);
  for (int i = 1; i < pool->count; i++) pthread_join(pool->threads[i], NULL);
  free(pool);
}
