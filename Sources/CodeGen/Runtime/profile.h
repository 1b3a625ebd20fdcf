/* Where the time of a run goes: what every thread spends on every step, written to a file at the end. */
#ifndef MCC_PROFILE_H
#define MCC_PROFILE_H

#include "mcc.h"

typedef struct mcc_profile mcc_profile;

/* A profile for that many threads if the variable MCC_PROFILE names a file, else NULL. */
mcc_profile *mcc_profile_start(int threads);

/* Before a thread runs the function: from here on mcc_mark counts. */
void mcc_profile_enter(mcc_profile *profile, const mcc_function *function, mcc_thread *thread);

/* After a call that took `seconds`; `position` is the number of tokens in the cache before it, -1 without a cache. */
void mcc_profile_add(mcc_profile *profile, const mcc_function *function, const int64_t *symbols, int64_t position,
                     double seconds);

/* Forgets the calls of the function so far, which were there to warm up. A NULL profile is ignored. */
void mcc_profile_restart(mcc_profile *profile, const mcc_function *function);

/*
 * Writes the file and frees the profile; NULL is ignored. The file is JSON:
 *
 *   {"threads": 2, "functions": [{"role": "decode", "calls": 32, "seconds": 1.5, "sizes": {"position": 15.5},
 *     "steps": [{"mean": 0.001, "most": 0.0012, "least": 0.0009}, ...]}]}
 *
 * `seconds` of all calls; `sizes` are means over the calls; a step has the seconds of all calls, as the mean over the
 * threads and of the thread that took longest, and what they would be if all calls were like the shortest one. Functions
 * that were not called are left out.
 */
void mcc_profile_end(mcc_profile *profile);

#endif
