#define _GNU_SOURCE
#include "text_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failure.h"

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
  size_t written = text->count - possible_stop(stream);
  mcc_output(text->data, written);
  text->count -= written;
  memmove(text->data, text->data + written, text->count);
  return false;
}

void mcc_text_stream_finish(mcc_text_stream *stream) {
  mcc_text *text = &stream->pending;
  mcc_output(text->data, text->count);
  free(text->data);
  *text = (mcc_text){0};
}
