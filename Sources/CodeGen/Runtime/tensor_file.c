#define _GNU_SOURCE
#include "tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.h"
#include "program.h"

uint8_t *mcc_file_read(const char *path, size_t *size) {
  bool is_input = strcmp(path, "-") == 0;
  int file = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) mcc_fail(MCC_EXIT_INPUT, "cannot read '%s': %s", path, strerror(errno));
  size_t capacity = 1 << 16, count = 0;
  struct stat status;
  if (fstat(file, &status) == 0 && S_ISREG(status.st_mode)) capacity = (size_t)status.st_size + 1;
  uint8_t *bytes = mcc_allocate(capacity);
  for (;;) {
    ssize_t got = read(file, bytes + count, capacity - count);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) mcc_fail(MCC_EXIT_INPUT, "cannot read '%s': %s", path, strerror(errno));
    if (got == 0) break;
    count += (size_t)got;
    if (count == capacity) bytes = mcc_reallocate(bytes, capacity *= 2);
  }
  if (!is_input) close(file);
  *size = count;
  return bytes;
}

/* ---- .npy ---- */

typedef struct dtype_code {
  const char *code;
  mcc_dtype dtype;
} dtype_code;

static const dtype_code dtype_codes[] = {
    {"f8", MCC_F64}, {"f4", MCC_F32}, {"f2", MCC_F16}, {"i8", MCC_I64}, {"i4", MCC_I32},
    {"i2", MCC_I16}, {"i1", MCC_I8},  {"u1", MCC_U8},  {"b1", MCC_BOOL},
};

/* The header's text, read from left to right. */
typedef struct header_cursor {
  const char *at, *end;
} header_cursor;

static void skip_space(header_cursor *cursor) {
  while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\n')) cursor->at++;
}

/* Skips white space, and `byte` if it comes next. */
static bool skip(header_cursor *cursor, char byte) {
  skip_space(cursor);
  if (cursor->at == cursor->end || *cursor->at != byte) return false;
  cursor->at++;
  return true;
}

/* Reads a quoted string without escapes, of fewer than `capacity` bytes. */
static bool read_string(header_cursor *cursor, char *string, size_t capacity) {
  char quote = skip(cursor, '\'') ? '\'' : skip(cursor, '"') ? '"' : 0;
  if (quote == 0) return false;
  const char *close = memchr(cursor->at, quote, (size_t)(cursor->end - cursor->at));
  if (close == NULL || (size_t)(close - cursor->at) >= capacity) return false;
  memcpy(string, cursor->at, (size_t)(close - cursor->at));
  string[close - cursor->at] = 0;
  cursor->at = close + 1;
  return true;
}

static bool skip_word(header_cursor *cursor, const char *word) {
  skip_space(cursor);
  size_t length = strlen(word);
  if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, word, length) != 0) return false;
  cursor->at += length;
  return true;
}

/* Reads (3, 4) into dims; returns NULL or what is wrong. */
static const char *read_shape(header_cursor *cursor, mcc_array *array) {
  if (!skip(cursor, '(')) return "its shape is malformed";
  while (!skip(cursor, ')')) {
    int64_t size = 0;
    const char *first = cursor->at;
    for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++) {
      if (size > (INT64_MAX - 9) / 10) return "its shape is out of range";
      size = size * 10 + (*cursor->at - '0');
    }
    if (cursor->at == first) return "its shape is malformed";
    if (array->rank == MCC_MAX_RANK) return "it has more than 8 axes";
    array->dims[array->rank++] = size;
    if (!skip(cursor, ',') && (cursor->at == cursor->end || *cursor->at != ')')) return "its shape is malformed";
  }
  return NULL;
}

static const char *read_descriptor(header_cursor *cursor, mcc_array *array) {
  char descriptor[16];
  if (!read_string(cursor, descriptor, sizeof descriptor)) return "its element type is not a plain number";
  if (descriptor[0] == '>') return "its numbers are big-endian; little-endian ones are expected";
  for (size_t i = 0; i < sizeof dtype_codes / sizeof *dtype_codes; i++) {
    if (strcmp(descriptor + 1, dtype_codes[i].code) == 0 && strchr("<|=", descriptor[0]) != NULL) {
      array->dtype = dtype_codes[i].dtype;
      return NULL;
    }
  }
  return "its element type is none of f8, f4, f2, i8, i4, i2, i1, u1, b1";
}

/* Reads the dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. */
static const char *read_dictionary(header_cursor cursor, mcc_array *array) {
  bool has_descriptor = false, has_order = false, has_shape = false;
  if (!skip(&cursor, '{')) return "its header is malformed";
  while (!skip(&cursor, '}')) {
    char key[16];
    const char *problem = NULL;
    if (!read_string(&cursor, key, sizeof key) || !skip(&cursor, ':')) return "its header is malformed";
    if (strcmp(key, "descr") == 0 && !has_descriptor) {
      problem = read_descriptor(&cursor, array);
      has_descriptor = true;
    } else if (strcmp(key, "fortran_order") == 0 && !has_order) {
      if (skip_word(&cursor, "True")) return "it is in Fortran order; C order is expected";
      if (!skip_word(&cursor, "False")) return "its header is malformed";
      has_order = true;
    } else if (strcmp(key, "shape") == 0 && !has_shape) {
      problem = read_shape(&cursor, array);
      has_shape = true;
    } else {
      return "its header is malformed";
    }
    if (problem != NULL) return problem;
    if (!skip(&cursor, ',') && (cursor.at == cursor.end || *cursor.at != '}')) return "its header is malformed";
  }
  return has_descriptor && has_order && has_shape ? NULL : "its header is incomplete";
}

static uint32_t read_number(const uint8_t *bytes, int count) {
  uint32_t number = 0;
  for (int i = count - 1; i >= 0; i--) number = number << 8 | bytes[i];
  return number;
}

/* Reads the array whose .npy form fills bytes[0 ..< size]; returns NULL or what is wrong. */
static const char *read_npy(const uint8_t *bytes, size_t size, mcc_array *array) {
  if (size < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0) return "it is no .npy";
  if (bytes[6] < 1 || bytes[6] > 3) return "its version of .npy is unknown";
  int length_bytes = bytes[6] == 1 ? 2 : 4;
  size_t start = 8 + (size_t)length_bytes;
  if (size < start) return "it is cut short";
  size_t length = read_number(bytes + 8, length_bytes);
  if (length > size - start) return "it is cut short";

  const char *text = (const char *)bytes + start;
  array->rank = 0;
  const char *problem = read_dictionary((header_cursor){text, text + length}, array);
  if (problem != NULL) return problem;
  int64_t count = 1;
  bool overflow = false, empty = false;
  for (int32_t axis = 0; axis < array->rank; axis++) {
    empty = empty || array->dims[axis] == 0;
    overflow = __builtin_mul_overflow(count, array->dims[axis], &count) || overflow;
  }
  if (empty) {
    count = 0;
  } else if (overflow || count > INT64_MAX / 8) {
    return "its shape is out of range";
  }
  size_t available = size - start - length, needed = (size_t)(count * mcc_dtype_size(array->dtype));
  if (available < needed) return "it is cut short: it holds fewer numbers than its shape says";
  if (available > needed) return "it holds more bytes than its shape says";
  array->count = count;
  array->data = bytes + start + length;
  return NULL;
}

/* ---- .npz ---- */

enum { ZIP_LOCAL = 30, ZIP_ENTRY = 46, ZIP_END = 22 };

/* One member as the central directory describes it. */
typedef struct zip_member {
  const char *name;
  size_t name_length;
  uint64_t packed, size, offset;
  uint32_t method, flags, crc;
} zip_member;

static uint64_t read_long(const uint8_t *bytes) {
  return read_number(bytes, 4) | (uint64_t)read_number(bytes + 4, 4) << 32;
}

/* The end of the central directory, before a comment of any length; or NULL. */
static const uint8_t *find_zip_end(const uint8_t *bytes, size_t size) {
  for (size_t back = ZIP_END; back <= size && back <= ZIP_END + 65535; back++) {
    const uint8_t *end = bytes + size - back;
    if (memcmp(end, "PK\5\6", 4) == 0 && read_number(end + 20, 2) == back - ZIP_END) return end;
  }
  return NULL;
}

/* Replaces sizes of 0xFFFFFFFF by those of the zip64 extra field. */
static bool read_zip64(const uint8_t *extra, size_t length, zip_member *member) {
  uint64_t *fields[] = {&member->size, &member->packed, &member->offset};
  while (length >= 4) {
    size_t field = read_number(extra + 2, 2);
    if (field > length - 4) return false;
    if (read_number(extra, 2) == 1) {
      const uint8_t *at = extra + 4, *end = at + field;
      for (int i = 0; i < 3; i++) {
        if (*fields[i] != UINT32_MAX) continue;
        if (end - at < 8) return false;
        *fields[i] = read_long(at);
        at += 8;
      }
      return true;
    }
    extra += 4 + field;
    length -= 4 + field;
  }
  return false;
}

/* Reads the entry at *at, which is before `end`, and moves on; returns NULL or what is wrong. */
static const char *read_entry(const uint8_t **at, const uint8_t *end, zip_member *member) {
  const uint8_t *entry = *at;
  if (end - entry < ZIP_ENTRY || memcmp(entry, "PK\1\2", 4) != 0) return "its directory is damaged";
  size_t name = read_number(entry + 28, 2), extra = read_number(entry + 30, 2), comment = read_number(entry + 32, 2);
  if (name + extra + comment > (size_t)(end - entry) - ZIP_ENTRY) return "its directory is damaged";
  *member = (zip_member){
      .name = (const char *)entry + ZIP_ENTRY,
      .name_length = name,
      .flags = read_number(entry + 8, 2),
      .method = read_number(entry + 10, 2),
      .crc = read_number(entry + 16, 4),
      .packed = read_number(entry + 20, 4),
      .size = read_number(entry + 24, 4),
      .offset = read_number(entry + 42, 4),
  };
  bool large = member->packed == UINT32_MAX || member->size == UINT32_MAX || member->offset == UINT32_MAX;
  if (large && !read_zip64(entry + ZIP_ENTRY + name, extra, member)) return "its directory is damaged";
  *at = entry + ZIP_ENTRY + name + extra + comment;
  return NULL;
}

/* Reads the member as an array; returns NULL or what is wrong. */
static const char *read_member(const uint8_t *bytes, size_t size, const zip_member *member, mcc_array *array) {
  if ((member->flags & 1) != 0) return "it is encrypted";
  if (member->method != 0) return "it is compressed; write it uncompressed (numpy.savez, not savez_compressed)";
  if (member->offset > size || size - member->offset < ZIP_LOCAL) return "it lies outside the file";
  const uint8_t *local = bytes + member->offset;
  if (memcmp(local, "PK\3\4", 4) != 0) return "its header is damaged";
  size_t start = ZIP_LOCAL + read_number(local + 26, 2) + read_number(local + 28, 2);
  size_t available = size - member->offset;
  if (member->packed != member->size || start > available || member->size > available - start) {
    return "it lies outside the file";
  }
  const uint8_t *data = local + start;
  if (mcc_crc32(0, data, member->size) != member->crc) return "it is damaged: its checksum is wrong";
  return read_npy(data, member->size, array);
}

static void read_npz(mcc_array_file *file, size_t size) {
  const uint8_t *end = find_zip_end(file->bytes, size);
  if (end == NULL) mcc_fail(MCC_EXIT_INPUT, "'%s' is damaged: the end of the archive is missing", file->path);
  uint32_t count = read_number(end + 10, 2), offset = read_number(end + 16, 4);
  if (offset > (size_t)(end - file->bytes)) {
    mcc_fail(MCC_EXIT_INPUT, "'%s' is damaged: its directory lies outside the file", file->path);
  }
  const uint8_t *at = file->bytes + offset;
  file->arrays = mcc_allocate(count * sizeof *file->arrays);
  for (uint32_t i = 0; i < count; i++) {
    zip_member member;
    const char *problem = read_entry(&at, end, &member);
    if (problem != NULL) mcc_fail(MCC_EXIT_INPUT, "'%s' is damaged: %s", file->path, problem);
    size_t length = member.name_length;
    if (length < 4 || memcmp(member.name + length - 4, ".npy", 4) != 0) continue;
    mcc_array *array = &file->arrays[file->count++];
    array->name = strndup(member.name, length - 4);
    problem = read_member(file->bytes, size, &member, array);
    if (problem != NULL) {
      mcc_fail(MCC_EXIT_INPUT, "cannot read array '%s' of '%s': %s", array->name, file->path, problem);
    }
  }
}

mcc_array_file mcc_array_file_read(const char *path) {
  size_t size;
  mcc_array_file file = {path, mcc_file_read(path, &size), NULL, 0};
  if (size >= 4 && (memcmp(file.bytes, "PK\3\4", 4) == 0 || memcmp(file.bytes, "PK\5\6", 4) == 0)) {
    read_npz(&file, size);
    return file;
  }
  file.arrays = mcc_allocate(sizeof *file.arrays);
  file.count = 1;
  file.arrays[0].name = strdup("");
  const char *problem = read_npy(file.bytes, size, &file.arrays[0]);
  if (problem != NULL) mcc_fail(MCC_EXIT_INPUT, "cannot read '%s': %s", path, problem);
  return file;
}

void mcc_array_file_free(mcc_array_file *file) {
  for (int32_t i = 0; i < file->count; i++) free(file->arrays[i].name);
  free(file->arrays);
  free(file->bytes);
}
