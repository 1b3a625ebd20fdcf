#include "unicode.h"

#include <string.h>

#include "unicode_classes.h"

size_t mcc_character(const char *text, size_t size, int32_t *code) {
  const unsigned char *byte = (const unsigned char *)text;
  *code = byte[0];
  if (byte[0] < 0x80) return 1;
  size_t length = byte[0] >= 0xF0 ? 4 : byte[0] >= 0xE0 ? 3 : 2;
  int32_t value = byte[0] & (0x7F >> length);
  bool valid = byte[0] >= 0xC2 && byte[0] <= 0xF4 && length <= size;
  for (size_t i = 1; valid && i < length; i++) {
    valid = (byte[i] & 0xC0) == 0x80;
    value = value << 6 | (byte[i] & 0x3F);
  }
  /* Overlong forms, surrogates and what lies beyond Unicode. */
  if (length == 3) valid = valid && value >= 0x800 && !(value >= 0xD800 && value < 0xE000);
  if (length == 4) valid = valid && value >= 0x10000 && value < 0x110000;
  *code = valid ? value : -1;
  return valid ? length : 1;
}

size_t mcc_invalid_length(const char *text, size_t size, bool *incomplete) {
  unsigned char first = (unsigned char)text[0];
  size_t wanted = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2, length = 1;
  *incomplete = false;
  if (first < 0xC2 || first > 0xF4) return 1;
  /* The second byte decides whether it is overlong, a surrogate or beyond Unicode; the rest is free. */
  unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  while (length < wanted && length < size) {
    unsigned char byte = (unsigned char)text[length];
    if (byte < low || byte > high) return length;
    low = 0x80;
    high = 0xBF;
    length++;
  }
  *incomplete = length < wanted;
  return length;
}

size_t mcc_write_character(uint32_t code, char *text) {
  if (code < 0x80) {
    text[0] = (char)code;
    return 1;
  }
  size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--, code >>= 6) text[i] = (char)(0x80 | (code & 0x3F));
  text[0] = (char)((0xF00 >> length & 0xFF) | code);
  return length;
}

uint32_t mcc_run_value(const uint32_t *runs, size_t count, int shift, uint32_t code) {
  size_t low = 0, high = count;
  while (high - low > 1) {
    size_t middle = (low + high) / 2;
    if (runs[middle] >> shift <= code) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return runs[low] & ((1u << shift) - 1);
}

enum { PLANE = 1 << 16, RUN_COUNT = sizeof mcc_class_runs / sizeof *mcc_class_runs };

/* The class of each character of the first plane; made from the runs when the first one is asked for. */
static uint8_t first_plane[PLANE];
static bool first_plane_made;

static void make_first_plane(void) {
  for (size_t i = 0; i < RUN_COUNT; i++) {
    uint32_t start = mcc_class_runs[i] >> 8, end = i + 1 < RUN_COUNT ? mcc_class_runs[i + 1] >> 8 : PLANE;
    if (start >= PLANE) break;
    memset(first_plane + start, (int)(mcc_class_runs[i] & 0xFF), (end < PLANE ? end : PLANE) - start);
  }
  first_plane_made = true;
}

uint32_t mcc_class(int32_t code) {
  if (!first_plane_made) make_first_plane();
  if (code < 0) return 0;
  if (code < PLANE) return mcc_class_flags[first_plane[code]];
  return mcc_class_flags[mcc_run_value(mcc_class_runs, RUN_COUNT, 8, (uint32_t)code)];
}

bool mcc_is_white_space(int32_t code) {
  return (mcc_class(code) & MCC_SPACE) != 0;
}
