/*
 * The bundle: data that follows the machine code in the same file.
 *
 *   offset in the file
 *   0                      the executable, padded with zeros to a multiple of 4096 bytes
 *   B                      the bundle: sections, each at a multiple of 64 bytes (weights: 4096) from B; trailer
 *   file size - 128        the trailer, the last 128 bytes of the file
 *
 * so that a bundle may be appended by hand: truncate -s %4096 program && cat bundle.bin >> program.
 * The trailer holds no absolute position: B = file size - bundle_bytes. All numbers are little-endian.
 */
#ifndef MCC_BUNDLE_H
#define MCC_BUNDLE_H

#include "mcc.h"

#define MCC_BUNDLE_MAGIC "mccbundl"

enum {
  MCC_BUNDLE_VERSION = 1,
  MCC_BUNDLE_PAGE = 4096,
  MCC_BUNDLE_ALIGNMENT = 64,
};

/* Order of the sections in the trailer. A section that the program lacks has size 0 and offset 0. */
enum {
  MCC_SECTION_WEIGHTS,   /* laid out by the compiler; at a multiple of 4096 from B */
  MCC_SECTION_TOKENIZER, /* tokenizer.h describes it; absent: the program knows ids only */
  MCC_SECTION_MANIFEST,  /* JSON text, printed by --manifest */
  MCC_SECTION_SETTINGS,  /* text, one `key value` per line; generation_settings.h describes it */
  MCC_SECTION_COUNT,
};

typedef struct mcc_section {
  uint64_t offset; /* from B */
  uint64_t size;   /* bytes; offset + size <= bundle_bytes - 128 */
} mcc_section;

typedef struct mcc_trailer {
  char magic[8];                           /*   0: MCC_BUNDLE_MAGIC, not terminated */
  uint32_t version;                        /*   8: MCC_BUNDLE_VERSION */
  uint32_t trailer_bytes;                  /*  12: 128 */
  uint64_t bundle_bytes;                   /*  16: from B to the end of the file, this trailer included */
  uint64_t identity;                       /*  24: equals mcc_model.identity */
  mcc_section sections[MCC_SECTION_COUNT]; /*  32 */
  uint64_t reserved[3];                    /*  96: zero */
  uint64_t checksum;                       /* 120: 64-bit FNV-1a of the 120 bytes before it */
} mcc_trailer;

_Static_assert(sizeof(mcc_trailer) == 128, "the trailer is 128 bytes");

/* A view of bytes that the mapping owns. */
typedef struct mcc_bytes {
  const uint8_t *data;
  size_t size;
} mcc_bytes;

typedef struct mcc_bundle {
  mcc_bytes weights, tokenizer, manifest, settings;
} mcc_bundle;

/*
 * Maps the bundle of the running executable. If it is missing, cut short, damaged or made for other code, says so and
 * exits with status 65.
 */
mcc_bundle mcc_bundle_map(void);

/* Checks and maps the bundle of the file `path`; returns NULL, or what is wrong with it. */
const char *mcc_bundle_map_file(const char *path, mcc_bundle *bundle);

/* 64-bit FNV-1a. */
uint64_t mcc_checksum(const void *data, size_t size);

/* Zero-initialised memory aligned to 4096 bytes; exits with status 70 if there is not enough. */
uint8_t *mcc_arena_allocate(int64_t bytes);

#endif
