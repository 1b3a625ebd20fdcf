import Base
import CodeGen
import Glibc
import TestSupport
import Testing

/// A program made of the fixed runtime and a hand-written `model.c`, for tests of the runtime.
struct RuntimeProgram: Sendable {
  /// The executable with its bundle.
  let path: String
  private let folder: TemporaryFolder

  /// Attaches a bundle to compiled code.
  init(
    _ code: RuntimeCode, weights: [Float] = [], tokenizer: [UInt8] = [], manifest: String = #"{"source": "a test"}"#,
    settings: String = ""
  ) throws {
    folder = try TemporaryFolder()
    path = folder.path("program")
    let bytes = weights.withUnsafeBytes { Array($0) }
    let contents = Bundle.Contents(
      identity: RuntimeCode.identity, weightsBytes: bytes.count, tokenizer: tokenizer, manifest: Array(manifest.utf8),
      settings: Array(settings.utf8))
    let file = try AtomicFile(path: path, permissions: 0o755)
    try file.append(try MappedFile.contents(path: code.path))
    try file.pad(to: Bundle.page)
    try Bundle.append(contents, to: file) { offset in try bytes.withUnsafeBytes { try file.write($0, at: offset) } }
    try file.commit()
  }

  /// Runs the program.
  func run(_ arguments: [String], input: String = "") throws -> Command.Outcome {
    try Self.run(path, arguments, input: input)
  }

  /// Runs a file that was just written. A child that another thread has forked but not yet replaced may still hold it
  /// open for writing, for a moment.
  static func run(_ path: String, _ arguments: [String], input: String = "") throws -> Command.Outcome {
    for _ in 0..<50 {
      do {
        return try Command.run(path, arguments, input: Array(input.utf8), timeout: 60)
      } catch let error as CompileError where error.message.hasSuffix("text file busy") { usleep(20_000) }
    }
    return try Command.run(path, arguments, input: Array(input.utf8), timeout: 60)
  }

  /// Runs a shell command in which `$0` is the program.
  func shell(_ script: String) throws -> Command.Outcome {
    // A first run waits until the file may be executed.
    _ = try run(["--version"])
    return try Command.run("/bin/bash", ["-c", script, path], timeout: 60)
  }

  /// Runs the program, which must end well, and gives the numbers on its standard output.
  func ids(_ arguments: [String], sourceLocation: SourceLocation = #_sourceLocation) throws -> [Int] {
    // One thread unless the test is about threads: on a busy machine waiting for each other takes the time.
    let threads = arguments.contains("--threads") ? [] : ["--threads", "1"]
    let outcome = try run(arguments + threads + ["--print-ids"])
    #expect(outcome.exitCode == 0, "\(outcome.errors)", sourceLocation: sourceLocation)
    return outcome.text.split(whereSeparator: { $0 == " " || $0 == "\n" }).compactMap { Int($0) }
  }

  /// Expects that the program refuses the arguments with one sentence that contains `part`.
  func expectRefusal(
    _ arguments: [String], exitCode: Int32, _ part: String = "", sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try run(arguments)
    #expect(outcome.exitCode == exitCode, "\(arguments): \(outcome.errors)", sourceLocation: sourceLocation)
    let lines = outcome.errors.split(separator: "\n")
    #expect(
      lines.count == 1 && outcome.errors.hasPrefix("error: "), "\(outcome.errors)", sourceLocation: sourceLocation)
    #expect(part.isEmpty || outcome.errors.contains(part), "\(outcome.errors)", sourceLocation: sourceLocation)
  }
}

/// Compiled code without a bundle.
struct RuntimeCode: Sendable {
  static let identity: UInt64 = 0x1234_5678_9ABC_DEF0

  let path: String
  private let folder: TemporaryFolder

  /// Compiles the runtime with `model` as `model.c`. No warning is allowed.
  init(model: String, face: GeneratedSources.Face, compiler: String, flags: [String] = ["-O1"]) throws {
    folder = try TemporaryFolder()
    path = folder.path("code")
    var sources = ["model.c"]
    try folder.write("model.c", model)
    for file in RuntimeSources.files(of: face) {
      try folder.write(file.name, file.text)
      if file.name.hasSuffix(".c") { sources.append(file.name) }
    }
    let outcome = try Command.run(
      compiler,
      ["-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Werror"] + flags + ["-o", path]
        + sources.map { folder.path($0) } + ["-lm", "-lpthread"])
    guard outcome.exitCode == 0 else {
      throw CompileError(.toolchain, "\(compiler) refused the runtime", notes: [outcome.errors])
    }
  }

  /// The C compilers of this machine, by name.
  static let compilers = ["clang", "gcc"].filter { (try? Command.run($0, ["--version"]))?.exitCode == 0 }

  private static func first(_ model: String, _ face: GeneratedSources.Face) -> Result<RuntimeCode, any Error> {
    Result {
      guard let compiler = compilers.first else { throw CompileError(.toolchain, "there is no C compiler") }
      return try RuntimeCode(model: model, face: face, compiler: compiler)
    }
  }

  /// The toy models below, compiled once.
  static let languageModel = first(toyLanguageModel, .languageModel)
  static let network = first(toyNetwork, .network)

  /// A language model of 261 tokens, 512 positions and calls of at most 8 tokens. Its weights are a mode and a table
  /// of 261 x 261 logits. In mode 0 the row is the last token, in mode 1 a hash of all tokens with their positions, in
  /// mode 2 as in mode 0 but 50 ms later.
  static let toyLanguageModel = """
    #include "mcc.h"

    #include <string.h>
    #include <unistd.h>

    enum { V = 261, CONTEXT = 512, MOST = 8, POSITION = 64, LOGITS = 128, CACHE = 8704 };

    static void forward(mcc_thread *t, const uint8_t *weights, uint8_t *arena, int64_t tokens, int64_t rows) {
      const int32_t *ids = (const int32_t *)arena;
      const float *table = (const float *)weights + 1;
      int mode = (int)*(const float *)weights;
      int32_t *cache = (int32_t *)(arena + CACHE);
      int32_t position;
      memcpy(&position, arena + POSITION, sizeof position);
      mcc_range own = mcc_partition(t, tokens);
      for (int64_t i = own.begin; i < own.end; i++) cache[position + i] = ids[i];
      if (mode == 2 && t->index == 0) usleep(50000);
      mcc_barrier(t);
      own = mcc_partition(t, V);
      for (int64_t r = 0; r < rows; r++) {
        int64_t last = position + tokens - rows + r;
        uint32_t row = (uint32_t)cache[last];
        if (mode == 1) {
          row = 0;
          for (int64_t i = 0; i <= last; i++) row = (row * 31 + (uint32_t)cache[i] + 1) % 1000003;
          row %= V;
        }
        float *out = (float *)(arena + LOGITS) + r * V;
        for (int64_t v = own.begin; v < own.end; v++) out[v] = table[(int64_t)row * V + v];
      }
    }

    static void decode(mcc_thread *t, const uint8_t *weights, uint8_t *arena, const int64_t *symbols) {
      (void)symbols;
      forward(t, weights, arena, 1, 1);
    }

    static void prefill(mcc_thread *t, const uint8_t *weights, uint8_t *arena, const int64_t *symbols) {
      forward(t, weights, arena, symbols[0], symbols[1]);
    }

    static const mcc_symbol symbols[] = {{"T", 1, MOST}, {"L", 1, MOST}};
    static const mcc_tensor decode_inputs[] = {
        {.name = "tokens", .dtype = MCC_I32, .rank = 1, .dims = {{.offset = 1}}},
        {.name = "position", .dtype = MCC_I32, .rank = 1, .dims = {{.offset = 1}}, .offset = POSITION},
    };
    static const mcc_tensor prefill_inputs[] = {
        {.name = "tokens", .dtype = MCC_I32, .rank = 1, .dims = {{.multiplier = 1}}},
        {.name = "position", .dtype = MCC_I32, .rank = 1, .dims = {{.offset = 1}}, .offset = POSITION},
    };
    static const mcc_tensor outputs[] = {
        {.name = "logits", .dtype = MCC_F32, .rank = 2, .dims = {{.multiplier = 1, .symbol = 1}, {.offset = V}},
         .offset = LOGITS},
    };
    static const mcc_function functions[] = {
        {"decode", 0, 2, 1, NULL, decode_inputs, outputs, decode, 0, 0},
        {"prefill", 2, 2, 1, symbols, prefill_inputs, outputs, prefill, 0, 0},
    };
    static const char *const features[] = {NULL};
    static const mcc_level levels[] = {{"any", features}};
    const mcc_program mcc_model = {
        .name = "toy", .compiler = "mcc test", .identity = 0x123456789abcdef0u, .levels = levels, .level_count = 1,
        .function_count = 2, .functions = functions, .weights_bytes = 4 * (V * V + 1),
        .arena_bytes = CACHE + 4 * CONTEXT, .context = CONTEXT, .vocabulary = V, .bytes_per_token = 1000,
        .cache_bytes_per_position = 10};

    """

  /// A network with inputs x: f32[N, 3], k: i32[2 * M + 1] and outputs sum: f32[N] (of a row, plus the weight),
  /// twice: f32[N, 3], outer: i64[N * M] (100 n + k[2 m + 1]).
  static let toyNetwork = """
    #include "mcc.h"

    enum { X = 0, K = 1024, SUM = 2048, TWICE = 3072, OUTER = 4096 };

    static int64_t outer_size(const int64_t *symbols) { return symbols[0] * symbols[1]; }

    static void run(mcc_thread *t, const uint8_t *weights, uint8_t *arena, const int64_t *symbols) {
      const float *x = (const float *)(arena + X), bias = *(const float *)weights;
      const int32_t *k = (const int32_t *)(arena + K);
      mcc_range own = mcc_partition(t, symbols[0]);
      for (int64_t n = own.begin; n < own.end; n++) {
        ((float *)(arena + SUM))[n] = bias + x[3 * n] + x[3 * n + 1] + x[3 * n + 2];
        for (int j = 0; j < 3; j++) ((float *)(arena + TWICE))[3 * n + j] = 2 * x[3 * n + j];
        for (int64_t m = 0; m < symbols[1]; m++) {
          ((int64_t *)(arena + OUTER))[n * symbols[1] + m] = 100 * n + k[2 * m + 1];
        }
      }
    }

    static const mcc_symbol symbols[] = {{"N", 1, 16}, {"M", 0, 8}};
    static const mcc_tensor inputs[] = {
        {.name = "x", .dtype = MCC_F32, .rank = 2, .dims = {{.multiplier = 1}, {.offset = 3}}, .offset = X},
        {.name = "k", .dtype = MCC_I32, .rank = 1, .dims = {{.offset = 1, .multiplier = 2, .symbol = 1}}, .offset = K},
    };
    static const mcc_tensor outputs[] = {
        {.name = "sum", .dtype = MCC_F32, .rank = 1, .dims = {{.multiplier = 1}}, .offset = SUM},
        {.name = "twice", .dtype = MCC_F32, .rank = 2, .dims = {{.multiplier = 1}, {.offset = 3}}, .offset = TWICE},
        {.name = "outer", .dtype = MCC_I64, .rank = 1, .dims = {{.extent = outer_size}}, .offset = OUTER},
    };
    static const mcc_function functions[] = {{"main", 2, 2, 3, symbols, inputs, outputs, run, 0, 0}};
    static const char *const features[] = {NULL};
    static const mcc_level levels[] = {{"any", features}};
    const mcc_program mcc_model = {
        .name = "net", .compiler = "mcc test", .identity = 0x123456789abcdef0u, .levels = levels, .level_count = 1,
        .function_count = 1, .functions = functions, .weights_bytes = 4, .arena_bytes = 8192};

    """
}
