import Base
import Tensors

/// What was measured on one machine for one target: its limits, and times of kernels. It is kept in a file of the cache,
/// by processor, target and version of mcc.
package struct MachineRecord: Hashable, Sendable {
  /// What /proc/cpuinfo calls the processor.
  package var processor: String
  package var target: String
  package var version: String
  package var machine: Machine?
  /// Seconds of calls, by ``KernelChoice/timingKey``.
  package var kernels: [String: Double] = [:]

  package init(target: Target, version: String, processor: String = HostCPU.model()) {
    self.processor = processor
    self.target = target.name
    self.version = version
  }

  /// The file in the folder of a cache.
  package func path(in cache: String) -> String {
    var hash = SHA256()
    for field in [processor, target, version] { hash.update(field: field) }
    return "\(cache)/machines/\(hash.hexDigest().prefix(16)).json"
  }

  /// Takes over what the cache has; a file that is missing or damaged changes nothing.
  package mutating func load(from cache: String) {
    let path = path(in: cache)
    guard let bytes = try? MappedFile.contents(path: path), let json = try? JSON.parse(bytes, file: path),
      json["processor"]?.string == processor, json["target"]?.string == target, json["version"]?.string == version
    else { return }
    machine = json["machine"].flatMap { Machine($0) }
    kernels = [:]
    for (key, value) in json["kernels"]?.object ?? JSONObject() {
      if let seconds = value.double, seconds.isFinite, seconds > 0 { kernels[key] = seconds }
    }
  }

  /// Writes the file.
  ///
  /// - Throws: `CompileError` of kind `.create` or `.io`.
  package func store(in cache: String) throws {
    try WorkFolder.create("\(cache)/machines")
    try AtomicFile.write(json.text(pretty: true), to: path(in: cache))
  }

  /// Everything, for the file.
  package var json: JSON {
    var object = JSONObject()
    object["processor"] = .string(processor)
    object["target"] = .string(target)
    object["version"] = .string(version)
    if let machine { object["machine"] = machine.json }
    object["kernels"] = .object(
      JSONObject(kernels.sorted { $0.key < $1.key }.map { ($0.key, JSON.number($0.value)) }))
    return .object(object)
  }

  /// What a manifest says about it: the limits that costs were estimated from, and a hash of the times of kernels.
  package var summary: JSON {
    var object = JSONObject()
    object["processor"] = .string(processor)
    if let machine { object["machine"] = machine.json }
    if !kernels.isEmpty {
      var hash = SHA256()
      for (key, value) in kernels.sorted(by: { $0.key < $1.key }) {
        hash.update(field: key)
        hash.update(field: "\(value)")
      }
      object["kernels_sha256"] = .string(hash.hexDigest())
    }
    return .object(object)
  }
}

extension KernelChoice {
  /// What a measured time of the choice is kept under: the kernel, the largest sizes of a call, and the threads.
  package func timingKey(threads: Int) -> String {
    let sizes = arguments.compactMap { if case .size(let dim) = $0 { "\(dim.maximum)" } else { nil } }
    return ([name] + sizes).joined(separator: " ") + " x\(threads)"
  }
}

/// Kernels whose costs are measured where a record has the times of all candidates, and estimated elsewhere.
struct TunedLibrary: KernelLibrary {
  let base: KernelRegistry
  let record: MachineRecord
  let threads: Int

  func choices(for query: KernelQuery) throws -> [KernelChoice] {
    var choices = try base.choices(for: query)
    let times = choices.map { record.kernels[$0.timingKey(threads: threads)] }
    guard times.allSatisfy({ $0 != nil }) else { return choices }
    // Costs are those of one core.
    for (index, time) in times.enumerated() { choices[index].cost = (time ?? 0) * Double(threads) }
    return choices
  }

  func pack(_ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer) throws {
    try base.pack(rows, as: layout, into: bytes)
  }
}
