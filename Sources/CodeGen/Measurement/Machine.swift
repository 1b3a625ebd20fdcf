import Base
import Tensors

/// What a machine can do at most, measured with the instructions of one target: bytes and operations per second.
package struct Machine: Hashable, Sendable {
  /// Threads that "all" stands for.
  package var threads: Int
  /// Reading from memory by one and by all threads.
  package var memory: Double
  package var memoryOfAll: Double
  /// Reading by one thread from data that fits the second and third level of the cache.
  package var level2: Double
  package var level3: Double
  /// Operations of one thread: f32 (a multiply-add counts two), products of bytes, and of 4-bit weights with bytes.
  package var float: Double
  package var byte: Double
  package var nibble: Double

  private static let members: [(name: String, path: WritableKeyPath<Machine, Double> & Sendable)] = [
    ("memory_bytes", \.memory), ("memory_bytes_all", \.memoryOfAll), ("level2_bytes", \.level2),
    ("level3_bytes", \.level3), ("float_operations", \.float), ("byte_operations", \.byte),
    ("nibble_operations", \.nibble),
  ]

  /// A machine of unknown speeds.
  private init(threads: Int) {
    self.threads = threads
    (memory, memoryOfAll, level2, level3, float, byte, nibble) = (0, 0, 0, 0, 0, 0, 0)
  }

  /// Reads what ``json`` gives; nil for anything else, and for speeds that are no positive numbers.
  package init?(_ json: JSON) {
    guard let threads = json["threads"]?.int, threads > 0 else { return nil }
    self.init(threads: threads)
    for member in Self.members {
      guard let value = json[member.name]?.double, value.isFinite, value > 0 else { return nil }
      self[keyPath: member.path] = value
    }
  }

  /// The speeds per second, by name.
  package var json: JSON {
    var object = JSONObject()
    object["threads"] = .int(threads)
    for member in Self.members { object[member.name] = .number(self[keyPath: member.path].rounded()) }
    return .object(object)
  }

  /// The most operations per second of `threads` threads.
  package func operations(_ arithmetic: StepWork.Arithmetic, threads: Int) -> Double {
    let one =
      switch arithmetic {
      case .float: float
      case .byte: byte
      case .nibble: nibble
      }
    return one * Double(threads)
  }

  /// The most bytes per second from memory of `threads` threads.
  package func bytes(threads: Int) -> Double { threads <= 1 ? memory : max(memory, memoryOfAll) }

  /// What the cost model needs: one core's share while all are at work.
  package var throughput: Target.Throughput {
    Target.Throughput(
      floatOperations: float, byteOperations: max(byte, nibble), bytes: memoryOfAll / Double(max(threads, 1)))
  }

  /// Measures the machine that this runs on.
  ///
  /// - Throws: `CompileError` of kind `.toolchain` if there is no C compiler or the code does not run here.
  package static func measure(_ target: Target, _ toolchain: Toolchain) async throws -> Machine {
    let probe = MachineProbe(target: target)
    let threads = max(availableThreads, 1)
    let block = 8 * target.vectorBytes
    let memory = 192 << 20
    let rounds = 20_000
    func reading(_ bytes: Int, _ threads: Int, _ group: Int) -> TimedCall {
      TimedCall(
        probe.read(), [.constant(bytes: bytes), .result(bytes: bytes / 32 + block), .size(bytes / block)],
        threads: threads, group: group)
    }
    func arithmetic(_ function: KernelFunction, _ rounds: Int, _ group: Int) -> TimedCall {
      TimedCall(
        function, [.operand(bytes: 64 << 10), .result(bytes: block), .size(rounds)], threads: 1, group: group)
    }
    let level2 = (target.cacheBytes.level2 / 2).aligned(to: block),
      level3 = (target.cacheBytes.level2 * 4).aligned(to: block)
    // Memory by itself: data of the caches would be read over all copies, so that these take turns over their own size.
    let large = try await TimingProgram(
      [reading(memory, 1, 0), reading(memory, threads, 0)], target: target, spread: memory, rounds: 5
    ).run(toolchain)
    let small = try await TimingProgram(
      [
        reading(level2, 1, 0), reading(level3, 1, 1), arithmetic(probe.floats(), rounds, 2),
        arithmetic(probe.bytes(isNibbles: false), rounds / 64, 3),
        arithmetic(probe.bytes(isNibbles: true), rounds / 64, 4),
      ], target: target, spread: 0
    ).run(toolchain)
    var machine = Machine(threads: threads)
    machine.memory = Double(memory) / large[0].least
    machine.memoryOfAll = Double(memory) / large[1].least
    machine.level2 = Double(level2) / small[0].least
    machine.level3 = Double(level3) / small[1].least
    machine.float = Double(rounds) * probe.floatOperationsPerRound / small[2].least
    machine.byte = Double(rounds / 64) * probe.byteOperationsPerRound(isNibbles: false) / small[3].least
    machine.nibble = Double(rounds / 64) * probe.byteOperationsPerRound(isNibbles: true) / small[4].least
    return machine
  }
}
