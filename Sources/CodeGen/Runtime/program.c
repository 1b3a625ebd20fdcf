#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cpu.h"
#include "failure.h"

/* Index of the best level that the CPU runs, or that MCC_LEVEL names; -1 with what is missing, NULL if it names none. */
static int32_t find_level(const char **missing) {
  const char *asked = getenv("MCC_LEVEL");
  *missing = NULL;
  for (int32_t i = 0; i < mcc_model.level_count; i++) {
    const mcc_level *level = &mcc_model.levels[i];
    if (asked != NULL && strcmp(asked, level->name) != 0) continue;
    *missing = mcc_cpu_missing_feature(level->features);
    if (*missing == NULL) return i;
  }
  return -1;
}

const mcc_level *mcc_chosen_level(void) {
  const char *missing;
  int32_t level = find_level(&missing);
  return level < 0 ? NULL : &mcc_model.levels[level];
}

void mcc_require_cpu(void) {
  const char *missing;
  if (find_level(&missing) >= 0) return;
  if (missing == NULL) {
    mcc_fail(MCC_EXIT_USAGE, "MCC_LEVEL is '%s', which this program has no code for", getenv("MCC_LEVEL"));
  }
  mcc_fail(MCC_EXIT_UNSUPPORTED, "this program was compiled for processors with %s, which this one does not have",
           missing);
}

/* One thread per core, but none for less than 256 KiB of weights per call: waiting would take longer than reading. */
static int64_t default_threads(int64_t cores) {
  int64_t bytes = mcc_model.bytes_per_token > 0 ? mcc_model.bytes_per_token : mcc_model.weights_bytes;
  int64_t useful = bytes >> 18;
  return useful < 1 ? 1 : useful < cores ? useful : cores;
}

mcc_session mcc_session_start(mcc_bundle bundle, int64_t threads) {
  int cores = mcc_cpu_cores();
  if (threads > cores) {
    fprintf(stderr, "warning: %lld threads on %d core%s wait for one another; --threads %d is faster\n",
            (long long)threads, cores, cores == 1 ? "" : "s", cores);
  }
  if (threads <= 0) threads = default_threads(cores);
  if (threads > MCC_MAX_THREADS) threads = MCC_MAX_THREADS;
  return (mcc_session){bundle, mcc_arena_allocate(mcc_model.arena_bytes), mcc_pool_create((int)threads),
                       mcc_profile_start((int)threads)};
}

void mcc_session_end(mcc_session *session) {
  mcc_profile_end(session->profile);
  mcc_pool_destroy(session->pool);
  munmap(session->arena, mcc_model.arena_bytes > 0 ? (size_t)mcc_model.arena_bytes : 1);
}

typedef struct call {
  const mcc_function *function;
  const mcc_session *session;
  const int64_t *symbols;
} call;

static void run_call(mcc_thread *thread, void *argument) {
  const call *it = argument;
  if (it->session->profile != NULL) mcc_profile_enter(it->session->profile, it->function, thread);
  it->function->run(thread, it->session->bundle.weights.data, it->session->arena, it->symbols);
}

void mcc_session_call(mcc_session *session, const mcc_function *function, const int64_t *symbols) {
  call it = {function, session, symbols};
  if (session->profile == NULL) {
    mcc_pool_run(session->pool, run_call, &it);
    return;
  }
  const mcc_tensor *input = mcc_find_tensor(function->inputs, function->input_count, "position");
  int32_t position = -1;
  if (input != NULL && input->dtype == MCC_I32) memcpy(&position, session->arena + input->offset, sizeof position);
  double start = mcc_seconds();
  mcc_pool_run(session->pool, run_call, &it);
  mcc_profile_add(session->profile, function, symbols, position, mcc_seconds() - start);
}

const mcc_function *mcc_find_function(const char *role) {
  const mcc_level *chosen = mcc_chosen_level();
  int64_t level = chosen == NULL ? 0 : chosen - mcc_model.levels;
  for (int32_t i = 0; i < mcc_model.function_count; i++) {
    const mcc_function *function = &mcc_model.functions[i];
    if (function->level == level && strcmp(function->role, role) == 0) return function;
  }
  return NULL;
}

const mcc_tensor *mcc_find_tensor(const mcc_tensor *tensors, int32_t count, const char *name) {
  for (int32_t i = 0; i < count; i++) {
    if (strcmp(tensors[i].name, name) == 0) return &tensors[i];
  }
  return NULL;
}

int mcc_find_symbol(const mcc_function *function, const char *name) {
  for (int32_t i = 0; i < function->symbol_count; i++) {
    if (strcmp(function->symbols[i].name, name) == 0) return i;
  }
  return -1;
}

int64_t mcc_dim_size(const mcc_dim *dim, const int64_t *symbols) {
  if (dim->extent != NULL) return dim->extent(symbols);
  return dim->multiplier == 0 ? dim->offset : dim->offset + dim->multiplier * symbols[dim->symbol];
}

int64_t mcc_tensor_count(const mcc_tensor *tensor, const int64_t *symbols) {
  int64_t count = 1;
  for (int32_t axis = 0; axis < tensor->rank; axis++) count *= mcc_dim_size(&tensor->dims[axis], symbols);
  return count;
}

static const struct {
  const char *name;
  int64_t size;
} dtypes[] = {
    [MCC_F64] = {"f64", 8}, [MCC_F32] = {"f32", 4}, [MCC_F16] = {"f16", 2}, [MCC_BF16] = {"bf16", 2},
    [MCC_I64] = {"i64", 8}, [MCC_I32] = {"i32", 4}, [MCC_I16] = {"i16", 2}, [MCC_I8] = {"i8", 1},
    [MCC_U8] = {"u8", 1},   [MCC_BOOL] = {"bool", 1},
};

int64_t mcc_dtype_size(mcc_dtype dtype) {
  return dtypes[dtype].size;
}

const char *mcc_dtype_name(mcc_dtype dtype) {
  return dtypes[dtype].name;
}

double mcc_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int64_t mcc_planned_bytes(void) {
  return mcc_model.weights_bytes + mcc_model.arena_bytes;
}

int64_t mcc_resident_bytes(void) {
  FILE *file = fopen("/proc/self/status", "r");
  if (file == NULL) return 0;
  char line[256];
  long long kibibytes = 0;
  while (fgets(line, sizeof line, file) != NULL && sscanf(line, "VmHWM: %lld", &kibibytes) != 1) continue;
  fclose(file);
  return (int64_t)kibibytes << 10;
}

void mcc_print_version(void) {
  printf("%s (compiled by %s for %s", mcc_model.name, mcc_model.compiler, mcc_model.levels[0].name);
  for (int32_t i = 1; i < mcc_model.level_count; i++) printf(", %s", mcc_model.levels[i].name);
  const mcc_level *chosen = mcc_chosen_level();
  if (chosen == NULL) {
    printf("; not for this processor");
  } else if (mcc_model.level_count > 1) {
    printf("; here it runs as %s", chosen->name);
  }
  printf(")\n");
  mcc_flush_output();
}

void mcc_print_manifest(mcc_bytes manifest) {
  fwrite(manifest.data, 1, manifest.size, stdout);
  if (manifest.size > 0 && manifest.data[manifest.size - 1] != '\n') putchar('\n');
  mcc_flush_output();
}

void mcc_flush_output(void) {
  if (fflush(stdout) == 0 && !ferror(stdout)) return;
  if (errno == EPIPE) exit(0);
  mcc_fail(MCC_EXIT_IO, "cannot write to standard output: %s", strerror(errno));
}
