#include "generation_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

/* Stores one line; false if the key is unknown or the value no number in range. */
static bool read_line(mcc_generation_settings *it, const char *key, const char *value, int64_t vocabulary) {
  char *end;
  double number = strtod(value, &end);
  if (end == value || *end != 0) return false;
  bool is_id = number >= 0 && number < (double)vocabulary && number == (double)(int32_t)number;
  if (strcmp(key, "temperature") == 0) {
    it->temperature = (float)number;
    return number >= 0;
  }
  if (strcmp(key, "top_p") == 0) {
    it->top_p = (float)number;
    return number >= 0 && number <= 1;
  }
  if (strcmp(key, "top_k") == 0) {
    it->top_k = number >= 0 && number < INT32_MAX ? (int32_t)number : 0;
    return number >= 0 && number < INT32_MAX;
  }
  if (strcmp(key, "repeat_penalty") == 0) {
    it->repeat_penalty = (float)number;
    return number > 0;
  }
  if (strcmp(key, "bos") == 0) {
    if (is_id) it->bos = (int32_t)number;
    return is_id;
  }
  if (strcmp(key, "eos") == 0) {
    if (!is_id || it->eos_count == MCC_MAX_EOS) return false;
    it->eos[it->eos_count++] = (int32_t)number;
    return true;
  }
  return false;
}

mcc_generation_settings mcc_generation_settings_read(mcc_bytes section, int64_t vocabulary) {
  mcc_generation_settings it = {.temperature = 0, .top_p = 1, .repeat_penalty = 1, .top_k = 0, .bos = -1};
  const char *at = (const char *)section.data, *end = at + section.size;
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    size_t length = (size_t)((stop != NULL ? stop : end) - at);
    char line[128], key[32], value[64], rest;
    if (length >= sizeof line) mcc_fail(MCC_EXIT_INPUT, "the generation settings of this program are damaged");
    memcpy(line, at, length);
    line[length] = 0;
    int words = sscanf(line, "%31s %63s %c", key, value, &rest);
    if (words > 0 && (words != 2 || !read_line(&it, key, value, vocabulary))) {
      mcc_fail(MCC_EXIT_INPUT, "the generation settings of this program are damaged: '%s'", line);
    }
    at += length + 1;
  }
  return it;
}
