/*
 * Defaults of a language model's command line, from its generation_config: the settings section of the bundle.
 *
 * ASCII text, one `key value` per line, every key optional:
 *
 *   temperature 0.8        0: always the likeliest token
 *   top_p 0.9              1: off
 *   top_k 40               0: off
 *   repeat_penalty 1.1     1: off
 *   bos 1                  id put before a text by `perplexity`, and by `generate` when the prompt is empty
 *   eos 2                  id that ends a text; may be given several times
 */
#ifndef MCC_GENERATION_SETTINGS_H
#define MCC_GENERATION_SETTINGS_H

#include "bundle.h"

enum { MCC_MAX_EOS = 16 };

typedef struct mcc_generation_settings {
  float temperature, top_p, repeat_penalty;
  int32_t top_k;
  int32_t bos; /* -1: none */
  int32_t eos_count;
  int32_t eos[MCC_MAX_EOS];
} mcc_generation_settings;

/* Without a section: temperature 0, the rest off. Exits with status 65 if the section cannot be read. */
mcc_generation_settings mcc_generation_settings_read(mcc_bytes section, int64_t vocabulary);

#endif
