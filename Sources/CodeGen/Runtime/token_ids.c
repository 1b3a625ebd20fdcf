#include "token_ids.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "tensor_file.h"

void mcc_ids_parse(const char *option, const char *text, mcc_ids *ids) {
  const char *at = text;
  while (*at != 0) {
    char *end;
    errno = 0;
    long long id = strtoll(at, &end, 10);
    if (end == at || (*end != 0 && strchr(", \n", *end) == NULL)) {
      mcc_fail(MCC_EXIT_USAGE, "option '%s' takes ids such as 1,2,3, not '%s'", option, text);
    }
    if (errno != 0 || id < 0 || id >= mcc_model.vocabulary) {
      mcc_fail(MCC_EXIT_USAGE, "the token id %.*s lies outside the vocabulary of %lld tokens", (int)(end - at), at,
               (long long)mcc_model.vocabulary);
    }
    mcc_ids_append(ids, (int32_t)id);
    at = end + strspn(end, ", \n");
  }
}

mcc_ids mcc_ids_read_texts(const char *path, int64_t most, int64_t *texts) {
  mcc_array_file file = mcc_array_file_read(path);
  if (file.count != 1) mcc_fail(MCC_EXIT_INPUT, "'%s' holds %d arrays; one is expected", path, file.count);
  const mcc_array *array = &file.arrays[0];
  if (array->rank != 1 && array->rank != 2) {
    mcc_fail(MCC_EXIT_INPUT, "the ids in '%s' must have the shape [T] or [N, T]", path);
  }
  *texts = array->rank == 1 ? 1 : array->dims[0];
  int64_t length = array->dims[array->rank - 1];
  if (array->count < 1 || length > most) {
    mcc_fail(MCC_EXIT_INPUT, "'%s' holds %lld ids; 1 to %lld, the context, are expected", path,
             (long long)(array->count < 1 ? 0 : length), (long long)most);
  }
  mcc_ids ids = {mcc_allocate((size_t)array->count * sizeof *ids.data), array->count, array->count};
  mcc_array_convert(array, MCC_I32, ids.data, "ids");
  for (int64_t i = 0; i < array->count; i++) {
    if (ids.data[i] < 0 || ids.data[i] >= mcc_model.vocabulary) {
      mcc_fail(MCC_EXIT_INPUT, "the token id %d at index %lld lies outside the vocabulary of %lld tokens", ids.data[i],
               (long long)i, (long long)mcc_model.vocabulary);
    }
  }
  mcc_array_file_free(&file);
  return ids;
}

mcc_ids mcc_ids_read(const char *path, int64_t most) {
  int64_t texts;
  mcc_ids ids = mcc_ids_read_texts(path, most, &texts);
  if (texts != 1) mcc_fail(MCC_EXIT_INPUT, "the ids in '%s' must have the shape [1, T]", path);
  return ids;
}
