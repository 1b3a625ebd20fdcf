#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "tokenizer_parts.h"
#include "tokenizer_split.h"
#include "unicode.h"
#include "unicode_classes.h"

/* ---- words ---- */

static void encode_by_model(mcc_tokenizer *it, const char *word, size_t size, mcc_ids *ids) {
  switch (it->header.model) {
    case MCC_MODEL_WORD_PIECES: mcc_encode_pieces(it, word, size, ids); break;
    case MCC_MODEL_UNIGRAM: mcc_encode_unigram(it, word, size, ids); break;
    case MCC_MODEL_WORDS: {
      int32_t id = mcc_find_token(it, word, size);
      if (id < 0) id = it->header.unknown;
      if (mcc_is_token(it, id)) mcc_ids_append(ids, id);
      break;
    }
    default: mcc_encode_merges(it, word, size, ids); break;
  }
}

static uint64_t hash_word(const char *word, size_t size) {
  uint64_t parts[4] = {size};
  memcpy((char *)parts + 4, word, size);
  uint64_t hash = parts[0] * 0x9e3779b97f4a7c15u ^ parts[1];
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u ^ parts[2];
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u ^ parts[3];
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
  return hash >> 32;
}

/* Short words come again and again: their tokens are kept. */
static void encode_word(mcc_tokenizer *it, const char *word, size_t size, mcc_ids *ids) {
  if (size == 0) return;
  if (size > MCC_CACHED_BYTES) {
    encode_by_model(it, word, size, ids);
    return;
  }
  mcc_cached_word *entry = &it->cache[hash_word(word, size) % MCC_CACHED_WORDS];
  if (entry->length == size && memcmp(entry->text, word, size) == 0) {
    for (int i = 0; i < entry->count; i++) mcc_ids_append(ids, entry->ids[i]);
    return;
  }
  int64_t before = ids->count;
  encode_by_model(it, word, size, ids);
  int64_t count = ids->count - before;
  if (count > MCC_CACHED_IDS) return;
  entry->length = (uint16_t)size;
  entry->count = (uint16_t)count;
  memcpy(entry->text, word, size);
  if (count > 0) memcpy(entry->ids, ids->data + before, (size_t)count * sizeof *ids->data);
}

/* Where merges cannot cross the place before U+2581, the text in between is encoded as a word. */
static void encode_last(mcc_tokenizer *it, const char *text, size_t size, mcc_ids *ids) {
  if (!mcc_tokenizer_has(it, MCC_TOKENIZER_SPACE_WORDS)) {
    encode_word(it, text, size, ids);
    return;
  }
  size_t start = 0;
  bool inside = false; /* behind another character than U+2581 */
  for (size_t i = 0; i < size;) {
    bool space = (uint8_t)text[i] == 0xE2 && size - i >= 3 && memcmp(text + i, "\xE2\x96\x81", 3) == 0;
    if (space && inside) {
      encode_word(it, text + start, i - start, ids);
      start = i;
    }
    inside = !space;
    i += space ? 3 : 1;
  }
  encode_word(it, text + start, size - start, ids);
}

/* ---- splitters ---- */

static void split(mcc_tokenizer *it, uint32_t index, const char *text, size_t size, bool at_start, mcc_ids *ids);

/* Cuts the text at what the rule finds. Segments are what was found and what is between; `held` waits for the next. */
static void split_by_rule(mcc_tokenizer *it, uint32_t index, const char *text, size_t size, bool at_start,
                          mcc_ids *ids) {
  const mcc_step *step = it->splitters + index;
  uint32_t behavior = step->a;
  size_t position = 0, found_start = 0, found_end = 0, held = 0;
  bool more = true, has_match = false, previous_found = false, first = true;
  while (position < size) {
    if (!has_match && more) {
      more = mcc_find_match(it, step, text, size, position, &found_start, &found_end);
      has_match = more;
    }
    bool found = has_match && found_start == position;
    size_t end = found ? found_end : has_match ? found_start : size;
    if (found) has_match = false;
    found = found != (step->b != 0);
    /* text[held ..< position] waits; the segment is text[position ..< end]. */
    bool joins = false;
    switch (behavior) {
      case MCC_SPLIT_WITH_PREVIOUS: joins = found && !previous_found; break;
      case MCC_SPLIT_WITH_NEXT: joins = !found && previous_found; break;
      case MCC_SPLIT_CONTIGUOUS: joins = found == previous_found; break;
      default: break;
    }
    if (!first && !joins) {
      split(it, index + 1, text + held, position - held, at_start && held == 0, ids);
      held = position;
    }
    if (behavior == MCC_SPLIT_REMOVED && found) {
      held = end;
      first = true;
    } else {
      first = false;
    }
    previous_found = found;
    position = end;
  }
  if (held < size) split(it, index + 1, text + held, size - held, at_start && held == 0, ids);
}

static void split_at_spaces(mcc_tokenizer *it, uint32_t index, const char *text, size_t size, bool at_start,
                            mcc_ids *ids) {
  const mcc_step *step = it->splitters + index;
  const char *space = it->strings + step->content;
  size_t length = step->content_length;
  mcc_text *word = &it->words[index];
  word->count = 0;
  bool begins = text[0] == ' ' || (size >= length && memcmp(text, space, length) == 0);
  if (!begins && (step->a == 2 || (step->a == 1 && at_start))) mcc_text_append(word, space, length);
  for (size_t i = 0; i < size;) {
    const char *next = memchr(text + i, ' ', size - i);
    size_t end = next != NULL ? (size_t)(next - text) : size;
    mcc_text_append(word, text + i, end - i);
    if (end < size) mcc_text_append(word, space, length);
    i = end + (end < size ? 1 : 0);
  }
  split(it, index + 1, word->data, word->count, at_start, ids);
}

/* Gives a word to the splitter of that index; behind the last one is the model. */
static void split(mcc_tokenizer *it, uint32_t index, const char *text, size_t size, bool at_start, mcc_ids *ids) {
  if (size == 0) return;
  if (index == it->header.splitters.count) {
    encode_last(it, text, size, ids);
    return;
  }
  mcc_text *word = &it->words[index];
  switch (it->splitters[index].kind) {
    case MCC_SPLIT_RULE: split_by_rule(it, index, text, size, at_start, ids); break;
    case MCC_SPLIT_SPACES: split_at_spaces(it, index, text, size, at_start, ids); break;
    case MCC_SPLIT_PREFIX:
      if (text[0] == ' ') {
        split(it, index + 1, text, size, at_start, ids);
        break;
      }
      word->count = 0;
      mcc_text_append(word, " ", 1);
      mcc_text_append(word, text, size);
      split(it, index + 1, word->data, word->count, at_start, ids);
      break;
    default:
      word->count = 0;
      for (size_t i = 0; i < size; i++) {
        char bytes[4];
        mcc_text_append(word, bytes, mcc_write_character(mcc_character_of_byte((uint8_t)text[i]), bytes));
      }
      split(it, index + 1, word->data, word->count, at_start, ids);
      break;
  }
}

void mcc_encode_normalized(mcc_tokenizer *it, const char *text, size_t size, bool at_start, mcc_ids *ids) {
  split(it, 0, text, size, at_start, ids);
}

/* ---- tokens recognised as a whole ---- */

static int compare_bytes(const char *a, size_t a_length, const char *b, size_t b_length) {
  int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
  return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_added(const void *a, const void *b) {
  const mcc_added_text *left = a, *right = b;
  int order = compare_bytes(left->text, left->length, right->text, right->length);
  return order != 0 ? order : (left->id > right->id) - (left->id < right->id);
}

/* Sorts the set and leaves out empty and repeated texts. */
static void finish_set(mcc_added_set *set) {
  if (set->count > 0) qsort(set->items, set->count, sizeof *set->items, compare_added);
  size_t kept = 0;
  for (size_t i = 0; i < set->count; i++) {
    mcc_added_text item = set->items[i];
    if (item.length == 0) continue;
    const mcc_added_text *last = kept > 0 ? &set->items[kept - 1] : NULL;
    if (last != NULL && last->length == item.length && memcmp(last->text, item.text, item.length) == 0) continue;
    set->items[kept++] = item;
    set->starts[(uint8_t)item.text[0]] = true;
  }
  set->count = kept;
}

/* Sorts the tokens that are recognised as a whole, normalized where need be. */
static void prepare_added(mcc_tokenizer *it) {
  uint32_t count = it->header.added.count;
  it->raw.items = mcc_allocate_zeros(count + 1, sizeof *it->raw.items);
  it->normalized.items = mcc_allocate_zeros(count + 1, sizeof *it->normalized.items);
  for (uint32_t i = 0; i < count; i++) {
    const mcc_added *added = it->added + i;
    mcc_added_text item = {it->strings + added->text, added->length, added->id, added->flags};
    mcc_added_set *set = (added->flags & MCC_ADDED_NORMALIZED) != 0 ? &it->normalized : &it->raw;
    if (set == &it->normalized && it->header.normalizers.count > 0) {
      size_t size = added->length;
      const char *text = mcc_normalize(it, item.text, &size, false);
      char *copy = mcc_allocate(size + 1);
      memcpy(copy, text, size);
      item.text = copy;
      item.length = (uint32_t)size;
      mcc_text_append(&it->added_texts, &copy, sizeof copy);
    }
    set->items[set->count++] = item;
  }
  finish_set(&it->raw);
  finish_set(&it->normalized);
}

void mcc_prepare(mcc_tokenizer *it) {
  if (it->prepared) return;
  it->cache = mcc_allocate_zeros(MCC_CACHED_WORDS, sizeof *it->cache);
  it->words = mcc_allocate_zeros(it->header.splitters.count + 1, sizeof *it->words);
  prepare_added(it);
  it->prepared = true;
}

/* The longest token of the set that the text starts with, or NULL. */
static const mcc_added_text *match_added(const mcc_added_set *set, const char *text, size_t size) {
  if (!set->starts[(uint8_t)text[0]]) return NULL;
  /* items[low ..< high] begin with the first `depth` bytes of the text. */
  size_t low = 0, high = set->count;
  const mcc_added_text *found = NULL;
  for (size_t depth = 0; low < high; depth++) {
    if (set->items[low].length == depth) found = &set->items[low++];
    if (depth == size) break;
    uint8_t byte = (uint8_t)text[depth];
    size_t bounds[2];
    for (int side = 0; side < 2; side++) {
      size_t first = low, last = high;
      while (first < last) {
        size_t middle = (first + last) / 2;
        uint8_t other = (uint8_t)set->items[middle].text[depth];
        if (side == 0 ? other < byte : other <= byte) {
          first = middle + 1;
        } else {
          last = middle;
        }
      }
      bounds[side] = first;
    }
    low = bounds[0];
    high = bounds[1];
  }
  return found;
}

/* Start of the last character of text[start ..< end]. */
static size_t last_character(const char *text, size_t start, size_t end, int32_t *code) {
  size_t at = end - 1;
  while (at > start && end - at < 4 && ((uint8_t)text[at] & 0xC0) == 0x80) at--;
  if (mcc_character(text + at, end - at, code) == end - at) return at;
  *code = -1;
  return end - 1;
}

static size_t white_space_before(const char *text, size_t start, size_t end) {
  while (end > start) {
    int32_t code;
    size_t at = last_character(text, start, end, &code);
    if (!mcc_is_white_space(code)) break;
    end = at;
  }
  return end;
}

static size_t white_space_after(const char *text, size_t position, size_t size) {
  while (position < size) {
    int32_t code;
    size_t length = mcc_character(text + position, size - position, &code);
    if (!mcc_is_white_space(code)) break;
    position += length;
  }
  return position;
}

/* Whether there is no letter or digit on either side. */
static bool stands_alone(const char *text, size_t size, size_t start, size_t end) {
  int32_t code;
  if (start > 0) {
    last_character(text, 0, start, &code);
    if ((mcc_class(code) & MCC_WORD) != 0) return false;
  }
  if (end < size) {
    mcc_character(text + end, size - end, &code);
    if ((mcc_class(code) & MCC_WORD) != 0) return false;
  }
  return true;
}

static void encode_between(mcc_tokenizer *it, bool normalized, const char *text, size_t size, bool at_start,
                           mcc_ids *ids);

/* Cuts out the tokens of the set; what is between them goes on. */
static void encode_with(mcc_tokenizer *it, bool normalized, const char *text, size_t size, bool at_start,
                        mcc_ids *ids) {
  const mcc_added_set *set = normalized ? &it->normalized : &it->raw;
  size_t start = 0;
  for (size_t i = 0; i < size && set->count > 0;) {
    const mcc_added_text *found = match_added(set, text + i, size - i);
    if (found == NULL) {
      i++;
      continue;
    }
    size_t begin = i, end = i + found->length;
    i = end;
    if ((found->flags & MCC_ADDED_WORD) != 0 && !stands_alone(text, size, begin, end)) continue;
    if ((found->flags & MCC_ADDED_STRIPS_LEFT) != 0) begin = white_space_before(text, start, begin);
    if ((found->flags & MCC_ADDED_STRIPS_RIGHT) != 0) end = white_space_after(text, end, size);
    if (begin > start) encode_between(it, normalized, text + start, begin - start, at_start && start == 0, ids);
    mcc_ids_append(ids, (int32_t)found->id);
    start = end;
    if (i < end) i = end;
  }
  if (size > start) encode_between(it, normalized, text + start, size - start, at_start && start == 0, ids);
}

static void encode_between(mcc_tokenizer *it, bool normalized, const char *text, size_t size, bool at_start,
                           mcc_ids *ids) {
  if (normalized) {
    mcc_encode_normalized(it, text, size, at_start, ids);
    return;
  }
  text = mcc_normalize(it, text, &size, at_start);
  encode_with(it, true, text, size, at_start && !it->stripped, ids);
}

void mcc_tokenizer_encode(mcc_tokenizer *it, const char *text, size_t size, bool with_template, mcc_ids *ids) {
  mcc_prepare(it);
  for (uint32_t i = 0; with_template && i < it->header.prefix.count; i++) mcc_ids_append(ids, it->prefix[i]);
  encode_with(it, false, text, size, true, ids);
  for (uint32_t i = 0; with_template && i < it->header.suffix.count; i++) mcc_ids_append(ids, it->suffix[i]);
}

int64_t mcc_tokenizer_encode_at_most(mcc_tokenizer *it, const char *text, size_t size, int64_t limit, mcc_ids *ids) {
  int64_t before = ids->count;
  mcc_tokenizer_encode(it, text, size, true, ids);
  int64_t count = ids->count - before, behind = it->header.suffix.count;
  if (count <= limit) return count;
  ids->count = before + limit;
  for (int64_t i = 0; i < behind && i < limit; i++) ids->data[ids->count - 1 - i] = it->suffix[behind - 1 - i];
  return count;
}
