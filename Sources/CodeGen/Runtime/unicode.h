/* Characters of UTF-8 and their classes. */
#ifndef MCC_UNICODE_H
#define MCC_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Length in bytes of the UTF-8 character at the start of text[0 ..< size], size > 0, and its code point. Bytes that are
 * no valid UTF-8 count as one character of one byte each, with code -1.
 */
size_t mcc_character(const char *text, size_t size, int32_t *code);

/*
 * Length of the longest prefix of text[0 ..< size], size > 0, that a character of UTF-8 could begin with, where the text
 * starts with none: what one U+FFFD stands for. *incomplete says that more bytes could complete it.
 */
size_t mcc_invalid_length(const char *text, size_t size, bool *incomplete);

/* Writes the character, 1 to 4 bytes; returns how many. */
size_t mcc_write_character(uint32_t code, char *text);

/* The bits MCC_UPPER, MCC_SPACE, ... of unicode_classes.h; none for what is no character. */
uint32_t mcc_class(int32_t code);

/* Whether the character has the Unicode property White_Space. */
bool mcc_is_white_space(int32_t code);

/* The value of the last run that begins at or before the code: runs hold the first code times 2^shift, plus a value. */
uint32_t mcc_run_value(const uint32_t *runs, size_t count, int shift, uint32_t code);

#endif
