import Base

/// A generated program that times calls of kernels: those of one group in turn, each for some milliseconds a round, so that
/// what disturbs the machine disturbs all of them alike.
package struct TimingProgram {
  package let target: Target
  package var calls: [TimedCall]
  /// Bytes over which the copies of constants are spread.
  package var spread: Int
  package var rounds: Int

  package init(_ calls: [TimedCall], target: Target, spread: Int, rounds: Int = 9) {
    self.calls = calls
    self.target = target
    self.spread = spread
    self.rounds = rounds
  }

  /// Compiles and runs the program.
  ///
  /// - Returns: the time of each call, in the order of `calls`.
  /// - Throws: `CompileError` of kind `.toolchain` if it does not compile or run.
  package func run(_ toolchain: Toolchain) async throws -> [CallTime] {
    if calls.isEmpty { return [] }
    let folder = try WorkFolder()
    let runtime = RuntimeSources.files(of: .network)
    var headers: [String: String] = [:]
    for file in runtime where file.name.hasSuffix(".h") { headers[file.name] = file.text }
    let renderer = CRenderer(target: target)
    var kernels: [String: KernelFunction] = [:]
    for call in calls { kernels[call.function.name] = call.function }
    let sorted = kernels.values.sorted { $0.name < $1.name }
    headers["kernels.h"] = renderer.header(sorted)
    let flags = ["-std=gnu11", "-O3"] + target.compilerFlags
    func unit(_ name: String, _ text: String, _ flags: [String]) -> CompileUnit {
      CompileUnit(name: name, text: text, headers: RuntimeSources.headers(of: text, among: headers), flags: flags)
    }
    var units = renderer.groups(sorted).enumerated().map {
      unit("kernels_\($0.offset).c", renderer.file($0.element), flags)
    }
    for file in runtime where ["thread_pool.c", "cpu.c", "failure.c"].contains(file.name) {
      units.append(unit(file.name, file.text, ["-std=gnu11", "-O2"]))
    }
    units.append(unit("timing.c", source, ["-std=gnu11", "-O2"]))
    let program = folder.file("timing")
    _ = try await toolchain.build(units, headers: headers, output: program, in: folder)
    let answer = try await ChildProcess.run(program, [])
    let times = answer.output.split(separator: "\n").compactMap { line -> CallTime? in
      let numbers = line.split(separator: " ").compactMap { Double($0) }
      return numbers.count == rounds ? CallTime(rounds: numbers) : nil
    }
    guard answer.succeeded, times.count == calls.count else {
      throw CompileError(
        .toolchain, "the program that times kernels failed", notes: answer.messages.isEmpty ? [] : [answer.messages])
    }
    return times
  }

  // MARK: C

  /// The main file.
  private var source: String {
    var text = """
      #include "kernels.h"
      #include "measure.h"
      #include "thread_pool.h"

      #include <stdio.h>
      #include <string.h>
      #include <sys/mman.h>
      #include <time.h>

      void mcc_stopwatch_mark(mcc_stopwatch *stopwatch, int64_t step) {
        (void)stopwatch, (void)step;
      }


      """
    var operandBytes = 64
    var resultBytes = 64
    for (index, call) in calls.enumerated() {
      var places = (constants: 0, operands: 0, results: 0)
      var arguments: [String] = []
      for (parameter, argument) in zip(call.function.parameters, call.arguments) {
        var cast = ""
        if case .pointer(let pointer) = parameter {
          cast = "(\(pointer.isMutable ? "" : "const ")\(CRenderer.cType(pointer.element)) *)"
        }
        switch argument {
        case .constant(let bytes):
          arguments.append("\(cast)(w + \(places.constants))")
          places.constants += bytes.aligned(to: 64)
        case .operand(let bytes):
          arguments.append("\(cast)(x + \(places.operands))")
          places.operands += bytes.aligned(to: 64)
        case .result(let bytes):
          arguments.append("\(cast)(y + \(places.results))")
          places.results += bytes.aligned(to: 64)
        case .integers(let value, let count, let wide):
          let name = "integers_\(index)_\(arguments.count)"
          text += "static \(wide ? "int64_t" : "int32_t") \(name)[\(max(count, 1))] = "
          text += "{[0 ... \(max(count, 1) - 1)] = \(value)};\n"
          arguments.append("\(cast)\(name)")
        case .size(let value): arguments.append("\(value)")
        }
      }
      operandBytes = max(operandBytes, places.operands)
      resultBytes = max(resultBytes, places.results)
      text += "static void run_\(index)(const mcc_thread *t, const uint8_t *w, const uint8_t *x, uint8_t *y) {\n"
      text += "  (void)w, (void)x, (void)y;\n"
      text += "  \(CRenderer(target: target).call(call.function, arguments: arguments))\n}\n"
    }
    let most = calls.map(\.constantBytes).max() ?? 0
    text += """

      typedef struct item {
        void (*run)(const mcc_thread *t, const uint8_t *w, const uint8_t *x, uint8_t *y);
        int64_t bytes; /* of one copy of the constants */
        int threads, group;
      } item;

      static const item items[] = {

      """
    for (index, call) in calls.enumerated() {
      text += "    {run_\(index), \(call.constantBytes), \(call.threads), \(call.group)},\n"
    }
    text += """
      };
      enum { COUNT = \(calls.count), ROUNDS = \(rounds), MOST_THREADS = \(calls.map(\.threads).max() ?? 1) };
      static const int64_t spread = \(max(spread, most)), operand_bytes = \(operandBytes), result_bytes = \(resultBytes);

      """
    return text + Self.driver
  }

  private static let driver = """
    static uint8_t *weights, *operands, *results;
    static int64_t copy[COUNT], calls[COUNT];
    static double times[COUNT][ROUNDS];

    static double seconds(void) {
      struct timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }

    /* Memory of bytes 0x3c: a small number in every floating-point type, and codes that are not all equal to zero. */
    static uint8_t *memory(int64_t bytes) {
      uint8_t *start = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (start == MAP_FAILED) exit(1);
    #if defined(MADV_HUGEPAGE)
      madvise(start, (size_t)bytes, MADV_HUGEPAGE);
    #endif
      memset(start, 0x3c, (size_t)bytes);
      return start;
    }

    typedef struct batch {
      int index;
      int64_t calls;
    } batch;

    static void run_batch(mcc_thread *t, void *argument) {
      const batch *it = argument;
      const item *own = &items[it->index];
      int64_t copies = own->bytes > 0 && spread / own->bytes > 1 ? spread / own->bytes : 1;
      int64_t next = copy[it->index];
      for (int64_t i = 0; i < it->calls; i++) {
        own->run(t, weights + (next + i) % copies * own->bytes, operands, results);
        mcc_barrier(t);
      }
    }

    static double time_batch(mcc_pool *pool, int index, int64_t count) {
      batch it = {index, count};
      double start = seconds();
      mcc_pool_run(pool, run_batch, &it);
      double time = seconds() - start;
      copy[index] += count;
      return time / (double)count;
    }

    int main(void) {
      mcc_pool *pools[MOST_THREADS + 1] = {NULL};
      weights = memory(spread + 64);
      operands = memory(operand_bytes);
      results = memory(result_bytes);
      for (int first = 0, end; first < COUNT; first = end) {
        for (end = first; end < COUNT && items[end].group == items[first].group; end++) {
          int threads = items[end].threads;
          if (pools[threads] == NULL) pools[threads] = mcc_pool_create(threads);
          time_batch(pools[threads], end, 1);
          double once = time_batch(pools[threads], end, 1);
          double wanted = 2e-3 / (once > 1e-9 ? once : 1e-9);
          calls[end] = wanted < 1 ? 1 : wanted > 20000 ? 20000 : (int64_t)wanted;
        }
        for (int round = 0; round < ROUNDS; round++) {
          for (int i = first; i < end; i++) times[i][round] = time_batch(pools[items[i].threads], i, calls[i]);
        }
      }
      for (int i = 0; i < COUNT; i++) {
        for (int round = 0; round < ROUNDS; round++) printf("%.6e%c", times[i][round], round < ROUNDS - 1 ? ' ' : '\\n');
      }
      return 0;
    }

    """
}
