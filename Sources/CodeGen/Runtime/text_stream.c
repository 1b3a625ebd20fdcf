#define _GNU_SOURCE
#include "text_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failure.h"
#include "tokenizer_split.h"

void mcc_output(const void *bytes, size_t count) {
  const char *at = bytes;
  while (count > 0) {
    ssize_t written = write(STDOUT_FILENO, at, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) exit(0);
    if (written < 0) mcc_fail(MCC_EXIT_IO, "cannot write to standard output: %s", strerror(errno));
    at += written;
    count -= (size_t)written;
  }
}

/* Whether the bytes begin a character of UTF-8 that more bytes could complete. */
static bool is_incomplete(const char *bytes, size_t count) {
  unsigned char first = (unsigned char)bytes[0];
  size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || count >= length) return false;
  /* The second byte decides whether it is overlong, a surrogate or beyond Unicode; the rest is free. */
  char whole[4] = {bytes[0], count > 1 ? bytes[1] : (char)(first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80),
                   (char)0x80, (char)0x80};
  if (count > 2) whole[2] = bytes[2];
  int32_t code;
  return mcc_character(whole, length, &code) == length;
}

/* Writes bytes[0 ..< count] up to an incomplete character at the end; returns how many bytes were taken. */
static size_t write_characters(const char *bytes, size_t count) {
  mcc_text valid = {0};
  size_t i = 0;
  while (i < count && !is_incomplete(bytes + i, count - i)) {
    int32_t code;
    size_t length = mcc_character(bytes + i, count - i, &code);
    if (code < 0) {
      mcc_text_append(&valid, "\xEF\xBF\xBD", 3);
    } else {
      mcc_text_append(&valid, bytes + i, length);
    }
    i += length;
  }
  mcc_output(valid.data, valid.count);
  free(valid.data);
  return i;
}

/* Length of the longest end of the text that a stop text begins with. */
static size_t possible_stop(const mcc_text_stream *stream) {
  const mcc_text *text = &stream->pending;
  size_t longest = 0;
  for (int i = 0; i < stream->stops.count; i++) {
    const char *stop = stream->stops.items[i];
    size_t length = strlen(stop);
    for (size_t tail = length - 1; tail > longest; tail--) {
      if (tail <= text->count && memcmp(text->data + text->count - tail, stop, tail) == 0) longest = tail;
    }
  }
  return longest;
}

/* Position of the first stop text, or the length of the text. */
static size_t find_stop(const mcc_text_stream *stream) {
  size_t first = stream->pending.count;
  for (int i = 0; i < stream->stops.count; i++) {
    const char *stop = stream->stops.items[i];
    const char *found = memmem(stream->pending.data, stream->pending.count, stop, strlen(stop));
    if (found != NULL && (size_t)(found - stream->pending.data) < first) first = (size_t)(found - stream->pending.data);
  }
  return first;
}

bool mcc_text_stream_add(mcc_text_stream *stream, const char *bytes, size_t count) {
  mcc_text *text = &stream->pending;
  mcc_text_append(text, bytes, count);
  if (text->count == 0) return false;
  size_t stop = find_stop(stream);
  if (stop < text->count) {
    text->count = stop;
    return true;
  }
  size_t written = write_characters(text->data, text->count - possible_stop(stream));
  text->count -= written;
  memmove(text->data, text->data + written, text->count);
  return false;
}

void mcc_text_stream_finish(mcc_text_stream *stream) {
  mcc_text *text = &stream->pending;
  size_t written = text->count > 0 ? write_characters(text->data, text->count) : 0;
  if (written < text->count) mcc_output("\xEF\xBF\xBD", 3);
  free(text->data);
  *text = (mcc_text){0};
}
