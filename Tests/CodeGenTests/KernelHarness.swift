import Base
import CodeGen
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// One computation to check: an operator on tensors, through every kernel that a target offers for it.
struct KernelCase {
  var label: String
  var op: any Operator
  /// The operands as the operator sees them: dense, or quantized where `dequantized` is set.
  var inputs: [Tensor]
  /// Types of the query, where they differ from those of the tensors (symbolic sizes).
  var types: [TensorType]
  var constants: Set<Int> = []
  /// Operands that stand for their dequantized numbers.
  var dequantized: Set<Int> = []
  /// Operands that lie in a wider buffer: first column and width of it.
  var columns: [Int: (start: Int, width: Int)] = [:]
  var symbols: [String: Int] = [:]
  /// Largest difference relative to the largest result; of kernels whose names begin otherwise, if they need more.
  var tolerance: Double
  var tolerances: [String: Double] = [:]
  /// What the names of the kernels that are meant begin with; all if empty.
  var kernels = ""
  /// Which of several results is checked.
  var result = 0

  init(
    _ label: String, _ op: any Operator, _ inputs: [Tensor], types: [TensorType]? = nil, constants: Set<Int> = [],
    dequantized: Set<Int> = [], columns: [Int: (start: Int, width: Int)] = [:], symbols: [String: Int] = [:],
    tolerance: Double
  ) {
    self.label = label
    self.op = op
    self.inputs = inputs
    self.types = types ?? inputs.map(\.type)
    self.constants = constants
    self.dequantized = dequantized
    self.columns = columns
    self.symbols = symbols
    self.tolerance = tolerance
  }

  func query() -> KernelQuery {
    KernelQuery(
      op,
      types.indices.map { index in
        KernelQuery.Operand(
          types[index], isConstant: constants.contains(index),
          rowStride: columns[index]?.width, dequantized: dequantized.contains(index) ? .f32 : nil)
      })
  }

  /// What the operator's reference says.
  func expected() throws -> Tensor {
    var values: [Tensor] = []
    for (index, input) in inputs.enumerated() {
      guard dequantized.contains(index) else {
        values.append(input)
        continue
      }
      let dense = Tensor(TensorType(.f32, input.type.shape))
      try Dequantize(.f32).evaluate([input.view], into: [dense.mutableView])
      values.append(dense)
    }
    let op = (op as? any DimensionAttributes)?.substituting { symbols[$0.name].map { .fixed($0) } } ?? op
    let results = try op.inferTypes(values.map(\.type)).map { Tensor($0) }
    try op.evaluate(values.map(\.view), into: results.map(\.mutableView))
    return results[result]
  }
}

/// A call with the bytes of its buffers, as the C program runs it.
struct KernelRun {
  var label: String
  var function: KernelFunction
  var buffers: [[UInt8]]
  /// For each pointer parameter the buffer and the byte offset in it.
  var pointers: [(buffer: Int, offset: Int)]
  var symbols: [Int]
  var output: Int
  /// Further buffers that the kernel writes.
  var scratch: Set<Int> = []
  var check: ([UInt8]) -> String?
}

/// Compiles kernels with a driver that gives each buffer its own pages, ending at an inaccessible one, and calls every
/// kernel with several thread counts, whose results must be the same bytes.
struct KernelHarness {
  /// Records an issue for each of the cases, or of a sample of them, that fails on a target; `MCC_TEST_TARGET` leaves
  /// out all targets but one.
  static func check(_ cases: [KernelCase], on name: String, compiler: String = "clang") throws {
    if let only = getenv("MCC_TEST_TARGET"), String(cString: only) != name { return }
    let target = try TargetRegistry.target(named: name)
    let harness = KernelHarness(target: target)
    let runs = try harness.sample(cases).flatMap { try $0.runs(on: target) }
    for failure in try harness.failures(runs, compiler: compiler) { Issue.record("\(name): \(failure)") }
  }

  let target: Target
  /// The language of the kernels; `MCC_TEST_KERNELS=swift` runs all tests of kernels in Swift.
  var language = getenv("MCC_TEST_KERNELS").flatMap { KernelLanguage(rawValue: String(cString: $0)) } ?? .c
  let threadCounts = [1, 2, 3, 16]

  /// The machine that the target's programs are for, unless it is this one.
  var machine: ForeignMachine? {
    guard let architecture = target.architecture, architecture != Architecture.host else { return nil }
    return ForeignMachine(triple: architecture.triple)
  }

  /// What runs the target's programs; nil if nothing here does, which is said.
  private func runner() throws -> [String]? {
    if let machine { return machine.emulator() }
    if target.runs(on: HostCPU.features()) { return [] }
    print("only compiled: this CPU does not run \(target.name)")
    return nil
  }

  /// Whether the target is one of those whose cases are all tried: the machine's own, and the portable one, which any
  /// machine can be.
  private var isTriedInFull: Bool {
    ForeignMachine.testsEverything || target.name == Target.portable.name
      || target.name == TargetRegistry.native(features: HostCPU.features()).name
  }

  /// The cases to try on the target: all, or of other targets than the machine's own one of each operator and a seeded
  /// eighth of the others (`MCC_TEST_FULL=1` tries all).
  func sample(_ cases: [KernelCase]) -> [KernelCase] {
    guard !isTriedInFull else { return cases }
    var generator = SplitMix64(seed: UInt64(cases.count))
    var indices = Set(cases.indices.filter { _ in generator.next() % 8 == 0 })
    let groups = Dictionary(grouping: cases.indices) { type(of: cases[$0].op).name }
    for (_, group) in groups.sorted(by: { $0.key < $1.key }) where indices.isDisjoint(with: group) {
      indices.insert(group[Int(generator.next() % UInt64(group.count))])
    }
    return indices.sorted().map { cases[$0] }
  }

  /// The failures of some runs, one line each.
  func failures(_ runs: [KernelRun], compiler: String = "clang") throws -> [String] {
    let folder = try TemporaryFolder()
    var functions: [String: KernelFunction] = [:]
    var order: [KernelFunction] = []
    for run in runs {
      if let known = functions[run.function.name] {
        if known != run.function { return ["two kernels are called \(run.function.name)"] }
      } else {
        functions[run.function.name] = run.function
        order.append(run.function)
      }
    }
    let renderer = CRenderer(target: target)
    try folder.write("mcc.h", Self.threadHeader)
    try folder.write("kernels.h", renderer.header(order))
    try folder.write("main.c", driver(runs))
    let kernels: String
    switch language {
    case .c:
      kernels = folder.path("kernels.c")
      try folder.write("kernels.c", renderer.file(order))
    case .swift:
      kernels = folder.path("kernels.o")
      if let failure = try compileSwift(order, in: folder) { return [failure] }
    }
    let flags = ["-O1", "-Wall", "-Wextra", "-Werror"] + target.compilerFlags
    let program = folder.path("run")
    guard let command = machine.map({ $0.compiler(compiler) }) ?? [compiler] else { return [] }
    let built = try Command.run(
      command[0],
      command.dropFirst() + flags
        + ["-I", folder.path, kernels, folder.path("main.c"), "-o", program, "-lm", "-lpthread"],
      timeout: 900)
    guard built.exitCode == 0 else { return ["\(compiler): \(built.errors.prefix(3000))"] }
    guard let start = try runner() else { return [] }
    let data = runs.flatMap { run in run.buffers.flatMap { $0 } }
    let run = start + [program]
    let outcome = try Command.run(run[0], Array(run.dropFirst()), input: data, timeout: 300)
    guard outcome.exitCode == 0 else { return ["exit code \(outcome.exitCode): \(outcome.errors.suffix(500))"] }
    var failures: [String] = []
    var position = 0
    for run in runs {
      let size = run.buffers[run.output].count
      var first: [UInt8] = []
      for count in threadCounts {
        guard position + size <= outcome.output.count else { return failures + ["output ends in \(run.label)"] }
        let bytes = Array(outcome.output[position..<(position + size)])
        position += size
        if count == 1 {
          first = bytes
          if let failure = run.check(bytes) { failures.append("\(run.label) (\(run.function.name)): \(failure)") }
        } else if bytes != first {
          failures.append("\(run.label) (\(run.function.name)): \(count) threads give other results than 1")
        }
      }
    }
    return failures
  }

  /// Makes `kernels.o` of Swift; what the compiler says if it refuses.
  private func compileSwift(_ kernels: [KernelFunction], in folder: TemporaryFolder) throws -> String? {
    let files = SwiftRenderer(target: target).file(kernels)
    try folder.write("kernels.swift", files.source)
    try folder.write("kernels_swift.h", files.header)
    let flags = SwiftRenderer.compilerFlags(target: target) + ["-module-name", "kernels"]
    let built = try Command.run(
      "swiftc",
      flags + [
        "-import-objc-header", folder.path("kernels_swift.h"), "-c", folder.path("kernels.swift"), "-o",
        folder.path("kernels.o"),
      ], timeout: 900)
    guard built.exitCode == 0 else { return "swiftc: \(built.errors.prefix(3000))" }
    return try SwiftObject(path: folder.path("kernels.o"), functions: kernels.map(\.name)).failure()
  }

  static let threadHeader = """
    #ifndef MCC_H
    #define MCC_H
    #include <stdint.h>
    typedef struct mcc_thread { int index, count; } mcc_thread;
    typedef struct mcc_range { int64_t begin, end; } mcc_range;
    static inline mcc_range mcc_partition(const mcc_thread *t, int64_t units) {
      int64_t share = units / t->count, rest = units % t->count;
      int64_t begin = share * t->index + (t->index < rest ? t->index : rest);
      return (mcc_range){begin, begin + share + (t->index < rest ? 1 : 0)};
    }
    typedef struct mcc_work { int64_t unit, end; } mcc_work;
    static inline mcc_work mcc_share(const mcc_thread *t, int64_t units) {
      mcc_range own = mcc_partition(t, units);
      return (mcc_work){own.begin - 1, own.end};
    }
    static inline _Bool mcc_next(const mcc_thread *t, mcc_work *work) {
      (void)t;
      return ++work->unit < work->end;
    }
    void mcc_meet(const mcc_thread *t);
    #endif

    """

  private func driver(_ runs: [KernelRun]) -> String {
    var text = """
      #include "kernels.h"
      #include <pthread.h>
      #include <stdio.h>
      #include <stdlib.h>
      #include <string.h>
      #include <sys/mman.h>
      #include <unistd.h>
      static uint8_t *guarded(long size) {
        long page = 4096, whole = (size + 64 + page - 1) / page * page;
        uint8_t *p = mmap(0, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + whole, page, PROT_NONE)) exit(2);
        memset(p, 0xa5, whole);
        return p + whole - size;
      }
      static void release(uint8_t *p, long size) {
        long page = 4096, whole = (size + 64 + page - 1) / page * page;
        munmap(p + size - whole, whole + page);
      }
      static pthread_barrier_t meeting;
      void mcc_meet(const mcc_thread *t) {
        if (t->count > 1) pthread_barrier_wait(&meeting);
      }
      typedef struct part {
        mcc_thread t;
        uint8_t **b;
        void (*body)(const mcc_thread *t, uint8_t **b);
      } part;
      static void *run_part(void *argument) {
        part *it = argument;
        it->body(&it->t, it->b);
        return 0;
      }
      /* On one thread after the other, or, where they meet, at once. */
      static void run_all(int count, int meets, uint8_t **b, void (*body)(const mcc_thread *t, uint8_t **b)) {
        part parts[16];
        pthread_t threads[16];
        if (meets && pthread_barrier_init(&meeting, 0, count)) exit(5);
        for (int i = 0; i < count; i++) {
          parts[i] = (part){{i, count}, b, body};
          if (!meets) run_part(&parts[i]);
          else if (pthread_create(&threads[i], 0, run_part, &parts[i])) exit(5);
        }
        for (int i = 0; meets && i < count; i++) pthread_join(threads[i], 0);
        if (meets) pthread_barrier_destroy(&meeting);
      }
      static void die(const char *label) {
        fprintf(stderr, "%s wrote outside of its buffers\\n", label);
        exit(3);
      }

      """
    for (index, run) in runs.enumerated() {
      var arguments: [String] = []
      var pointers = run.pointers[...]
      var symbols = run.symbols[...]
      for parameter in run.function.parameters {
        switch parameter {
        case .pointer(let pointer):
          guard let next = pointers.popFirst() else { continue }
          let type = "\(pointer.isMutable ? "" : "const ")\(CRenderer.cType(pointer.element)) *"
          arguments.append("(\(type))(b[\(next.buffer)] + \(next.offset))")
        case .symbol: arguments.append("\(symbols.popFirst() ?? 0)")
        }
      }
      let call = CRenderer(target: target).call(run.function, arguments: arguments, thread: "t")
      let sizes = run.buffers.map { "\($0.count)" }.joined(separator: ", ")
      let kept = run.buffers.indices.map { $0 == run.output || run.scratch.contains($0) ? "0" : "1" }
      text += """
        static void body\(index)(const mcc_thread *t, uint8_t **b) {
          \(call)
        }
        static void run\(index)(void) {
          const long sizes[] = {\(sizes)};
          const int kept[] = {\(kept.joined(separator: ", "))};
          const int counts[] = {\(threadCounts.map(String.init).joined(separator: ", "))};
          uint8_t *data[\(run.buffers.count)], *b[\(run.buffers.count)];
          for (int i = 0; i < \(run.buffers.count); i++) {
            data[i] = malloc(sizes[i] + 1);
            if (fread(data[i], 1, sizes[i], stdin) != (size_t)sizes[i]) exit(4);
          }
          for (int n = 0; n < \(threadCounts.count); n++) {
            for (int i = 0; i < \(run.buffers.count); i++) {
              b[i] = guarded(sizes[i]);
              memcpy(b[i], data[i], sizes[i]);
            }
            run_all(counts[n], \(run.function.body.contains(where: \.meets) ? 1 : 0), b, body\(index));
            fwrite(b[\(run.output)], 1, sizes[\(run.output)], stdout);
            for (int i = 0; i < \(run.buffers.count); i++) {
              for (int j = 1; j <= 64; j++) if (b[i][-j] != 0xa5) die("\(run.label)");
              if (kept[i] && memcmp(b[i], data[i], sizes[i])) die("\(run.label)");
              release(b[i], sizes[i]);
            }
          }
          for (int i = 0; i < \(run.buffers.count); i++) free(data[i]);
        }

        """
    }
    return text + "int main(void) {\n" + runs.indices.map { "  run\($0)();\n" }.joined() + "  return 0;\n}\n"
  }
}

extension Statement {
  /// Whether threads wait for each other in it.
  fileprivate var meets: Bool {
    switch self {
    case .meet: true
    case .loop(_, _, _, _, let body), .share(_, _, let body): body.contains(where: \.meets)
    case .condition(_, let then, let otherwise): (then + otherwise).contains(where: \.meets)
    default: false
    }
  }
}

extension KernelCase {
  /// The runs of all kernels that a target offers; also with the result in the place of an input where a kernel allows it.
  func runs(on target: Target) throws -> [KernelRun] {
    let registry = KernelRegistry(target: target)
    let choices = try registry.choices(for: query()).filter { $0.name.hasPrefix(kernels) }
    guard !choices.isEmpty else { throw CompileError(.internal, "no kernel for \(label) on \(target.name)") }
    let expected = try self.expected()
    return try choices.flatMap { choice -> [KernelRun] in
      let plain = try run(choice, expected, inPlace: nil)
      return [plain] + (try choice.inPlace.sorted().map { try run(choice, expected, inPlace: $0) })
    }
  }

  private func run(_ choice: KernelChoice, _ expected: Tensor, inPlace: Int?) throws -> KernelRun {
    var buffers = try inputs.indices.map { try bytes(of: $0, layout: choice.layouts[$0]) }
    var output: Int
    var scratch: Set<Int> = []
    if let update = choice.updates.first ?? inPlace {
      output = update
    } else {
      output = buffers.count
      let size = choice.result.map { $0.byteCount(rows: expected.view.sizes.dropLast().reduce(1, *)) }
      buffers.append([UInt8](repeating: 0xee, count: size ?? expected.view.bytes.count))
    }
    let function = choice.function()
    // Of several results the first ones may be updated inputs; each other one has a buffer of its own.
    var places = [output]
    let types = (try? op.inferTypes(inputs.map(\.type))) ?? []
    if types.count > 1 {
      buffers.removeSubrange(inputs.count...)
      places = types.indices.map { index in
        if choice.updates.indices.contains(index) { return choice.updates[index] }
        buffers.append([UInt8](repeating: 0xee, count: types[index].byteCount ?? 0))
        return buffers.count - 1
      }
      output = places[result]
      scratch = Set(places)
    }
    var pointers: [(buffer: Int, offset: Int)] = []
    var numbers: [Int] = []
    for argument in choice.arguments {
      switch argument {
      case .input(let index):
        pointers.append((index, (columns[index]?.start ?? 0) * inputs[index].type.element.byteCount))
      case .result(let index): pointers.append((places[index], 0))
      case .size(let dim):
        guard let value = dim.value({ symbols[$0.name] }) else {
          throw CompileError(.internal, "the size \(dim) of \(label) is not known")
        }
        numbers.append(value)
      }
    }
    let check: ([UInt8]) -> String? = { bytes in
      guard let layout = choice.result else {
        guard expected.type.isDense else {
          return bytes == Array(expected.view.bytes) ? nil : "scales or codes differ"
        }
        let own = tolerances.first { function.name.hasPrefix($0.key) }?.value
        return difference(bytes, Array(expected.view.bytes), expected.type.element, own ?? tolerance)
      }
      let canonical = canonicalActivations(bytes, layout)
      return canonical == Array(expected.view.bytes) ? nil : "codes, scales or sums differ"
    }
    return KernelRun(
      label: label + (inPlace.map { " in place of \($0)" } ?? ""), function: function, buffers: buffers,
      pointers: pointers, symbols: numbers, output: output, scratch: scratch, check: check)
  }

  private func bytes(of index: Int, layout: PackedLayout?) throws -> [UInt8] {
    let input = inputs[index]
    if let layout {
      let rows = input.view.sizes[0]
      var packed = [UInt8](repeating: 0xcc, count: layout.byteCount(rows: rows))
      try packed.withUnsafeMutableBytes { try KernelRegistry.pack(input.view, as: layout, into: $0) }
      return packed
    }
    // Caches keep their blocks; those of activations are laid out for products.
    let isCache = op is CacheUpdate || op is Attention
    if case .block(let format) = input.type.encoding, format.scale == .f32, format.codes == .signed,
      let group = format.group, !isCache
    {
      return activations(Array(input.view.bytes), columns: input.view.sizes.last ?? 1, group: group)
    }
    guard let part = columns[index] else { return Array(input.view.bytes) }
    // The operand as columns of a wider buffer whose other columns are no numbers.
    let width = input.view.sizes.last ?? 1, size = input.type.element.byteCount
    let rows = input.view.count / max(width, 1)
    var wide = [UInt8](repeating: 0xff, count: rows * part.width * size)
    for row in 0..<rows {
      let source = Array(input.view.bytes)[(row * width * size)..<((row + 1) * width * size)]
      let start = (row * part.width + part.start) * size
      wide.replaceSubrange(start..<(start + width * size), with: source)
    }
    return wide
  }
}

/// Canonical int8 blocks (scale, codes) as the rows that kernels read: codes, scales, -8 times the sums.
func activations(_ blocks: [UInt8], columns: Int, group: Int) -> [UInt8] {
  let layout = ActivationLayout(depth: columns, group: group)
  let rowBytes = layout.groups * (4 + group)
  var result: [UInt8] = []
  for row in 0..<(blocks.count / rowBytes) {
    var codes: [UInt8] = [], scales: [UInt8] = [], sums: [UInt8] = []
    for index in 0..<layout.groups {
      let block = blocks[(row * rowBytes + index * (4 + group))..<(row * rowBytes + (index + 1) * (4 + group))]
      scales += block.prefix(4)
      codes += block.dropFirst(4)
      let sum = block.dropFirst(4).reduce(Int32(0)) { $0 + Int32(Int8(bitPattern: $1)) }
      withUnsafeBytes(of: -8 * sum) { sums += $0 }
    }
    let whole = codes + scales + sums
    result += whole + [UInt8](repeating: 0, count: layout.rowBytes - whole.count)
  }
  return result
}

/// The inverse, with the sums checked: canonical blocks, or nothing if a sum is wrong.
func canonicalActivations(_ bytes: [UInt8], _ packed: PackedLayout) -> [UInt8] {
  let layout = ActivationLayout(depth: packed.parameters[0], group: packed.parameters[1])
  var result: [UInt8] = []
  for row in 0..<(bytes.count / layout.rowBytes) {
    let base = row * layout.rowBytes
    for index in 0..<layout.groups {
      let codes = bytes[(base + index * layout.group)..<(base + (index + 1) * layout.group)]
      let scale = base + layout.scaleOffset + 4 * index, sum = base + layout.sumOffset + 4 * index
      let expected = codes.reduce(Int32(0)) { $0 - 8 * Int32(Int8(bitPattern: $1)) }
      guard bytes[sum..<(sum + 4)].elementsEqual(withUnsafeBytes(of: expected) { Array($0) }) else { return [] }
      result += bytes[scale..<(scale + 4)] + codes
    }
  }
  return result
}

/// Numbers of a buffer in double precision.
func numbers(_ bytes: [UInt8], _ element: DType) -> [Double] {
  bytes.withUnsafeBytes { raw in
    (0..<(bytes.count / element.byteCount)).map { index in
      let at = index * element.byteCount
      switch element {
      case .f64: return raw.loadUnaligned(fromByteOffset: at, as: Double.self)
      case .f32: return Double(raw.loadUnaligned(fromByteOffset: at, as: Float.self))
      case .f16: return Double(halfValue(raw.loadUnaligned(fromByteOffset: at, as: UInt16.self)))
      case .bf16:
        return Double(Float(bitPattern: UInt32(raw.loadUnaligned(fromByteOffset: at, as: UInt16.self)) << 16))
      case .i64: return Double(raw.loadUnaligned(fromByteOffset: at, as: Int64.self))
      case .i32: return Double(raw.loadUnaligned(fromByteOffset: at, as: Int32.self))
      case .i16: return Double(raw.loadUnaligned(fromByteOffset: at, as: Int16.self))
      case .i8: return Double(raw.loadUnaligned(fromByteOffset: at, as: Int8.self))
      default: return Double(raw[at])
      }
    }
  }
}

/// The value of the bits of an f16.
func halfValue(_ bits: UInt16) -> Float {
  let exponent = Int(bits >> 10 & 31), mantissa = Float(bits & 1023)
  let sign: Float = bits & 0x8000 == 0 ? 1 : -1
  if exponent == 31 { return mantissa == 0 ? sign * .infinity : .nan }
  if exponent == 0 { return sign * mantissa * 0x1p-24 }
  return sign * (1 + mantissa / 1024) * Float(sign: .plus, exponent: exponent - 15, significand: 1)
}

/// How two buffers differ beyond a tolerance relative to the largest number; nil if they do not.
func difference(_ found: [UInt8], _ expected: [UInt8], _ element: DType, _ tolerance: Double) -> String? {
  let (a, b) = (numbers(found, element), numbers(expected, element))
  guard a.count == b.count else { return "\(a.count) numbers, expected \(b.count)" }
  let largest = b.filter(\.isFinite).map(abs).max() ?? 0
  for index in a.indices {
    if a[index] == b[index] || (a[index].isNaN && b[index].isNaN) { continue }
    if !(abs(a[index] - b[index]) <= tolerance * largest) {
      return "element \(index) is \(a[index]), expected \(b[index]) (largest \(largest))"
    }
  }
  return nil
}
