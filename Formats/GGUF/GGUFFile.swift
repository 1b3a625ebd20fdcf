import Base
import IR
import Tensors

/// A GGUF file, little-endian, version 2 or 3 (ggml, `docs/gguf.md`): metadata, a table of tensors, and their bytes.
///
/// Every count is compared with the bytes that remain before it is used; tensors must be aligned, lie inside the file,
/// and not share bytes.
struct GGUFFile: Sendable {
  let file: MappedFile
  let version: Int
  var metadata: GGUFMetadata
  private(set) var tensors: [CheckpointTensor] = []

  /// The longest tensor name and the most axes of the format.
  private static let nameLimit = 64
  private static let rankLimit = 4
  private static let alignmentLimit = 1 << 20
  private static let nestingLimit = 8

  init(_ file: MappedFile, limits: LoadLimits = LoadLimits()) throws {
    self.file = file
    metadata = GGUFMetadata(file)
    var reader = ByteReader(file)
    let magic = try reader.bytes(4, "the magic number")
    guard magic.elementsEqual("GGUF".utf8) else { throw reader.failure("the file does not begin with 'GGUF'", at: 0) }
    let declared = try reader.u32()
    if declared != 0, declared & 0xFFFF == 0 {
      throw CompileError(.unsupported, "a big-endian GGUF file is not supported", subject: .init(file: file.path))
    }
    guard declared == 2 || declared == 3 else {
      throw CompileError(
        .unsupported, "GGUF version \(declared) is not supported, only 2 and 3",
        subject: .init(file: file.path, offset: 4))
    }
    version = Int(declared)
    // A tensor takes a name length, an axis count, a type and an offset; an entry a key length, a type and a byte.
    let tensorCount = try reader.count(elementSize: 24, "the number of tensors")
    let keyCount = try reader.count(elementSize: 13, "the number of metadata keys")
    guard tensorCount <= limits.tensors else {
      throw reader.failure("\(tensorCount) tensors, at most \(limits.tensors) are allowed", at: 8)
    }
    guard keyCount <= limits.metadataKeys else {
      throw reader.failure("\(keyCount) metadata keys, at most \(limits.metadataKeys) are allowed", at: 16)
    }
    for _ in 0..<keyCount { try readEntry(&reader, limits) }
    let alignment = try Self.alignment(&metadata)
    var table: [Entry] = []
    table.reserveCapacity(tensorCount)
    for _ in 0..<tensorCount { table.append(try Self.readTensor(&reader, limits)) }
    try place(table, reader, alignment)
  }

  /// Adds the tensors of another part.
  mutating func add(_ others: [CheckpointTensor]) { tensors += others }

  private struct Entry {
    var name: String
    var type: TensorType
    var blocks: GGMLBlock?
    var offset: UInt64
    var byteCount: Int
    var position: Int
  }

  private static func alignment(_ metadata: inout GGUFMetadata) throws -> Int {
    let key = "general.alignment"
    guard metadata.contains(key) else { return 32 }
    guard metadata.integerType(key) == .u32 else { throw metadata.failure("'\(key)' is not of type u32") }
    let value = try metadata.int(key, in: 0...Int(UInt32.max))
    guard value > 0, value & (value - 1) == 0, value <= alignmentLimit else {
      throw metadata.failure("'\(key)' is \(value), expected a power of two up to \(alignmentLimit)")
    }
    return value
  }

  // MARK: - Metadata

  private static func readString(_ reader: inout ByteReader, _ what: String, limit: Int) throws -> String {
    let start = reader.offset
    let length = try reader.count("the length of \(what)")
    guard length <= limit else {
      throw reader.failure("\(what) has \(length) bytes, at most \(limit) are allowed", at: start)
    }
    return try reader.string(length, what)
  }

  private static func readType(_ reader: inout ByteReader, _ what: String) throws -> GGUFValueType {
    let start = reader.offset
    let number = try reader.u32()
    guard let type = GGUFValueType(rawValue: number) else {
      throw reader.failure("\(what) has the unknown type \(number)", at: start)
    }
    return type
  }

  private mutating func readEntry(_ reader: inout ByteReader, _ limits: LoadLimits) throws {
    let start = reader.offset
    let key = try Self.readString(&reader, "a metadata key", limit: 65535)
    guard !key.isEmpty else { throw reader.failure("a metadata key is empty", at: start) }
    let type = try Self.readType(&reader, "'\(key)'")
    let value: GGUFValue
    switch type {
    case .u8: value = .integer(Int64(try reader.u8()), type)
    case .i8: value = .integer(Int64(try reader.i8()), type)
    case .u16: value = .integer(Int64(try reader.u16()), type)
    case .i16: value = .integer(Int64(try reader.i16()), type)
    case .u32: value = .integer(Int64(try reader.u32()), type)
    case .i32: value = .integer(Int64(try reader.i32()), type)
    case .u64:
      let number = try reader.u64()
      value = Int64(exactly: number).map { .integer($0, type) } ?? .unsigned(number)
    case .i64: value = .integer(try reader.i64(), type)
    case .f32: value = .float(Double(try reader.f32()))
    case .f64: value = .float(try reader.f64())
    case .bool:
      let byte = try reader.u8()
      guard byte <= 1 else { throw reader.failure("'\(key)' is a boolean of value \(byte)", at: reader.offset - 1) }
      value = .bool(byte == 1)
    case .string: value = .string(try Self.readString(&reader, "the value of '\(key)'", limit: limits.stringBytes))
    case .array: value = try Self.readArray(&reader, key, limits)
    }
    guard metadata.add(key, value) else { throw reader.failure("the metadata key '\(key)' occurs twice", at: start) }
  }

  private static func readArray(_ reader: inout ByteReader, _ key: String, _ limits: LoadLimits) throws -> GGUFValue {
    let start = reader.offset
    let (type, count) = try readArrayHead(&reader, key, limits)
    let first = reader.offset
    // How many arrays are still to come on each level of nesting.
    var pending = type == .array ? [count] : []
    if pending.isEmpty { try skipElements(type, count, &reader, key, limits) }
    while let rest = pending.popLast() {
      guard rest > 0 else { continue }
      pending.append(rest - 1)
      let (inner, count) = try readArrayHead(&reader, key, limits)
      guard inner == .array else {
        try skipElements(inner, count, &reader, key, limits)
        continue
      }
      guard pending.count < nestingLimit else {
        throw CompileError(
          .unsupported, "'\(key)' is nested deeper than \(nestingLimit) arrays",
          subject: .init(file: reader.file, offset: start))
      }
      pending.append(count)
    }
    return .array(type, count: count, range: first..<reader.offset)
  }

  private static func readArrayHead(
    _ reader: inout ByteReader, _ key: String, _ limits: LoadLimits
  ) throws -> (GGUFValueType, Int) {
    let start = reader.offset
    let type = try readType(&reader, "the array '\(key)'")
    let count = try reader.count(elementSize: type.byteCount, "the length of the array '\(key)'")
    guard count <= limits.arrayElements else {
      throw reader.failure("'\(key)' has \(count) elements, at most \(limits.arrayElements) are allowed", at: start)
    }
    return (type, count)
  }

  /// Passes over the elements of an array that are no arrays themselves.
  private static func skipElements(
    _ type: GGUFValueType, _ count: Int, _ reader: inout ByteReader, _ key: String, _ limits: LoadLimits
  ) throws {
    let first = reader.offset
    switch type {
    case .string:
      for _ in 0..<count {
        let start = reader.offset
        let length = try reader.count("the length of a string in '\(key)'")
        guard length <= limits.stringBytes else {
          throw reader.failure(
            "a string in '\(key)' has \(length) bytes, at most \(limits.stringBytes) are allowed", at: start)
        }
        try reader.skip(length, "a string in '\(key)'")
      }
    case .bool:
      let values = try reader.bytes(count, "the array '\(key)'")
      guard values.allSatisfy({ $0 <= 1 }) else { throw reader.failure("'\(key)' holds a boolean above 1", at: first) }
    default: try reader.skip(count * type.byteCount, "the array '\(key)'")
    }
  }

  // MARK: - Tensors

  private static func readTensor(_ reader: inout ByteReader, _ limits: LoadLimits) throws -> Entry {
    let position = reader.offset
    let name = try readString(&reader, "a tensor name", limit: nameLimit)
    func failure(_ message: String, kind: CompileError.Kind = .input) -> CompileError {
      CompileError(
        kind, message, subject: .init(file: reader.file, offset: position, object: "tensor '\(name)'"))
    }
    guard !name.isEmpty else { throw failure("a tensor name is empty") }
    let rank = try reader.u32()
    guard rank >= 1, rank <= rankLimit else { throw failure("\(rank) axes, expected 1 to \(rankLimit)") }
    var sizes: [Int] = []
    for _ in 0..<rank {
      let size = try reader.u64()
      guard size >= 1, size <= UInt64(1) << 40 else {
        throw failure("a size of \(size), expected 1 to \(UInt64(1) << 40)")
      }
      sizes.append(Int(size))
    }
    let columns = sizes[0]
    sizes.reverse()
    let number = try reader.u32()
    let offset = try reader.u64()
    guard let type = GGUFTensorType(number: number) else { throw failure("unknown tensor type \(number)") }
    guard let storage = type.storage else {
      throw failure(
        "tensor type \(type.name) is not supported, only \(listed(GGUFTensorType.supported, "and"))",
        kind: .unsupported)
    }
    guard columns % type.blockLength == 0 else {
      throw failure("rows of \(columns) numbers do not divide into \(type.name) blocks of \(type.blockLength)")
    }
    var stored: TensorType
    var blocks: GGMLBlock?
    switch storage {
    case .native(let element, let encoding): stored = TensorType(element, sizes, encoding: encoding)
    case .blocks(let block):
      let bytes = columns / block.length * block.byteCount
      stored = TensorType(.u8, sizes.dropLast() + [bytes])
      blocks = block
    }
    let byteCount: Int
    do {
      byteCount = try TensorType.checkedByteCount(
        sizes: stored.shape.fixedSizes ?? sizes, element: stored.element, encoding: stored.encoding, of: "the tensor")
    } catch let error as CompileError {
      throw failure(error.message)
    }
    return Entry(
      name: name, type: stored, blocks: blocks, offset: offset, byteCount: byteCount, position: position)
  }

  private mutating func place(_ table: [Entry], _ reader: ByteReader, _ alignment: Int) throws {
    // The data section of a file without tensors may be missing.
    let dataStart = (reader.offset + alignment - 1) / alignment * alignment
    let available = max(file.size - dataStart, 0)
    var names: Set<String> = []
    for entry in table {
      func failure(_ message: String) -> CompileError {
        CompileError(
          .input, message, subject: .init(file: file.path, offset: entry.position, object: "tensor '\(entry.name)'"))
      }
      guard names.insert(entry.name).inserted else { throw failure("tensor '\(entry.name)' occurs twice") }
      guard entry.offset <= UInt64(available), entry.byteCount <= available - Int(entry.offset) else {
        throw failure(
          "\(entry.byteCount) bytes at offset \(entry.offset) lie outside the \(available) bytes of data")
      }
      guard Int(entry.offset) % alignment == 0 else {
        throw failure("offset \(entry.offset) is no multiple of the alignment, \(alignment)")
      }
      let start = dataStart + Int(entry.offset)
      tensors.append(
        CheckpointTensor(
          name: entry.name, type: entry.type, blocks: entry.blocks, file: file, range: start..<start + entry.byteCount))
    }
    let order = tensors.sorted { $0.range.lowerBound < $1.range.lowerBound }
    for (before, after) in zip(order, order.dropFirst()) where before.range.upperBound > after.range.lowerBound {
      throw CompileError(
        .input, "tensors '\(before.name)' and '\(after.name)' share bytes",
        subject: .init(file: file.path, offset: after.range.lowerBound))
    }
  }
}
