#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.h"
#include "program.h"
#include "tensor_file.h"

/* A finished member of the archive. */
typedef struct archive_member {
  char *name; /* with .npy */
  uint32_t offset, size, crc;
} archive_member;

struct mcc_array_writer {
  const char *path; /* as given */
  char *target;     /* with links resolved; NULL if the file is written in place */
  FILE *file;
  bool is_archive;
  mcc_dtype dtype; /* of the current array */
  uint64_t position;
  archive_member *members;
  int32_t count;
};

/* The unfinished file, removed however the program ends. */
static char unfinished[4200];

static void remove_unfinished(void) {
  if (unfinished[0] != 0) unlink(unfinished);
}

static void remove_unfinished_and_end(int number) {
  remove_unfinished();
  _exit(128 + number);
}

static void guard_unfinished(void) {
  static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
  atexit(remove_unfinished);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction action = {.sa_handler = remove_unfinished_and_end};
    sigaction(numbers[i], &action, NULL);
  }
}

uint32_t mcc_crc32(uint32_t crc, const void *data, size_t size) {
  static uint32_t table[256];
  if (table[1] == 0) {
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t entry = i;
      for (int bit = 0; bit < 8; bit++) entry = entry >> 1 ^ ((entry & 1) != 0 ? 0xEDB88320u : 0);
      table[i] = entry;
    }
  }
  const uint8_t *bytes = data;
  crc = ~crc;
  for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xFF];
  return ~crc;
}

_Noreturn static void fail_writing(const mcc_array_writer *it) {
  mcc_fail(MCC_EXIT_IO, "cannot write '%s': %s", it->path, strerror(errno));
}

_Noreturn static void fail_creating(const char *path) {
  mcc_fail(MCC_EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
}

static bool ends_with(const char *text, const char *ending) {
  size_t length = strlen(text), tail = strlen(ending);
  return length >= tail && strcmp(text + length - tail, ending) == 0;
}

mcc_array_writer *mcc_array_writer_open(const char *path) {
  struct stat status;
  bool exists = stat(path, &status) == 0, in_place = exists && !S_ISREG(status.st_mode);
  if (!in_place && !ends_with(path, ".npz") && !ends_with(path, ".npy")) {
    mcc_fail(MCC_EXIT_USAGE, "the output '%s' must end in .npz or .npy", path);
  }
  mcc_array_writer *it = mcc_allocate(sizeof *it);
  *it = (mcc_array_writer){.path = path, .is_archive = !ends_with(path, ".npy")};
  int file;
  if (in_place) {
    file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) fail_creating(path);
  } else {
    it->target = exists ? realpath(path, NULL) : strdup(path);
    if (it->target == NULL || strlen(it->target) + 8 > sizeof unfinished) fail_creating(path);
    if (exists && access(it->target, W_OK) != 0) fail_creating(path);
    char temporary[sizeof unfinished];
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", it->target);
    file = mkostemp(temporary, O_CLOEXEC);
    if (file < 0) fail_creating(path);
    memcpy(unfinished, temporary, sizeof unfinished);
    guard_unfinished();
    mode_t mask = umask(0);
    umask(mask);
    fchmod(file, exists ? status.st_mode & 0777 : 0666 & ~mask);
  }
  it->file = fdopen(file, "wb");
  if (it->file == NULL) fail_creating(path);
  return it;
}

static void write_bytes(mcc_array_writer *it, const void *bytes, size_t count) {
  if (count > 0 && fwrite(bytes, 1, count, it->file) != count) fail_writing(it);
  it->position += count;
  if (it->is_archive && it->position > UINT32_MAX) {
    mcc_fail(MCC_EXIT_IO, "cannot write '%s': the archive would be larger than 4 GiB", it->path);
  }
}

/* A little-endian number of `count` bytes. */
static void put(mcc_array_writer *it, int count, uint32_t number) {
  uint8_t bytes[4];
  for (int i = 0; i < count; i++) bytes[i] = (uint8_t)(number >> 8 * i);
  write_bytes(it, bytes, (size_t)count);
}

/* The fields that the local header and the entry of the directory have in common. */
static void put_member(mcc_array_writer *it, const archive_member *member) {
  put(it, 2, 20);     /* version needed */
  put(it, 2, 0x800);  /* the name is UTF-8 */
  put(it, 2, 0);      /* stored */
  put(it, 2, 0);      /* time and date: the first that zip can hold, so that equal outputs are equal files */
  put(it, 2, 1 << 5 | 1);
  put(it, 4, member->crc);
  put(it, 4, member->size);
  put(it, 4, member->size);
  put(it, 2, (uint32_t)strlen(member->name));
  put(it, 2, 0); /* extra */
}

static void put_local_header(mcc_array_writer *it, const archive_member *member) {
  write_bytes(it, "PK\3\4", 4);
  put_member(it, member);
  write_bytes(it, member->name, strlen(member->name));
}

static void put_elements(mcc_array_writer *it, const void *bytes, size_t count) {
  write_bytes(it, bytes, count);
  if (it->is_archive) it->members[it->count].crc = mcc_crc32(it->members[it->count].crc, bytes, count);
}

static const char *descriptor(mcc_dtype dtype) {
  static const char *const descriptors[] = {
      [MCC_F64] = "<f8", [MCC_F32] = "<f4", [MCC_F16] = "<f2", [MCC_BF16] = "<f4", [MCC_I64] = "<i8",
      [MCC_I32] = "<i4", [MCC_I16] = "<i2", [MCC_I8] = "|i1",  [MCC_U8] = "|u1",   [MCC_BOOL] = "|b1",
  };
  return descriptors[dtype];
}

static void put_npy_header(mcc_array_writer *it, mcc_dtype dtype, int32_t rank, const int64_t *dims) {
  char shape[32 * MCC_MAX_RANK] = "", text[64 + sizeof shape], header[128 + sizeof text];
  size_t length = 0;
  for (int32_t axis = 0; axis < rank; axis++) {
    length += (size_t)snprintf(shape + length, sizeof shape - length, axis == 0 ? "%lld," : " %lld,",
                               (long long)dims[axis]);
  }
  if (rank > 1) shape[length - 1] = 0;
  snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descriptor(dtype), shape);
  /* The numbers start at a multiple of 64; the header ends with a line feed. */
  size_t total = (10 + strlen(text) + 1 + 63) / 64 * 64;
  snprintf(header, sizeof header, "%-*s\n", (int)(total - 11), text);
  uint8_t start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)(total - 10), (uint8_t)((total - 10) >> 8)};
  put_elements(it, start, sizeof start);
  put_elements(it, header, total - 10);
}

void mcc_array_writer_begin(mcc_array_writer *it, const char *name, mcc_dtype dtype, int32_t rank,
                            const int64_t *dims) {
  it->dtype = dtype;
  if (it->is_archive) {
    it->members = mcc_reallocate(it->members, (size_t)(it->count + 1) * sizeof *it->members);
    archive_member *new = &it->members[it->count];
    *new = (archive_member){.offset = (uint32_t)it->position};
    if (asprintf(&new->name, "%s.npy", name) < 0) mcc_fail(MCC_EXIT_INTERNAL, "not enough memory");
    put_local_header(it, new);
  } else if (it->count > 0) {
    mcc_fail(MCC_EXIT_USAGE, "'%s' holds one array only; write several to a .npz", it->path);
  }
  put_npy_header(it, dtype, rank, dims);
}

void mcc_array_writer_append(mcc_array_writer *it, const void *elements, int64_t count) {
  if (it->dtype != MCC_BF16) {
    put_elements(it, elements, (size_t)(count * mcc_dtype_size(it->dtype)));
    return;
  }
  const uint16_t *halves = elements;
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits = (uint32_t)halves[i] << 16;
    put_elements(it, &bits, sizeof bits);
  }
}

void mcc_array_writer_end(mcc_array_writer *it) {
  if (it->is_archive) {
    /* The header again, now that size and checksum are known. */
    archive_member *last = &it->members[it->count];
    uint64_t end = it->position;
    last->size = (uint32_t)(end - last->offset - 30 - strlen(last->name));
    if (fseeko(it->file, (off_t)last->offset, SEEK_SET) != 0) fail_writing(it);
    put_local_header(it, last);
    if (fseeko(it->file, (off_t)end, SEEK_SET) != 0) fail_writing(it);
    it->position = end;
  }
  it->count++;
}

static void put_directory(mcc_array_writer *it) {
  uint32_t start = (uint32_t)it->position;
  for (int32_t i = 0; i < it->count; i++) {
    const archive_member *member = &it->members[i];
    write_bytes(it, "PK\1\2", 4);
    put(it, 2, 20); /* version made by */
    put_member(it, member);
    put(it, 2, 0); /* comment */
    put(it, 2, 0); /* disk */
    put(it, 2, 0); /* internal attributes */
    put(it, 4, 0); /* external attributes */
    put(it, 4, member->offset);
    write_bytes(it, member->name, strlen(member->name));
  }
  uint32_t size = (uint32_t)it->position - start;
  write_bytes(it, "PK\5\6", 4);
  put(it, 4, 0); /* disks */
  put(it, 2, (uint32_t)it->count);
  put(it, 2, (uint32_t)it->count);
  put(it, 4, size);
  put(it, 4, start);
  put(it, 2, 0); /* comment */
}

void mcc_array_writer_close(mcc_array_writer *it) {
  if (it->is_archive) put_directory(it);
  if (fflush(it->file) != 0) fail_writing(it);
  if (it->target != NULL && fsync(fileno(it->file)) != 0) fail_writing(it);
  if (fclose(it->file) != 0) fail_writing(it);
  if (it->target != NULL) {
    if (rename(unfinished, it->target) != 0) fail_writing(it);
    unfinished[0] = 0;
  }
  for (int32_t i = 0; it->is_archive && i < it->count; i++) free(it->members[i].name);
  free(it->members);
  free(it->target);
  free(it);
}
