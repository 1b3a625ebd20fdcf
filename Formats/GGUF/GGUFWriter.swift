import Base
import Tensors

/// A metadata value to be written.
enum GGUFEntry {
  case u32(Int)
  case f32(Double)
  case bool(Bool)
  case string(String)
  case i32s([Int])
  case f32s([Float])
  case strings([String])
  case bytes([UInt8])
}

/// Writes a GGUF file of version 3, little-endian (ggml, `docs/gguf.md`).
struct GGUFWriter {
  /// Metadata in order.
  private(set) var metadata: [(key: String, value: GGUFEntry)] = []

  /// The value under `key`.
  subscript(key: String) -> GGUFEntry? {
    get { metadata.first { $0.key == key }?.value }
    set {
      metadata.removeAll { $0.key == key }
      if let newValue { metadata.append((key, newValue)) }
    }
  }

  private static let alignment = 32

  /// Writes all tensors of `checkpoint`, which have the names of GGUF.
  func write(_ checkpoint: Checkpoint, to path: String) throws {
    var head: [UInt8] = Array("GGUF".utf8)
    func number<Value: FixedWidthInteger>(_ value: Value) {
      withUnsafeBytes(of: value.littleEndian) { head.append(contentsOf: $0) }
    }
    func string(_ text: String) {
      number(UInt64(text.utf8.count))
      head += text.utf8
    }
    number(UInt32(3))
    number(UInt64(checkpoint.names.count))
    number(UInt64(metadata.count))
    func array(_ type: GGUFValueType, _ count: Int) {
      number(GGUFValueType.array.rawValue)
      number(type.rawValue)
      number(UInt64(count))
    }
    for (key, value) in metadata {
      string(key)
      switch value {
      case .u32(let value):
        number(GGUFValueType.u32.rawValue)
        guard let narrow = UInt32(exactly: value) else {
          throw CompileError(.unsupported, "'\(key)' is \(value), which GGUF does not hold in 32 bits")
        }
        number(narrow)
      case .f32(let value):
        number(GGUFValueType.f32.rawValue)
        number(Float(value).bitPattern)
      case .bool(let value):
        number(GGUFValueType.bool.rawValue)
        head.append(value ? 1 : 0)
      case .string(let text):
        number(GGUFValueType.string.rawValue)
        string(text)
      case .i32s(let values):
        array(.i32, values.count)
        for value in values { number(Int32(truncatingIfNeeded: value)) }
      case .f32s(let values):
        array(.f32, values.count)
        for value in values { number(value.bitPattern) }
      case .strings(let texts):
        array(.string, texts.count)
        for text in texts { string(text) }
      case .bytes(let bytes):
        array(.u8, bytes.count)
        head += bytes
      }
    }
    var offset = 0
    for name in checkpoint.names {
      guard let type = checkpoint.type(of: name), let sizes = type.shape.fixedSizes else {
        throw CompileError(.internal, "tensor '\(name)' has no fixed size")
      }
      guard name.utf8.count < 64 else {
        throw CompileError(.unsupported, "the tensor name '\(name)' is longer than GGUF allows")
      }
      guard sizes.count <= 4, let (kind, byteCount) = GGUFTensorType.storing(type) else {
        throw CompileError(.unsupported, "GGUF has no type that holds tensor '\(name)' of \(type) exactly")
      }
      string(name)
      number(UInt32(max(sizes.count, 1)))
      for size in sizes.isEmpty ? [1] : sizes.reversed() { number(UInt64(size)) }
      number(kind)
      number(UInt64(offset))
      offset += (byteCount + Self.alignment - 1) / Self.alignment * Self.alignment
    }
    let file = try AtomicFile(path: path)
    try file.append(head)
    for name in checkpoint.names {
      try file.pad(to: Self.alignment)
      try Self.write(name, of: checkpoint, to: file)
    }
    try file.pad(to: Self.alignment)
    try file.commit()
  }

  /// Writes a tensor, its blocks as those of ggml that hold the same numbers.
  private static func write(_ name: String, of checkpoint: Checkpoint, to file: AtomicFile) throws {
    guard let type = checkpoint.type(of: name), case .block(let format) = type.encoding,
      let columns = type.shape.last.fixedValue, let blocks = GGUFExactBlocks(format, columns: columns)
    else { return try checkpoint.write(name, to: file) }
    let coding = RowCoding(
      type: type, sourceBytes: format.rowBytes(columns: columns), rowBytes: blocks.rowBytes(columns: columns)
    ) { blocks.row($0, columns: columns, into: $1) }
    let start = try file.reserve((type.byteCount ?? 0) / max(coding.sourceBytes, 1) * coding.rowBytes)
    try checkpoint.stream(name) { offset, bytes in
      try coding.map(bytes, at: offset) { try file.write($1, at: start + $0) }
    }
  }
}

extension GGUFTensorType {
  /// The number of the type that holds exactly what `type` does, and the bytes of such a tensor; nil if there is none.
  static func storing(_ type: TensorType) -> (number: UInt32, byteCount: Int)? {
    let name: String
    var byteCount = type.byteCount ?? 0
    switch type.encoding {
    case .dense:
      guard [.f64, .f32, .f16, .bf16, .i8, .i16, .i32, .i64].contains(type.element) else { return nil }
      name = type.element.rawValue.uppercased()
    case .block(let format):
      guard let columns = type.shape.last.fixedValue, let blocks = GGUFExactBlocks(format, columns: columns) else {
        return nil
      }
      name = blocks.typeName
      byteCount = byteCount / max(format.rowBytes(columns: columns), 1) * blocks.rowBytes(columns: columns)
    case .packed: return nil
    }
    return names.firstIndex(of: name).map { (UInt32($0), byteCount) }
  }
}
