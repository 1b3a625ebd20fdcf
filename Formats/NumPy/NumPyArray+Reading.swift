import Base
import Tensors

extension NumPyArray {
  /// Reads a .npy file (NumPy enhancement proposal 1, versions 1 to 3).
  ///
  /// Big-endian and Fortran-ordered arrays are brought into little-endian row-major form; unsigned integers of 16 and 32
  /// bits become i32 and i64, those of 64 bits i64 if they fit.
  ///
  /// - Throws: `CompileError` if it is damaged or has an element type without a counterpart.
  package static func read(path: String) throws -> NumPyArray {
    let file = try MappedFile(path: path)
    return try withExtendedLifetime(file) { try NumPyArray(npy: file.bytes, file: path) }
  }

  /// Reads the bytes of a .npy file.
  package init(npy bytes: UnsafeRawBufferPointer, file: String) throws {
    let (header, start, count) = try Self.header(bytes, file)
    var reader = start
    let need = reader.remaining
    var data = Array(try reader.bytes(need))
    let width = header.type.byteCount
    if header.isBigEndian, width > 1 {
      for start in stride(from: 0, to: data.count, by: width) { data[start..<start + width].reverse() }
    }
    if header.isFortranOrder, header.shape.count > 1, count > 0 {
      data = Self.rowMajor(data, header.shape, width)
    }
    if header.isUnsigned {
      let wide: DType = width == 2 ? .i32 : .i64
      self.init(wide, header.shape, bytes: try Self.widened(data, width, to: wide, file))
      return
    }
    self.init(header.type, header.shape, bytes: data)
  }

  /// What a .npy file begins with.
  package static let magic: [UInt8] = [0x93] + "NUMPY".utf8

  /// Checks the header of a .npy file and that its data is complete.
  static func check(npy bytes: UnsafeRawBufferPointer, file: String) throws { _ = try header(bytes, file) }

  /// The header, a reader at the data, and the number of elements.
  private static func header(
    _ bytes: UnsafeRawBufferPointer, _ file: String
  ) throws -> (NumPyHeader, ByteReader, Int) {
    var reader = ByteReader(bytes, file: file)
    guard bytes.starts(with: magic) else {
      throw reader.failure("this is no .npy file")
    }
    try reader.skip(6)
    let major = try reader.u8(), minor = try reader.u8()
    guard (1...3).contains(major), minor == 0 else {
      throw CompileError(.unsupported, "version \(major).\(minor) of .npy is not supported", subject: .init(file: file))
    }
    let length = major == 1 ? Int(try reader.u16()) : Int(try reader.u32())
    // NumPy itself refuses headers above 10,000 bytes.
    guard length <= 65536 else { throw reader.failure("a .npy header of \(length) bytes") }
    let base = reader.offset
    var header = NumPyHeader(try reader.bytes(length, "the header"), file: file, base: base)
    try header.parse()

    let count = try Shape.checkedCount(header.shape, of: "an array in '\(file)'")
    let (need, overflow) = count.multipliedReportingOverflow(by: header.type.byteCount)
    guard !overflow, need == reader.remaining else {
      throw reader.failure(
        "\(header.type.rawValue)\(header.shape) needs \(overflow ? "too many" : String(need)) bytes of data, "
          + "found \(reader.remaining)")
    }
    return (header, reader, count)
  }

  /// Unsigned integers as signed ones of a wider type.
  private static func widened(_ data: [UInt8], _ width: Int, to wide: DType, _ file: String) throws -> [UInt8] {
    if width == 8 {
      for last in stride(from: 7, to: data.count, by: 8) where data[last] >= 0x80 {
        throw CompileError(
          .unsupported, "an unsigned integer above 2^63 - 1 is not supported", subject: .init(file: file))
      }
      return data
    }
    var output: [UInt8] = []
    output.reserveCapacity(data.count / width * wide.byteCount)
    for start in stride(from: 0, to: data.count, by: width) {
      output += data[start..<start + width]
      for _ in width..<wide.byteCount { output.append(0) }
    }
    return output
  }

  private static func rowMajor(_ columnMajor: [UInt8], _ shape: [Int], _ width: Int) -> [UInt8] {
    var strides: [Int] = []
    var stride = width
    for size in shape {
      strides.append(stride)
      stride *= size
    }
    var output: [UInt8] = []
    output.reserveCapacity(columnMajor.count)
    var index = [Int](repeating: 0, count: shape.count)
    var offset = 0
    while true {
      output.append(contentsOf: columnMajor[offset..<offset + width])
      var axis = shape.count - 1
      while axis >= 0 {
        index[axis] += 1
        offset += strides[axis]
        if index[axis] < shape[axis] { break }
        offset -= strides[axis] * shape[axis]
        index[axis] = 0
        axis -= 1
      }
      if axis < 0 { return output }
    }
  }
}

/// The header of a .npy file: a Python dictionary with the keys `descr`, `fortran_order` and `shape`.
private struct NumPyHeader {
  private let bytes: UnsafeRawBufferPointer
  private let file: String
  private let base: Int
  private var position = 0

  private(set) var type = DType.f32
  /// Whether numbers are unsigned integers of the width of `type`.
  private(set) var isUnsigned = false
  private(set) var isBigEndian = false
  private(set) var isFortranOrder = false
  private(set) var shape: [Int] = []

  init(_ bytes: UnsafeRawBufferPointer, file: String, base: Int) {
    self.bytes = bytes
    self.file = file
    self.base = base
  }

  private func failure(_ message: String) -> CompileError {
    CompileError(.input, message, subject: .init(file: file, offset: base + position))
  }

  private mutating func skipSpace() {
    while position < bytes.count, [0x20, 0x0A, 0x0D, 0x09].contains(bytes[position]) { position += 1 }
  }

  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard position < bytes.count, UInt32(bytes[position]) == character.value else { return false }
    position += 1
    return true
  }

  private mutating func expect(_ character: Unicode.Scalar) throws {
    guard take(character) else { throw failure("expected '\(character)' in the .npy header") }
  }

  private mutating func string() throws -> String {
    skipSpace()
    let double = take("\"")
    if !double { try expect("'") }
    let quote = UInt8(ascii: double ? "\"" : "'")
    guard let end = bytes[position...].firstIndex(of: quote) else {
      throw failure("unterminated string in the .npy header")
    }
    defer { position = end + 1 }
    return String(decoding: bytes[position..<end], as: UTF8.self)
  }

  private mutating func word() -> String {
    skipSpace()
    let start = position
    while position < bytes.count,
      (0x30...0x39).contains(bytes[position]) || (0x41...0x5A).contains(bytes[position] & 0xDF)
    {
      position += 1
    }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }

  mutating func parse() throws {
    var seen: Set<String> = []
    try expect("{")
    while !take("}") {
      let key = try string()
      try expect(":")
      guard seen.insert(key).inserted else { throw failure("duplicate key '\(key)' in the .npy header") }
      switch key {
      case "descr": try parseType()
      case "fortran_order":
        let value = word()
        guard value == "True" || value == "False" else { throw failure("'fortran_order' is neither True nor False") }
        isFortranOrder = value == "True"
      case "shape": try parseShape()
      default: throw failure("unknown key '\(key)' in the .npy header")
      }
      if !take(",") {
        try expect("}")
        break
      }
    }
    skipSpace()
    guard position == bytes.count else { throw failure("text after the .npy header") }
    for key in ["descr", "fortran_order", "shape"] where !seen.contains(key) {
      throw failure("missing key '\(key)' in the .npy header")
    }
  }

  private mutating func parseType() throws {
    skipSpace()
    guard position < bytes.count, bytes[position] != UInt8(ascii: "[") else {
      throw CompileError(.unsupported, "structured arrays are not supported", subject: .init(file: file))
    }
    let text = try string()
    let types: [String: DType] = [
      "f2": .f16, "f4": .f32, "f8": .f64, "i1": .i8, "i2": .i16, "i4": .i32, "i8": .i64, "u1": .u8, "b1": .bool,
    ]
    let unsigned: [String: DType] = ["u2": .i16, "u4": .i32, "u8": .i64]
    let code = String(text.dropFirst())
    guard let order = text.first, "<>|=".contains(order), let type = types[code] ?? unsigned[code] else {
      let known = (Array(types.keys) + Array(unsigned.keys)).sorted().joined(separator: ", ")
      throw CompileError(
        .unsupported, "element type '\(text)' is not supported, only \(known)", subject: .init(file: file))
    }
    self.type = type
    isUnsigned = types[code] == nil
    isBigEndian = order == ">"
  }

  private mutating func parseShape() throws {
    try expect("(")
    while !take(")") {
      let digits = word()
      guard let size = Int(digits), size >= 0, digits.first?.isNumber == true else {
        throw failure("'\(digits)' is no size of an axis")
      }
      guard shape.count < 32 else { throw failure("more than 32 axes") }
      shape.append(size)
      if !take(",") {
        try expect(")")
        break
      }
    }
  }
}
