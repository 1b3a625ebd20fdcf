#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle.h"
#include "failure.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the bundle is mapped in place, which needs a little-endian machine"
#endif

uint64_t mcc_checksum(const void *data, size_t size) {
  const uint8_t *bytes = data;
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

/* Checks the trailer of a file of `file_bytes` bytes; returns NULL or what is wrong. */
static const char *check_trailer(const mcc_trailer *trailer, uint64_t file_bytes) {
  if (memcmp(trailer->magic, MCC_BUNDLE_MAGIC, sizeof trailer->magic) != 0) {
    return "no bundle at its end: the file is cut short or the bundle was never appended";
  }
  if (trailer->checksum != mcc_checksum(trailer, offsetof(mcc_trailer, checksum))) {
    return "a damaged bundle: the checksum of its trailer is wrong";
  }
  if (trailer->version != MCC_BUNDLE_VERSION || trailer->trailer_bytes != sizeof *trailer) {
    return "a bundle of another version";
  }
  if (trailer->bundle_bytes < sizeof *trailer || trailer->bundle_bytes > file_bytes) {
    return "a damaged bundle: it claims to be larger than the file, which is cut short";
  }
  if ((file_bytes - trailer->bundle_bytes) % MCC_BUNDLE_PAGE != 0) {
    return "a bundle that does not start at a multiple of 4096 bytes: bytes are missing or were added";
  }
  if (trailer->identity != mcc_model.identity) {
    return "the bundle of another program";
  }
  uint64_t available = trailer->bundle_bytes - sizeof *trailer;
  for (int i = 0; i < MCC_SECTION_COUNT; i++) {
    mcc_section section = trailer->sections[i];
    if (section.offset > available || section.size > available - section.offset) {
      return "a damaged bundle: a section lies outside it";
    }
    if (section.offset % (i == MCC_SECTION_WEIGHTS ? MCC_BUNDLE_PAGE : MCC_BUNDLE_ALIGNMENT) != 0) {
      return "a damaged bundle: a section is misaligned";
    }
  }
  if (trailer->sections[MCC_SECTION_WEIGHTS].size != (uint64_t)mcc_model.weights_bytes) {
    return "a bundle whose weights have another size than its code expects";
  }
  return NULL;
}

static const char *map_descriptor(int file, mcc_bundle *bundle) {
  struct stat status;
  if (fstat(file, &status) != 0) return strerror(errno);
  uint64_t size = (uint64_t)status.st_size;
  if (size < sizeof(mcc_trailer)) return "no bundle: the file is too small";
  const uint8_t *start = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
  if (start == MAP_FAILED) return strerror(errno);

  mcc_trailer trailer;
  memcpy(&trailer, start + size - sizeof trailer, sizeof trailer);
  const char *problem = check_trailer(&trailer, size);
  if (problem != NULL) {
    munmap((void *)start, size);
    return problem;
  }
  mcc_bytes *views[MCC_SECTION_COUNT] = {&bundle->weights, &bundle->tokenizer, &bundle->manifest, &bundle->settings};
  for (int i = 0; i < MCC_SECTION_COUNT; i++) {
    mcc_section section = trailer.sections[i];
    *views[i] = (mcc_bytes){start + (size - trailer.bundle_bytes) + section.offset, section.size};
  }
  return NULL;
}

const char *mcc_bundle_map_file(const char *path, mcc_bundle *bundle) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return strerror(errno);
  const char *problem = map_descriptor(file, bundle);
  close(file);
  return problem;
}

mcc_bundle mcc_bundle_map(void) {
  mcc_bundle bundle;
  const char *problem = mcc_bundle_map_file("/proc/self/exe", &bundle);
  if (problem != NULL) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    mcc_fail(MCC_EXIT_INPUT, "cannot use the program file '%s': %s", path, problem);
  }
  return bundle;
}

uint8_t *mcc_arena_allocate(int64_t bytes) {
  size_t size = bytes > 0 ? (size_t)bytes : 1;
  /* Whole large pages: one entry of the translation buffer for 2 MiB. What is beside them is never touched. */
  const size_t page = (size_t)2 << 20;
  const int is_large = size >= page && size <= SIZE_MAX - 2 * page;
  const size_t pages = is_large ? (size + page - 1) / page * page : size;
  uint8_t *arena = mmap(NULL, is_large ? pages + page : size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) mcc_fail(MCC_EXIT_INTERNAL, "not enough memory: the model needs %zu bytes", size);
#if defined(MADV_HUGEPAGE)
  if (is_large) {
    arena += (page - (uintptr_t)arena % page) % page;
    madvise(arena, pages, MADV_HUGEPAGE);
  }
#endif
  return arena;
}
