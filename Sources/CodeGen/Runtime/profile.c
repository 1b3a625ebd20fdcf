#define _GNU_SOURCE
#include "profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "program.h"

/* What is known of one function. */
typedef struct record {
  int64_t calls;
  double seconds, position;
  double symbols[MCC_MAX_SYMBOLS]; /* sums over the calls */
  mcc_stopwatch *stopwatches;      /* one per thread */
} record;

struct mcc_profile {
  const char *path;
  int threads;
  uint64_t ticks; /* at the start, with the time */
  double seconds;
  record *records; /* one per function */
};

static inline uint64_t read_ticks(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  return (uint64_t)(mcc_seconds() * 1e9);
#endif
}

void mcc_stopwatch_mark(mcc_stopwatch *it, int64_t step) {
  uint64_t now = read_ticks();
  if (step >= 0 && step < it->count) it->steps[step].call += now - it->last;
  it->last = now;
}

static void *allocate_lines(size_t bytes) {
  /* Threads write to lines of their own. */
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (memory == NULL) mcc_fail(MCC_EXIT_INTERNAL, "not enough memory for the profile");
  memset(memory, 0, bytes);
  return memory;
}

mcc_profile *mcc_profile_start(int threads) {
  const char *path = getenv("MCC_PROFILE");
  if (path == NULL || path[0] == 0) return NULL;
  mcc_profile *it = mcc_allocate(sizeof *it);
  *it = (mcc_profile){path, threads, read_ticks(), mcc_seconds(), NULL};
  it->records = mcc_allocate_zeros((size_t)mcc_model.function_count, sizeof *it->records);
  for (int32_t i = 0; i < mcc_model.function_count; i++) {
    int32_t steps = mcc_model.functions[i].step_count;
    it->records[i].stopwatches = allocate_lines((size_t)threads * sizeof *it->records[i].stopwatches);
    for (int t = 0; t < threads; t++) {
      struct mcc_step_ticks *ticks = allocate_lines(((size_t)steps + 1) * sizeof *ticks);
      it->records[i].stopwatches[t] = (mcc_stopwatch){.count = steps, .steps = ticks};
    }
  }
  return it;
}

static record *find(mcc_profile *it, const mcc_function *function) {
  return &it->records[function - mcc_model.functions];
}

void mcc_profile_enter(mcc_profile *it, const mcc_function *function, mcc_thread *thread) {
  thread->stopwatch = &find(it, function)->stopwatches[thread->index];
  thread->stopwatch->last = read_ticks();
}

void mcc_profile_add(mcc_profile *it, const mcc_function *function, const int64_t *symbols, int64_t position,
                     double seconds) {
  record *own = find(it, function);
  for (int t = 0; t < it->threads; t++) {
    struct mcc_step_ticks *steps = own->stopwatches[t].steps;
    struct mcc_step_ticks *all = own->stopwatches[0].steps;
    for (int64_t i = 0; i < own->stopwatches[t].count; i++) {
      steps[i].sum += steps[i].call;
      if (t > 0) all[i].call += steps[i].call;
    }
  }
  /* Threads take work from each other: the shortest call is that with the least sum. */
  for (int64_t i = 0; i < own->stopwatches[0].count; i++) {
    struct mcc_step_ticks *all = &own->stopwatches[0].steps[i];
    if (own->calls == 0 || all->call < all->least) all->least = all->call;
    for (int t = 0; t < it->threads; t++) own->stopwatches[t].steps[i].call = 0;
  }
  own->calls++;
  own->seconds += seconds;
  own->position += (double)position;
  for (int32_t i = 0; i < function->symbol_count; i++) own->symbols[i] += (double)symbols[i];
}

void mcc_profile_restart(mcc_profile *it, const mcc_function *function) {
  if (it == NULL) return;
  record *own = find(it, function);
  mcc_stopwatch *stopwatches = own->stopwatches;
  *own = (record){.stopwatches = stopwatches};
  for (int t = 0; t < it->threads; t++) {
    memset(stopwatches[t].steps, 0, (size_t)stopwatches[t].count * sizeof *stopwatches[t].steps);
  }
}

static void write_function(const mcc_profile *it, const record *own, const mcc_function *function, double per_tick,
                           FILE *file) {
  double calls = (double)own->calls;
  fprintf(file, "{\"role\": \"%s\", \"target\": \"%s\", \"calls\": %lld, \"seconds\": %.9g, \"sizes\": {",
          function->role, mcc_model.levels[function->level].name, (long long)own->calls, own->seconds);
  const char *comma = "";
  for (int32_t i = 0; i < function->symbol_count; i++) {
    fprintf(file, "%s\"%s\": %.9g", comma, function->symbols[i].name, own->symbols[i] / calls);
    comma = ", ";
  }
  if (own->position >= 0) fprintf(file, "%s\"position\": %.9g", comma, own->position / calls);
  fprintf(file, "}, \"steps\": [");
  for (int32_t step = 0; step < function->step_count; step++) {
    double sum = 0, most = 0, least = (double)own->stopwatches[0].steps[step].least * calls * per_tick;
    for (int t = 0; t < it->threads; t++) {
      const struct mcc_step_ticks *ticks = &own->stopwatches[t].steps[step];
      double seconds = (double)ticks->sum * per_tick;
      sum += seconds;
      if (seconds > most) most = seconds;
    }
    fprintf(file, "%s\n{\"mean\": %.6g, \"most\": %.6g, \"least\": %.6g}", step > 0 ? "," : "", sum / it->threads, most,
            least / it->threads);
  }
  fprintf(file, "]}");
}

void mcc_profile_end(mcc_profile *it) {
  if (it == NULL) return;
  uint64_t ticks = read_ticks() - it->ticks;
  double per_tick = ticks > 0 ? (mcc_seconds() - it->seconds) / (double)ticks : 0;
  FILE *file = fopen(it->path, "w");
  if (file == NULL) mcc_fail(MCC_EXIT_CREATE, "cannot create the profile '%s': %s", it->path, strerror(errno));
  fprintf(file, "{\"threads\": %d, \"functions\": [", it->threads);
  const char *comma = "";
  for (int32_t i = 0; i < mcc_model.function_count; i++) {
    if (it->records[i].calls == 0) continue;
    fputs(comma, file);
    comma = ",\n";
    write_function(it, &it->records[i], &mcc_model.functions[i], per_tick, file);
  }
  fprintf(file, "]}\n");
  bool failed = ferror(file) != 0;
  if (fclose(file) != 0 || failed) {
    mcc_fail(MCC_EXIT_IO, "cannot write the profile '%s': %s", it->path, strerror(errno));
  }
  for (int32_t i = 0; i < mcc_model.function_count; i++) {
    for (int t = 0; t < it->threads; t++) free(it->records[i].stopwatches[t].steps);
    free(it->records[i].stopwatches);
  }
  free(it->records);
  free(it);
}
