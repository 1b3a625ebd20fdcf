/* A compiled model ready to be called: its code, its data, its memory, its threads. */
#ifndef MCC_PROGRAM_H
#define MCC_PROGRAM_H

#include "bundle.h"
#include "mcc.h"
#include "profile.h"
#include "thread_pool.h"

typedef struct mcc_session {
  mcc_bundle bundle;
  uint8_t *arena;
  mcc_pool *pool;
  mcc_profile *profile; /* NULL unless MCC_PROFILE is set */
} mcc_session;

/* Refuses with status 69 if the CPU runs none of the program's levels. To be called before any function is. */
void mcc_require_cpu(void);

/* The best level that the CPU runs, or that of the variable MCC_LEVEL; NULL if there is none. */
const mcc_level *mcc_chosen_level(void);

/* Allocates the arena and starts `threads` threads (0: as many as cores and weights make useful). */
mcc_session mcc_session_start(mcc_bundle bundle, int64_t threads);
void mcc_session_end(mcc_session *session);

/* Runs the function on all threads. Inputs must lie in the arena. */
void mcc_session_call(mcc_session *session, const mcc_function *function, const int64_t *symbols);

/* The function of the chosen level with that role, or NULL. */
const mcc_function *mcc_find_function(const char *role);

/* The tensor with that name, or NULL. */
const mcc_tensor *mcc_find_tensor(const mcc_tensor *tensors, int32_t count, const char *name);

/* Index of the symbol with that name, or -1. */
int mcc_find_symbol(const mcc_function *function, const char *name);

int64_t mcc_dim_size(const mcc_dim *dim, const int64_t *symbols);
int64_t mcc_tensor_count(const mcc_tensor *tensor, const int64_t *symbols);

/* Bytes of one element, and its name as in "f32". */
int64_t mcc_dtype_size(mcc_dtype dtype);
const char *mcc_dtype_name(mcc_dtype dtype);

/* What a run needs by plan: weights and arena. */
int64_t mcc_planned_bytes(void);

/* The most memory this process has had resident so far, mapped weights included; 0 if unknown. */
int64_t mcc_resident_bytes(void);

/* Seconds on a clock that only moves forward. */
double mcc_seconds(void);

/* What --version and --manifest print. */
void mcc_print_version(void);
void mcc_print_manifest(mcc_bytes manifest);

/* Writes out what standard output buffers; a full disk ends the program with status 74, a closed pipe with 0. */
void mcc_flush_output(void);

#endif
