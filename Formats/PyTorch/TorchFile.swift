import Base
import IR
import Tensors

/// The tensors of a PyTorch checkpoint (`torch.save`), zip form or legacy form.
///
/// The zip form holds a pickle, `NAME/data.pkl`, and the bytes of each storage, `NAME/data/KEY`, stored. The legacy form is
/// a sequence of pickles (magic number, protocol, sizes of types, the object, the keys of the storages), then for each
/// storage its number of elements in 64 bits and the elements. Both keep tensors where they lie in the mapped file.
package struct TorchFile: Sendable {
  package let file: MappedFile
  /// In the order of the checkpoint.
  package private(set) var tensors: [CheckpointTensor] = []
  /// Names outside of the list of what is built; empty unless asked for.
  private(set) var refused: [(name: String, offset: Int)] = []

  /// The first pickle of the legacy form: a long integer of ten bytes, and the end.
  private static let magic: [UInt8] = [0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]

  /// Whether bytes are a zip archive with a pickle `data.pkl`, or begin like the legacy form.
  package static func sniff(_ file: MappedFile) -> Bool {
    let bytes = file.bytes
    if isLegacy(bytes) { return true }
    guard bytes.count >= 4, bytes[0] == 0x50, bytes[1] == 0x4B, bytes[2] == 3, bytes[3] == 4 else { return false }
    guard let archive = try? ZipArchive(file) else { return false }
    return archive.members.contains { $0.name == "data.pkl" || $0.name.hasSuffix("/data.pkl") }
  }

  private static func isLegacy(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard bytes.count >= 15, bytes[0] == 0x80 else { return false }
    return bytes[2..<14].elementsEqual(magic) || bytes.count >= 24 && bytes[11..<23].elementsEqual(magic)
  }

  /// Reads and checks the structure of `file`.
  ///
  /// With `listsRefused` names that are not built go to ``refused`` instead of ending the reading.
  package init(_ file: MappedFile, limits: LoadLimits = LoadLimits(), listsRefused: Bool = false) throws {
    self.file = file
    if Self.isLegacy(file.bytes) {
      try readLegacy(limits, listsRefused)
    } else {
      try readArchive(limits, listsRefused)
    }
  }

  private func failure(_ message: String, at offset: Int? = nil, kind: CompileError.Kind = .input) -> CompileError {
    CompileError(kind, message, subject: .init(file: file.path, offset: offset))
  }

  // MARK: - Zip form

  private mutating func readArchive(_ limits: LoadLimits, _ listsRefused: Bool) throws {
    let archive = try ZipArchive(file)
    let pickles = archive.members.filter { $0.name == "data.pkl" || $0.name.hasSuffix("/data.pkl") }
    guard let pickle = pickles.first, pickles.count == 1 else {
      throw failure("the archive holds \(pickles.count) members 'data.pkl', expected one")
    }
    let prefix = String(pickle.name.dropLast("data.pkl".count))
    if archive.members.contains(where: { $0.name.hasPrefix(prefix + "code/") }) {
      throw failure("this is a TorchScript program, not a checkpoint of tensors", kind: .unsupported)
    }
    guard !pickle.isCompressed else { throw failure("'\(pickle.name)' is compressed", kind: .unsupported) }
    if let order = archive.members.first(where: { $0.name == prefix + "byteorder" }), order.size <= 16 {
      guard try archive.read(order).elementsEqual("little".utf8) else {
        throw failure("the checkpoint is not little-endian", kind: .unsupported)
      }
    }
    var machine = PickleMachine(
      ByteReader(try file.slice(pickle.range), file: file.path, base: pickle.range.lowerBound),
      stringLimit: limits.stringBytes, listsRefused: listsRefused)
    let root = try machine.run()
    refused = machine.refused ?? []
    let members = Dictionary(archive.members.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    tensors = try collect(root, machine.objects, limits) { storage in
      guard let member = members[prefix + "data/" + storage.key] else {
        throw failure("the storage '\(storage.key)' is missing", at: storage.position)
      }
      guard !member.isCompressed else {
        throw failure("the storage '\(storage.key)' is compressed", at: storage.position, kind: .unsupported)
      }
      return member.range
    }
  }

  // MARK: - Legacy form

  private mutating func readLegacy(_ limits: LoadLimits, _ listsRefused: Bool) throws {
    var machine = PickleMachine(ByteReader(file), stringLimit: limits.stringBytes, listsRefused: listsRefused)
    // The magic number has been compared already.
    _ = try machine.run()
    guard case .integer(1001) = try machine.run() else {
      throw failure("the legacy checkpoint is not of protocol 1001", kind: .unsupported)
    }
    let system = try machine.run()
    guard case .dictionary(let index) = system else { throw failure("the legacy checkpoint does not name its system") }
    for (key, value) in machine.objects.dictionaries[index] {
      guard case .string("little_endian") = key else { continue }
      guard case .bool(true) = value else { throw failure("the checkpoint is not little-endian", kind: .unsupported) }
    }
    let root = try machine.run()
    let keys = try machine.run()
    refused = machine.refused ?? []
    guard let names = machine.objects.elements(of: keys) else { throw failure("the list of storages is missing") }
    var widths: [String: Int] = [:]
    for storage in machine.objects.storages {
      let width = storage.element?.byteCount ?? 1
      guard widths.updateValue(width, forKey: storage.key) ?? width == width else {
        throw failure("the storage '\(storage.key)' has two element types", at: storage.position)
      }
    }
    var reader = machine.reader
    var places: [String: Range<Int>] = [:]
    for name in names {
      guard case .string(let key) = name else { throw failure("a key of a storage is \(name.kindDescription)") }
      guard let width = widths[key] else { throw reader.failure("no tensor names the storage '\(key)'") }
      let count = try reader.count(elementSize: width, "the number of elements of the storage '\(key)'")
      let start = reader.offset
      try reader.skip(count * width, "the storage '\(key)'")
      guard places.updateValue(start..<reader.offset, forKey: key) == nil else {
        throw reader.failure("the storage '\(key)' occurs twice", at: start)
      }
    }
    guard reader.isAtEnd || listsRefused else {
      throw reader.failure("\(reader.remaining) bytes after the last storage")
    }
    tensors = try collect(root, machine.objects, limits) { storage in
      guard let range = places[storage.key] else {
        throw failure("the storage '\(storage.key)' is missing", at: storage.position)
      }
      let begin = storage.viewOffset * (storage.element?.byteCount ?? 1)
      guard begin <= range.count else {
        throw failure("a view of the storage '\(storage.key)' lies outside", at: storage.position)
      }
      return range.lowerBound + begin..<range.upperBound
    }
  }

  // MARK: - Tensors

  /// Keys under which training scripts keep the state dictionary.
  private static let wrappers = ["state_dict", "model_state_dict", "model", "module"]

  /// Finds the tensors in the object: those of the dictionary itself, or of the one that a training script wraps.
  private func collect(
    _ root: PickleValue, _ objects: PickleObjects, _ limits: LoadLimits,
    place: (PickleObjects.Storage) throws -> Range<Int>
  ) throws -> [CheckpointTensor] {
    func members(_ value: PickleValue) -> [(key: PickleValue, value: PickleValue)]? {
      if case .dictionary(let index) = value { objects.dictionaries[index] } else { nil }
    }
    guard var entries = members(root) else {
      if !refused.isEmpty { return [] }
      throw failure("the checkpoint is \(root.kindDescription), expected a dictionary of tensors")
    }
    func isTensor(_ value: PickleValue) -> Bool { if case .tensor = value { true } else { false } }
    if !entries.contains(where: { isTensor($0.value) }) {
      for name in Self.wrappers {
        let inner = entries.lazy.compactMap { key, value -> [(key: PickleValue, value: PickleValue)]? in
          if case .string(name) = key { members(value) } else { nil }
        }.first
        guard let inner, inner.contains(where: { isTensor($0.value) }) else { continue }
        entries = inner
        break
      }
    }
    guard entries.count <= limits.tensors else {
      throw failure("\(entries.count) tensors, at most \(limits.tensors) are allowed")
    }
    var names: Set<String> = []
    var tensors: [CheckpointTensor] = []
    for (key, value) in entries {
      guard case .tensor(let index) = value else { continue }
      guard case .string(let name) = key else {
        throw failure("a tensor is called by \(key.kindDescription), expected text")
      }
      let tensor = objects.tensors[index], storage = objects.storages[tensor.storage]
      guard names.insert(name).inserted else {
        throw failure("tensor '\(name)' occurs twice", at: tensor.position)
      }
      tensors.append(try self.tensor(name, tensor, storage, try place(storage), limits))
    }
    return tensors
  }

  private func tensor(
    _ name: String, _ tensor: PickleObjects.Tensor, _ storage: PickleObjects.Storage, _ range: Range<Int>,
    _ limits: LoadLimits
  ) throws -> CheckpointTensor {
    func failure(_ message: String, kind: CompileError.Kind = .input) -> CompileError {
      CompileError(
        kind, message, subject: .init(file: file.path, offset: tensor.position, object: "tensor '\(name)'"))
    }
    guard tensor.sizes.count <= limits.rank else {
      throw failure("\(tensor.sizes.count) axes, at most \(limits.rank) are allowed")
    }
    let width = tensor.element.byteCount
    let declared = storage.count.multipliedReportingOverflow(by: storage.element?.byteCount ?? 1)
    guard storage.viewOffset > 0 || !declared.overflow && declared.partialValue <= range.count else {
      throw failure(
        "the storage '\(storage.key)' is said to have \(storage.count) elements, but has \(range.count) bytes")
    }
    do {
      _ = try TensorType.checkedByteCount(sizes: tensor.sizes, element: tensor.element, of: "the tensor")
    } catch let error as CompileError {
      throw failure(error.message)
    }
    // The number of elements from the first to the last one.
    var span = tensor.sizes.contains(0) ? 0 : 1
    if span == 1 {
      for (size, stride) in zip(tensor.sizes, tensor.strides) {
        let (reach, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
        let (sum, above) = span.addingReportingOverflow(reach)
        guard !overflow, !above else { throw failure("the strides \(tensor.strides) are out of range") }
        span = sum
      }
    }
    let available = range.count / width
    guard tensor.offset <= available, span <= available - tensor.offset else {
      throw failure(
        "\(span) elements from \(tensor.offset) on lie outside of the storage '\(storage.key)' of \(available)")
    }
    let begin = range.lowerBound + tensor.offset * width
    var result = CheckpointTensor(
      name: name, type: TensorType(tensor.element, tensor.sizes), file: file, range: begin..<begin + span * width)
    if span > 0, !Self.isRowMajor(tensor.sizes, tensor.strides) { result.strides = tensor.strides }
    return result
  }

  /// Whether elements lie one after the other, the last axis innermost; strides of axes of size 1 do not count.
  private static func isRowMajor(_ sizes: [Int], _ strides: [Int]) -> Bool {
    var expected = 1
    for (size, stride) in zip(sizes, strides).reversed() where size != 1 {
      guard stride == expected else { return false }
      expected *= size
    }
    return true
  }
}
