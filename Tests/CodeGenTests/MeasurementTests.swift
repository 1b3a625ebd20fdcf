import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Measured machines and kernels: records, and what they change. No test depends on how fast anything is.
@Suite struct MeasurementTests {
  private static func machine(float: Double = 1e11, byte: Double = 2e11, nibble: Double = 2e11) throws -> Machine {
    try #require(
      Machine([
        "threads": 2, "memory_bytes": 1e10, "memory_bytes_all": 2e10, "level2_bytes": 1e11, "level3_bytes": 5e10,
        "float_operations": .number(float), "byte_operations": .number(byte), "nibble_operations": .number(nibble),
      ]))
  }

  @Test func recordsComeBackFromTheCache() throws {
    let folder = try TemporaryFolder()
    var record = MachineRecord(target: .x86v3, version: "1", processor: "a processor")
    record.machine = try Self.machine()
    record.kernels = ["mcc_a 128 x2": 1e-5, "mcc_b x2": 2.5e-7]
    try record.store(in: folder.path)
    var read = MachineRecord(target: .x86v3, version: "1", processor: "a processor")
    read.load(from: folder.path)
    #expect(read == record)
    for other in [
      MachineRecord(target: .x86v4, version: "1", processor: "a processor"),
      MachineRecord(target: .x86v3, version: "2", processor: "a processor"),
      MachineRecord(target: .x86v3, version: "1", processor: "another processor"),
    ] {
      var empty = other
      empty.load(from: folder.path)
      #expect(empty == other)
    }
    // What the cache has is listed with it.
    #expect(ObjectCache(folder: folder.path).entries().contains { $0.name.hasPrefix("machines/") })
  }

  @Test func damagedRecordsAreAsGoodAsNone() throws {
    let folder = try TemporaryFolder()
    var record = MachineRecord(target: .portable, version: "1", processor: "p")
    record.machine = try Self.machine()
    record.kernels = ["k x1": 1e-6]
    try record.store(in: folder.path)
    let path = record.path(in: folder.path)
    let whole = try MappedFile.contents(path: path)
    for length in 0..<whole.count - 2 {
      try AtomicFile.write(Array(whole.prefix(length)), to: path)
      var read = MachineRecord(target: .portable, version: "1", processor: "p")
      read.load(from: folder.path)
      #expect(read.machine == nil && read.kernels.isEmpty)
    }
    let text = String(decoding: whole, as: UTF8.self)
    try AtomicFile.write(text.replacing("100000000000", with: "-5").replacing("1e-06", with: "0"), to: path)
    var read = MachineRecord(target: .portable, version: "1", processor: "p")
    read.load(from: folder.path)
    #expect(read.machine == nil && read.kernels.isEmpty)
  }

  @Test func processorsHaveNames() {
    #expect(
      HostCPU.model(cpuinfo: "processor\t: 0\nmodel name\t: Some CPU 9000 \nmodel name\t: other\n") == "Some CPU 9000")
    #expect(HostCPU.model(cpuinfo: "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n") == "0x41 0xd0c")
    #expect(HostCPU.model(cpuinfo: "") == "")
  }

  /// A matmul of constant weights, as a model of the stage `transform`.
  private func product() throws -> Model {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [4, 64]))
    let w = builder.constant(
      Constant(name: "w", type: TensorType(.f32, [96, 64]), source: .random(seed: 1, deviation: 0.1 as Double)))
    builder.output("y", try builder.emit(MatMul(transposeB: true), x, w))
    var model = Model(name: "product", stage: .transform)
    model.constants = builder.constants
    model.functions = [builder.graph]
    return model
  }

  @Test func measuredTimesDecideTheChoice() throws {
    let target = Target.x86v3
    let entry = try #require(
      try CodeGenerator(target: target).survey(product()).entries.first { $0.query.operation.op is MatMul })
    #expect(entry.choices.count > 1)
    var record = MachineRecord(target: target, version: "1", processor: "p")
    for wanted in entry.choices.indices {
      for (index, choice) in entry.choices.enumerated() {
        record.kernels[choice.timingKey(threads: availableThreads)] = index == wanted ? 1e-6 : 1e-5
      }
      let tuned = CodeGenerator(target: target, record: record)
      let found = try #require(try tuned.survey(product()).entries.first { $0.query.operation.op is MatMul })
      #expect(found.choices[found.pick].name == entry.choices[wanted].name)
      var model = try product()
      var context = PassContext()
      try tuned.lower(&model, &context)
      #expect(try Printer.print(model).contains(entry.choices[wanted].name))
    }
    // One candidate without a time: the estimates decide for all.
    for (index, choice) in entry.choices.enumerated() where index != entry.pick {
      record.kernels[choice.timingKey(threads: availableThreads)] = 1e-12
    }
    record.kernels[entry.choices[entry.pick].timingKey(threads: availableThreads)] = nil
    let partly = try CodeGenerator(target: target, record: record).survey(product())
    #expect(partly.entries.contains { $0.query.operation.op is MatMul && $0.pick == entry.pick })
  }

  /// The generated timing programs run and give a time for each call, in order.
  @Test func thisMachineIsMeasured() async throws {
    let folder = try TemporaryFolder()
    let target = TargetRegistry.native(features: HostCPU.features())
    let toolchain = Toolchain(compiler: try await CCompiler.find(), cache: ObjectCache(folder: folder.path))
    let machine = try await Machine.measure(target, toolchain)
    #expect(Machine(machine.json)?.threads == machine.threads)
    // The slowest machines of today do a hundred million of each in a second.
    for value in [machine.memory, machine.memoryOfAll, machine.level2, machine.level3] { #expect(value > 1e8) }
    for value in [machine.float, machine.byte, machine.nibble] { #expect(value > 1e8) }
    let survey = try CodeGenerator(target: target).survey(product())
    let comparison = try await KernelComparison.measure(
      survey.entries, target, threads: 2, spread: 1 << 16, rounds: 1, toolchain)
    #expect(comparison.rows.count == survey.entries.count)
    for row in comparison.rows {
      #expect(row.times.count == row.entry.choices.count && row.times.allSatisfy { $0.least > 0 })
      #expect(row.ratio >= 1)
    }
    var record = MachineRecord(target: target, version: "1", processor: "p")
    comparison.store(in: &record)
    #expect(record.kernels.count >= survey.entries.map(\.choices.count).max() ?? 0)
  }
}
