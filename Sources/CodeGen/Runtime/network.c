#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "failure.h"
#include "measure.h"
#include "options.h"
#include "program.h"
#include "tensor_file.h"

static struct {
  mcc_texts inputs, dims;
  const char *output;
  int64_t repeat, threads;
  bool json, help;
} given = {.repeat = 20};

static const mcc_option options[] = {
    {"--input", MCC_OPTION_TEXTS, &given.inputs, "[NAME=]FILE", "a .npy, or a .npz for all inputs it names", 0, 0},
    {"--output", MCC_OPTION_TEXT, &given.output, "FILE", "where to write the outputs: .npz (one output: .npy)", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

static const mcc_option bench_options[] = {
    {"--input", MCC_OPTION_TEXTS, &given.inputs, "[NAME=]FILE", "inputs as for a run (random numbers and zeros)", 0, 0},
    {"--dim", MCC_OPTION_TEXTS, &given.dims, "NAME=N", "a size that no given input decides (the largest)", 0, 0},
    {"--repeat", MCC_OPTION_INTEGER, &given.repeat, "N", "runs to take the median of (20)", 1, 1000000},
    {"--json", MCC_OPTION_FLAG, &given.json, NULL, "print JSON instead of a table", 0, 0},
    MCC_COMMON_OPTIONS(&given.threads, &given.help),
};

enum {
  OPTION_COUNT = sizeof options / sizeof *options,
  BENCH_OPTION_COUNT = sizeof bench_options / sizeof *bench_options,
  TEXT_SIZE = 512,
};

#define USAGE "--input FILE --output FILE"

/* ---- what the network takes ---- */

static const mcc_function *main_function(void) {
  const mcc_function *function = mcc_find_function("main");
  if (function == NULL) mcc_fail(MCC_EXIT_INTERNAL, "the model has no function 'main'");
  return function;
}

/* Appends to a text of TEXT_SIZE bytes, cutting what does not fit. */
__attribute__((format(printf, 2, 3))) static void add(char *text, const char *format, ...) {
  size_t length = strlen(text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + length, TEXT_SIZE - length, format, arguments);
  va_end(arguments);
}

/* As in f32[N, 3, 2 * H + 1]. */
static const char *describe_tensor(const mcc_function *function, const mcc_tensor *tensor, char *text) {
  text[0] = 0;
  add(text, "%s[", mcc_dtype_name(tensor->dtype));
  for (int32_t axis = 0; axis < tensor->rank; axis++) {
    const mcc_dim *dim = &tensor->dims[axis];
    if (axis > 0) add(text, ", ");
    if (dim->extent != NULL) {
      add(text, "?");
    } else if (dim->multiplier == 0) {
      add(text, "%lld", (long long)dim->offset);
    } else {
      if (dim->multiplier != 1) add(text, "%lld * ", (long long)dim->multiplier);
      add(text, "%s", function->symbols[dim->symbol].name);
      if (dim->offset != 0) add(text, " %c %lld", dim->offset > 0 ? '+' : '-', llabs((long long)dim->offset));
    }
  }
  add(text, "]");
  return text;
}

static const char *describe_array(const mcc_array *array, char *text) {
  text[0] = 0;
  add(text, "%s[", mcc_dtype_name(array->dtype));
  for (int32_t axis = 0; axis < array->rank; axis++) {
    add(text, axis > 0 ? ", %lld" : "%lld", (long long)array->dims[axis]);
  }
  add(text, "]");
  return text;
}

static const char *describe_inputs(const mcc_function *function, char *text) {
  text[0] = 0;
  for (int32_t i = 0; i < function->input_count; i++) add(text, i > 0 ? ", %s" : "%s", function->inputs[i].name);
  return text;
}

/* ---- reading inputs ---- */

/* The arrays that were given, by input of the function; NULL where none was. */
typedef struct arguments {
  const mcc_array **arrays;
  mcc_array_file *files;
  int count;
} arguments;

static void give(arguments *it, const mcc_function *function, const mcc_tensor *input, const mcc_array *array) {
  ptrdiff_t index = input - function->inputs;
  if (it->arrays[index] != NULL) mcc_fail(MCC_EXIT_USAGE, "input '%s' is given twice", input->name);
  it->arrays[index] = array;
}

/* The array of the file that is meant for the input: the only one, or that with its name. */
static const mcc_array *choose_array(const mcc_array_file *file, const mcc_tensor *input) {
  if (file->count == 1) return &file->arrays[0];
  for (int32_t i = 0; i < file->count; i++) {
    if (strcmp(file->arrays[i].name, input->name) == 0) return &file->arrays[i];
  }
  mcc_fail(MCC_EXIT_INPUT, "'%s' holds %d arrays, none of them named '%s'", file->path, file->count, input->name);
}

/* A file without a name: the only input, or every input that it names. */
static void give_unnamed(arguments *it, const mcc_function *function, const mcc_array_file *file) {
  char names[TEXT_SIZE];
  int found = 0;
  for (int32_t i = 0; i < file->count; i++) {
    const mcc_tensor *input = mcc_find_tensor(function->inputs, function->input_count, file->arrays[i].name);
    if (input == NULL) continue;
    give(it, function, input, &file->arrays[i]);
    found++;
  }
  if (found > 0) return;
  if (file->count != 1 || function->input_count != 1) {
    mcc_fail(MCC_EXIT_INPUT, "'%s' names none of the inputs (%s); use --input NAME=FILE", file->path,
             describe_inputs(function, names));
  }
  give(it, function, &function->inputs[0], &file->arrays[0]);
}

static void give_file(arguments *it, const mcc_function *function, const char *text) {
  const char *equals = strchr(text, '='), *path = text;
  const mcc_tensor *input = NULL;
  if (equals != NULL) {
    char *name = strndup(text, (size_t)(equals - text));
    input = mcc_find_tensor(function->inputs, function->input_count, name);
    if (input != NULL) path = equals + 1;
    if (input == NULL && access(text, F_OK) != 0) {
      char names[TEXT_SIZE];
      mcc_fail(MCC_EXIT_USAGE, "the network has no input '%s'; its inputs: %s", name, describe_inputs(function, names));
    }
    free(name);
  }
  mcc_array_file *file = &it->files[it->count++];
  *file = mcc_array_file_read(path);
  if (input != NULL) {
    give(it, function, input, choose_array(file, input));
  } else {
    give_unnamed(it, function, file);
  }
}

static arguments read_inputs(const mcc_function *function) {
  arguments it = {0};
  it.arrays = mcc_allocate((size_t)function->input_count * sizeof *it.arrays);
  it.files = mcc_allocate((size_t)given.inputs.count * sizeof *it.files);
  for (int32_t i = 0; i < function->input_count; i++) it.arrays[i] = NULL;
  for (int i = 0; i < given.inputs.count; i++) give_file(&it, function, given.inputs.items[i]);
  return it;
}

static void free_inputs(arguments *it) {
  for (int i = 0; i < it->count; i++) mcc_array_file_free(&it->files[i]);
  free(it->files);
  free(it->arrays);
}

/* ---- sizes ---- */

/* The value that makes the dimension `size`, or -1. */
static int64_t solve(const mcc_dim *dim, int64_t size) {
  int64_t rest = size - dim->offset;
  return rest >= 0 && rest % dim->multiplier == 0 ? rest / dim->multiplier : -1;
}

/* Binds the symbols in the input's shape (-1: not yet bound) and checks the shape. */
static void bind_input(const mcc_function *function, const mcc_tensor *input, const mcc_array *array,
                       int64_t *symbols) {
  char expected[TEXT_SIZE], found[TEXT_SIZE];
  bool fits = array->rank == input->rank;
  for (int32_t axis = 0; fits && axis < input->rank; axis++) {
    const mcc_dim *dim = &input->dims[axis];
    int64_t size = array->dims[axis];
    if (dim->multiplier == 0) {
      fits = size == dim->offset;
      continue;
    }
    const mcc_symbol *symbol = &function->symbols[dim->symbol];
    int64_t value = solve(dim, size), bound = symbols[dim->symbol];
    if (value < symbol->minimum || value > symbol->maximum) {
      mcc_fail(MCC_EXIT_INPUT, "input '%s' is %s where %s is expected, with '%s' from %lld to %lld", input->name,
               describe_array(array, found), describe_tensor(function, input, expected), symbol->name,
               (long long)symbol->minimum, (long long)symbol->maximum);
    }
    if (bound >= 0 && bound != value) {
      mcc_fail(MCC_EXIT_INPUT, "input '%s' is %s, so '%s' is %lld; another input or axis makes it %lld", input->name,
               describe_array(array, found), symbol->name, (long long)value, (long long)bound);
    }
    symbols[dim->symbol] = value;
  }
  if (!fits) {
    mcc_fail(MCC_EXIT_INPUT, "input '%s' is %s where %s is expected", input->name, describe_array(array, found),
             describe_tensor(function, input, expected));
  }
}

static void bind_inputs(const mcc_function *function, const arguments *it, int64_t *symbols) {
  for (int32_t i = 0; i < function->symbol_count; i++) symbols[i] = -1;
  for (int32_t i = 0; i < function->input_count; i++) {
    if (it->arrays[i] != NULL) bind_input(function, &function->inputs[i], it->arrays[i], symbols);
  }
}

static void load_inputs(const mcc_function *function, const arguments *it, uint8_t *arena) {
  for (int32_t i = 0; i < function->input_count; i++) {
    const mcc_tensor *input = &function->inputs[i];
    if (it->arrays[i] != NULL) mcc_array_convert(it->arrays[i], input->dtype, arena + input->offset, input->name);
  }
}

/* ---- a run ---- */

static void write_outputs(const mcc_function *function, const int64_t *symbols, const uint8_t *arena,
                          mcc_array_writer *writer) {
  for (int32_t i = 0; i < function->output_count; i++) {
    const mcc_tensor *output = &function->outputs[i];
    int64_t dims[MCC_MAX_RANK];
    for (int32_t axis = 0; axis < output->rank; axis++) dims[axis] = mcc_dim_size(&output->dims[axis], symbols);
    mcc_array_writer_begin(writer, output->name, output->dtype, output->rank, dims);
    mcc_array_writer_append(writer, arena + output->offset, mcc_tensor_count(output, symbols));
    mcc_array_writer_end(writer);
  }
  mcc_array_writer_close(writer);
}

static int run(const mcc_function *function) {
  if (given.inputs.count == 0 && function->input_count > 0) mcc_fail(MCC_EXIT_USAGE, "option '--input' is missing");
  if (given.output == NULL) mcc_fail(MCC_EXIT_USAGE, "option '--output' is missing");
  mcc_bundle bundle = mcc_bundle_map();
  arguments inputs = read_inputs(function);
  int64_t symbols[MCC_MAX_SYMBOLS];
  for (int32_t i = 0; i < function->input_count; i++) {
    if (inputs.arrays[i] == NULL) mcc_fail(MCC_EXIT_INPUT, "input '%s' is missing", function->inputs[i].name);
  }
  bind_inputs(function, &inputs, symbols);
  mcc_session session = mcc_session_start(bundle, given.threads);
  load_inputs(function, &inputs, session.arena);
  free_inputs(&inputs);
  mcc_array_writer *writer = mcc_array_writer_open(given.output);
  mcc_session_call(&session, function, symbols);
  write_outputs(function, symbols, session.arena, writer);
  mcc_session_end(&session);
  return 0;
}

/* ---- bench ---- */

/* Fills a float tensor with numbers from -1 to 1, any other with zeros. */
static void fill_input(const mcc_tensor *input, const int64_t *symbols, uint8_t *arena) {
  int64_t count = mcc_tensor_count(input, symbols);
  bool is_float = input->dtype == MCC_F64 || input->dtype == MCC_F32 || input->dtype == MCC_F16 ||
                  input->dtype == MCC_BF16;
  memset(arena + input->offset, 0, (size_t)(count * mcc_dtype_size(input->dtype)));
  if (!is_float) return;
  float *numbers = mcc_allocate((size_t)count * sizeof *numbers);
  uint64_t state = 1;
  for (int64_t i = 0; i < count; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    numbers[i] = (float)((double)(int64_t)state * 0x1p-63);
  }
  mcc_array array = {.dtype = MCC_F32, .count = count, .data = (const uint8_t *)numbers};
  mcc_array_convert(&array, input->dtype, arena + input->offset, input->name);
  free(numbers);
}

/* Gives the symbols that no input bound the sizes of --dim, or their largest. */
static void bind_rest(const mcc_function *function, int64_t *symbols) {
  for (int k = 0; k < given.dims.count; k++) {
    const char *text = given.dims.items[k], *equals = strchr(text, '=');
    char *end = NULL, *name = strndup(text, equals != NULL ? (size_t)(equals - text) : strlen(text));
    int index = mcc_find_symbol(function, name);
    if (index < 0 || equals == NULL) {
      mcc_fail(MCC_EXIT_USAGE, "option '--dim' takes NAME=N with a size of the network, not '%s'", text);
    }
    const mcc_symbol *symbol = &function->symbols[index];
    long long value = strtoll(equals + 1, &end, 10);
    if (end == equals + 1 || *end != 0 || value < symbol->minimum || value > symbol->maximum) {
      mcc_fail(MCC_EXIT_USAGE, "the size '%s' goes from %lld to %lld, not '%s'", name, (long long)symbol->minimum,
               (long long)symbol->maximum, equals + 1);
    }
    if (symbols[index] >= 0 && symbols[index] != value) {
      mcc_fail(MCC_EXIT_USAGE, "the size '%s' is given twice: %lld and %lld", name, (long long)symbols[index], value);
    }
    symbols[index] = value;
    free(name);
  }
  for (int32_t i = 0; i < function->symbol_count; i++) {
    if (symbols[i] < 0) symbols[i] = function->symbols[i].maximum;
  }
}

static int bench(const mcc_function *function) {
  mcc_bundle bundle = mcc_bundle_map();
  arguments inputs = read_inputs(function);
  int64_t symbols[MCC_MAX_SYMBOLS];
  bind_inputs(function, &inputs, symbols);
  bind_rest(function, symbols);
  mcc_session session = mcc_session_start(bundle, given.threads);
  load_inputs(function, &inputs, session.arena);
  for (int32_t i = 0; i < function->input_count; i++) {
    if (inputs.arrays[i] == NULL) fill_input(&function->inputs[i], symbols, session.arena);
  }
  free_inputs(&inputs);

  size_t repeat = (size_t)given.repeat;
  double *times = mcc_allocate(repeat * sizeof *times);
  mcc_session_call(&session, function, symbols);
  mcc_profile_restart(session.profile, function);
  for (size_t i = 0; i < repeat; i++) {
    double start = mcc_seconds();
    mcc_session_call(&session, function, symbols);
    times[i] = (mcc_seconds() - start) * 1e3;
  }
  double median = mcc_median(times, repeat);
  int threads = mcc_pool_count(session.pool);
  if (given.json) {
    printf("{\"milliseconds\": {\"median\": %.6g, \"minimum\": %.6g}, \"repeat\": %zu, \"threads\": %d, "
           "\"planned_bytes\": %lld, \"resident_bytes\": %lld}\n",
           median, times[0], repeat, threads, (long long)mcc_planned_bytes(), (long long)mcc_resident_bytes());
  } else {
    printf("median  %.4g ms\nminimum %.4g ms\n%d thread%s, %zu runs\n", median, times[0], threads,
           threads == 1 ? "" : "s", repeat);
  }
  mcc_flush_output();
  free(times);
  mcc_session_end(&session);
  return 0;
}

/* ---- help ---- */

static void print_tensors(const mcc_function *function, const char *title, const mcc_tensor *tensors, int32_t count) {
  char text[TEXT_SIZE];
  printf("\n%s:\n", title);
  for (int32_t i = 0; i < count; i++) {
    printf("  %-24s %s\n", tensors[i].name, describe_tensor(function, &tensors[i], text));
  }
}

static void print_network(const mcc_function *function) {
  print_tensors(function, "inputs", function->inputs, function->input_count);
  print_tensors(function, "outputs", function->outputs, function->output_count);
  for (int32_t i = 0; i < function->symbol_count; i++) {
    const mcc_symbol *symbol = &function->symbols[i];
    printf("%s  %-24s %lld to %lld\n", i == 0 ? "\nsizes:\n" : "", symbol->name, (long long)symbol->minimum,
           (long long)symbol->maximum);
  }
}

void mcc_print_default_options(void) {
  mcc_options_print(options, OPTION_COUNT);
  print_network(main_function());
}

/* Reads a command line without arguments beside its options; true if it asks for help, which begins as in `usage`. */
static bool parse(const mcc_option *table, int count, int argc, char **argv, const char *usage) {
  mcc_arguments rest = mcc_options_parse(table, count, argc, argv);
  if (given.help) {
    printf("usage: %s %s\n\noptions:\n", mcc_model.name, usage);
    mcc_options_print(table, count);
    print_network(main_function());
    mcc_flush_output();
    return true;
  }
  if (rest.count > 0) mcc_fail(MCC_EXIT_USAGE, "unexpected argument '%s'", rest.items[0]);
  free(rest.items);
  return false;
}

static int command_run(int argc, char **argv) {
  const char *usage = "[run] " USAGE "\n\nComputes the outputs for the inputs in files.";
  return parse(options, OPTION_COUNT, argc, argv, usage) ? 0 : run(main_function());
}

static int command_bench(int argc, char **argv) {
  const char *usage = "bench [options]\n\nMeasures the time of a run.";
  return parse(bench_options, BENCH_OPTION_COUNT, argc, argv, usage) ? 0 : bench(main_function());
}

const mcc_command mcc_commands[] = {
    {"run", "compute the outputs for given inputs (the default)", command_run},
    {"bench", "measure the speed", command_bench},
};
const int mcc_command_count = sizeof mcc_commands / sizeof *mcc_commands;
const char *const mcc_default_arguments = USAGE;
