/* Characters, and the words that byte pair encoding works within. */
#ifndef MCC_TOKENIZER_SPLIT_H
#define MCC_TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MCC_SPLIT_NONE,
  MCC_SPLIT_GPT2,
  MCC_SPLIT_LLAMA3,
  MCC_SPLIT_QWEN2,
  MCC_SPLIT_METASPACE,
  MCC_SPLIT_KINDS,
};

/*
 * Length in bytes of the UTF-8 character at the start of text[0 ..< size], size > 0, and its code point. Bytes that are
 * no valid UTF-8 count as one character of one byte each, with code -1.
 */
size_t mcc_character(const char *text, size_t size, int32_t *code);

/* Whether the character has the Unicode property White_Space. */
bool mcc_is_white_space(int32_t code);

/* Length in bytes of the first word of text[0 ..< size], size > 0. */
size_t mcc_first_word(int split, const char *text, size_t size);

#endif
