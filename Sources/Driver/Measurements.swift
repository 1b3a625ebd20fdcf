import Base
import CodeGen
import IR
import Tensors

/// What is known of this machine beyond the estimates of a target, kept in the cache.
package enum Measurements {
  /// The folder of the cache; nil if there is none.
  package static func folder(_ option: String?) -> String? { option ?? ObjectCache.defaultFolder() }

  /// An empty record for a target on this machine.
  static func newRecord(_ target: Target) -> MachineRecord {
    MachineRecord(target: target, version: Version.number)
  }

  /// What the cache has for a target; nil if it has nothing, or the target's code does not run on this machine.
  package static func record(_ target: Target, cache folder: String?) -> MachineRecord? {
    guard let folder, target.runs(on: HostCPU.features()) else { return nil }
    var record = newRecord(target)
    record.load(from: folder)
    return record.machine == nil && record.kernels.isEmpty ? nil : record
  }

  /// The record of a target with the limits of the machine, which are measured if they are not known, or if `again`.
  ///
  /// - Throws: `CompileError` of kind `.unsupported` if the target's code does not run on this machine, `.toolchain` if it
  ///   cannot be compiled.
  package static func measured(
    _ target: Target, cache folder: String?, again: Bool = false
  ) async throws -> MachineRecord {
    guard target.runs(on: HostCPU.features()) else {
      throw CompileError(.unsupported, "this machine does not run code for '\(target.name)', so it cannot be measured")
    }
    var record = newRecord(target)
    if let folder { record.load(from: folder) }
    if record.machine != nil, !again { return record }
    record.machine = try await Machine.measure(target, toolchain(cache: folder))
    if let folder { try record.store(in: folder) }
    return record
  }

  /// The C compiler, with the objects of the cache.
  static func toolchain(cache folder: String?) async throws -> Toolchain {
    Toolchain(compiler: try await CCompiler.find(), cache: folder.map { ObjectCache(folder: $0) })
  }

  /// Times the candidates that a record has no times of, for all kernels of a model of the stage `transform`, and keeps
  /// them.
  ///
  /// - Returns: how many candidates were timed.
  package static func tune(
    _ model: Model, _ target: Target, _ record: inout MachineRecord, cache folder: String?
  ) async throws -> Int {
    let threads = max(availableThreads, 1)
    let survey = try CodeGenerator(target: target, record: record).survey(model)
    let entries = survey.entries.filter { entry in
      entry.choices.count > 1 && entry.choices.contains { record.kernels[$0.timingKey(threads: threads)] == nil }
    }
    if entries.isEmpty { return 0 }
    let comparison = try await KernelComparison.measure(
      entries, target, threads: threads, spread: spread(survey), toolchain(cache: folder))
    comparison.store(in: &record)
    if let folder { try record.store(in: folder) }
    return entries.reduce(0) { $0 + $1.choices.count }
  }

  /// The bytes over which copies of a constant are spread: as many as the model reads, so that they come from the cache or
  /// from memory as in a run, but no more than shows the difference.
  static func spread(_ survey: KernelSurvey) -> Int { min(survey.weightBytes, 256 << 20) }
}
