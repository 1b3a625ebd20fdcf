/* From logits to the next token. */
#ifndef MCC_SAMPLER_H
#define MCC_SAMPLER_H

#include <stdint.h>

typedef struct mcc_sampler_options {
  double temperature;    /* 0: the likeliest token */
  double top_p;          /* keep the likeliest tokens until their probabilities reach this sum; 1: all */
  int64_t top_k;         /* keep this many of the likeliest tokens; 0: all */
  double repeat_penalty; /* divides positive and multiplies negative logits of tokens seen before; 1: off */
  uint64_t seed;
} mcc_sampler_options;

typedef struct mcc_sampler mcc_sampler;

mcc_sampler *mcc_sampler_create(mcc_sampler_options options, int64_t vocabulary);
void mcc_sampler_free(mcc_sampler *sampler);

/*
 * The next token after ids[0 ..< count]. The penalty comes first, then the temperature, then top-k, then top-p, as in
 * the library transformers. Equal logits rank by id, lowest first; NaN counts as minus infinity.
 */
int32_t mcc_sampler_next(mcc_sampler *sampler, const float *logits, const int32_t *ids, int64_t count);

/* Index of the largest number, the first of several; NaN never wins; 0 if all are NaN. */
int32_t mcc_index_of_largest(const float *numbers, int64_t count);

#endif
