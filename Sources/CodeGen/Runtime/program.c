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

void mcc_require_cpu(void) {
  const char *missing = mcc_cpu_missing_feature(mcc_model.features);
  if (missing == NULL) return;
  mcc_fail(MCC_EXIT_UNSUPPORTED, "this program was compiled for processors with %s, which this one does not have",
           missing);
}

/* One thread per core, but none for less than 256 KiB of weights per call: waiting would take longer than reading. */
static int64_t default_threads(void) {
  int64_t bytes = mcc_model.bytes_per_token > 0 ? mcc_model.bytes_per_token : mcc_model.weights_bytes;
  int64_t cores = mcc_cpu_cores(), useful = bytes >> 18;
  return useful < 1 ? 1 : useful < cores ? useful : cores;
}

mcc_session mcc_session_start(mcc_bundle bundle, int64_t threads) {
  if (threads <= 0) threads = default_threads();
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
  for (int32_t i = 0; i < mcc_model.function_count; i++) {
    if (strcmp(mcc_model.functions[i].role, role) == 0) return &mcc_model.functions[i];
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

void mcc_print_version(void) {
  printf("%s (compiled by %s)\n", mcc_model.name, mcc_model.compiler);
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
