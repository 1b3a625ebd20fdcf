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

/*
 * What is left of one thread's part of the units of the current mcc_share: the number of that mcc_share, the first and the
 * end of the units, in one word, so that owner and others take units from its two ends by compare and swap. Whoever comes
 * first fills it: a thread goes on to the next mcc_share only when all parts are empty.
 */
typedef struct unit_queue {
  _Alignas(64) atomic_ullong state;
  uint64_t rounds; /* calls of mcc_share; of the owner alone */
} unit_queue;

enum { UNIT_BITS = 20, ROUND_BITS = 64 - 2 * UNIT_BITS };

struct mcc_pool {
  int count;
  signal_word phase; /* advanced by the last thread to arrive at the barrier */
  signal_word job;   /* advanced by mcc_pool_run */
  _Alignas(64) atomic_int arrived;
  void (*body)(mcc_thread *, void *); /* NULL: end */
  void *argument;
  atomic_int started; /* hands out the indices */
  pthread_t threads[MCC_MAX_THREADS];
  unit_queue queues[MCC_MAX_THREADS];
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

/* Fills the queue of a thread for a round unless that has been done. */
static void fill(mcc_pool *pool, int owner, const mcc_work *work) {
  mcc_thread thread = {.index = owner, .count = pool->count};
  mcc_range range = mcc_partition(&thread, work->units);
  unsigned long long full =
      work->round << 2 * UNIT_BITS | (unsigned long long)range.begin << UNIT_BITS | (unsigned long long)range.end;
  unsigned long long state = atomic_load_explicit(&pool->queues[owner].state, memory_order_acquire);
  for (;;) {
    /* Numbers of rounds wrap around. */
    uint64_t behind = (work->round - (state >> 2 * UNIT_BITS)) & (((uint64_t)1 << ROUND_BITS) - 1);
    if (behind == 0 || behind >> (ROUND_BITS - 1) != 0) return;
    if (atomic_compare_exchange_weak(&pool->queues[owner].state, &state, full)) return;
  }
}

mcc_work mcc_share(const mcc_thread *thread, int64_t units) {
  mcc_range own = mcc_partition(thread, units);
  mcc_work work = {.unit = own.begin - 1, .end = own.end, .units = units, .owner = -1};
  mcc_pool *pool = thread->pool;
  if (pool == NULL || thread->count == 1 || units >= (int64_t)1 << UNIT_BITS) return work;
  work.round = ++pool->queues[thread->index].rounds & (((uint64_t)1 << ROUND_BITS) - 1);
  work.owner = thread->index;
  fill(pool, work.owner, &work);
  return work;
}

bool mcc_next(const mcc_thread *thread, mcc_work *work) {
  if (work->owner < 0) return ++work->unit < work->end;
  const unsigned long long mask = (1ull << UNIT_BITS) - 1;
  mcc_pool *pool = thread->pool;
  for (;;) {
    bool own = work->owner == thread->index;
    atomic_ullong *queue = &pool->queues[work->owner].state;
    unsigned long long state = atomic_load_explicit(queue, memory_order_acquire);
    while (state >> 2 * UNIT_BITS == work->round) {
      unsigned long long begin = state >> UNIT_BITS & mask, end = state & mask;
      if (begin >= end) break;
      if (atomic_compare_exchange_weak(queue, &state, own ? state + (1ull << UNIT_BITS) : state - 1)) {
        work->unit = (int64_t)(own ? begin : end - 1);
        return true;
      }
    }
    work->owner = work->owner + 1 < pool->count ? work->owner + 1 : 0;
    if (work->owner == thread->index) {
      work->owner = -1;
      work->unit = work->end;
      return false;
    }
    fill(pool, work->owner, work);
  }
}

void mcc_barrier_wait(mcc_pool *pool, const uint8_t *ahead, const uint8_t *ahead_end) {
  if (pool->count == 1) return;
  unsigned phase = atomic_load_explicit(&pool->phase.value, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == pool->count - 1) {
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    advance(&pool->phase);
  } else {
    for (; ahead < ahead_end; ahead += 128) {
      if (atomic_load_explicit(&pool->phase.value, memory_order_acquire) != phase) return;
      __builtin_prefetch(ahead, 0, 2);
      __builtin_prefetch(ahead + 64, 0, 2);
    }
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
    mcc_barrier_wait(pool, NULL, NULL);
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
