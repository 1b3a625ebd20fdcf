import Base

/// The types of metadata values, with their numbers in the file.
enum GGUFValueType: UInt32, Sendable {
  case u8 = 0, i8, u16, i16, u32, i32, f32, bool, string, array, u64, i64, f64

  /// Bytes of a value; for strings and arrays the least they take.
  var byteCount: Int {
    switch self {
    case .u8, .i8, .bool: 1
    case .u16, .i16: 2
    case .u32, .i32, .f32: 4
    case .u64, .i64, .f64, .string: 8
    case .array: 12
    }
  }

  /// The name in messages.
  var name: String { "\(self)" }
}

/// A metadata value. Arrays stay in the file until they are asked for with the type that is expected.
enum GGUFValue: Sendable {
  /// Any integer type; unsigned ones above `Int64.max` as `unsigned`.
  case integer(Int64, GGUFValueType)
  case unsigned(UInt64)
  case float(Double)
  case bool(Bool)
  case string(String)
  case array(GGUFValueType, count: Int, range: Range<Int>)

  /// What the value is, for messages.
  var kindDescription: String {
    switch self {
    case .integer, .unsigned: "an integer"
    case .float: "a number"
    case .bool: "a boolean"
    case .string: "a string"
    case .array(let type, let count, _): "an array of \(count) \(type.name)"
    }
  }
}

/// The metadata of a GGUF file: typed look-ups that name the key in their errors.
struct GGUFMetadata: Sendable {
  let file: MappedFile
  private(set) var keys: [String] = []
  private var values: [String: GGUFValue] = [:]
  /// The keys that were asked for.
  private(set) var readKeys: Set<String> = []

  init(_ file: MappedFile) { self.file = file }

  /// Adds an entry.
  ///
  /// - Returns: false if the key exists already.
  mutating func add(_ key: String, _ value: GGUFValue) -> Bool {
    guard values[key] == nil else { return false }
    values[key] = value
    keys.append(key)
    return true
  }

  func failure(_ message: String, kind: CompileError.Kind = .input) -> CompileError {
    CompileError(kind, message, subject: .init(file: file.path))
  }

  private func mismatch(_ key: String, _ value: GGUFValue, _ expected: String) -> CompileError {
    failure("'\(key)' is \(value.kindDescription), expected \(expected)")
  }

  private mutating func value(_ key: String) -> GGUFValue? {
    readKeys.insert(key)
    return values[key]
  }

  /// Whether there is a value; counts as read.
  mutating func contains(_ key: String) -> Bool { value(key) != nil }

  /// The type of an integer value as it stands in the file.
  mutating func integerType(_ key: String) -> GGUFValueType? {
    if case .integer(_, let type)? = value(key) { return type }
    return nil
  }

  /// An integer of any width in `range`; nil if absent.
  mutating func optionalInt(_ key: String, in range: ClosedRange<Int>) throws -> Int? {
    guard let value = value(key) else { return nil }
    let number: Int
    switch value {
    case .integer(let integer, _): number = Int(integer)
    case .unsigned(let unsigned):
      throw failure("'\(key)' is \(unsigned), expected \(range.lowerBound) to \(range.upperBound)")
    default: throw mismatch(key, value, "an integer")
    }
    guard range.contains(number) else {
      throw failure("'\(key)' is \(number), expected \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// An integer of any width in `range`.
  mutating func int(_ key: String, in range: ClosedRange<Int>) throws -> Int {
    guard let number = try optionalInt(key, in: range) else { throw failure("missing '\(key)', expected an integer") }
    return number
  }

  /// A number; nil if absent.
  mutating func optionalDouble(_ key: String) throws -> Double? {
    guard let value = value(key) else { return nil }
    switch value {
    case .float(let number): return number
    case .integer(let number, _): return Double(number)
    default: throw mismatch(key, value, "a number")
    }
  }

  /// A string; nil if absent.
  mutating func optionalString(_ key: String) throws -> String? {
    guard let value = value(key) else { return nil }
    guard case .string(let text) = value else { throw mismatch(key, value, "a string") }
    return text
  }

  /// A boolean; nil if absent.
  mutating func optionalBool(_ key: String) throws -> Bool? {
    guard let value = value(key) else { return nil }
    guard case .bool(let truth) = value else { throw mismatch(key, value, "a boolean") }
    return truth
  }

  private mutating func array(
    _ key: String, of type: GGUFValueType, limit: Int
  ) throws -> (count: Int, reader: ByteReader)? {
    guard let value = value(key) else { return nil }
    guard case .array(type, let count, let range) = value else {
      throw mismatch(key, value, "an array of \(type.name)")
    }
    guard count <= limit else { throw failure("'\(key)' has \(count) elements, at most \(limit) are allowed") }
    return (count, ByteReader(try file.slice(range), file: file.path, base: range.lowerBound))
  }

  /// An array of strings; nil if absent.
  mutating func optionalStrings(_ key: String, limits: LoadLimits) throws -> [String]? {
    guard let (count, bytes) = try array(key, of: .string, limit: limits.arrayElements) else { return nil }
    var reader = bytes
    var strings: [String] = []
    strings.reserveCapacity(count)
    for _ in 0..<count {
      let length = try reader.count("the length of a string in '\(key)'")
      strings.append(try reader.string(length, "a string in '\(key)'"))
    }
    return strings
  }

  /// An array of f32; nil if absent.
  mutating func optionalFloats(_ key: String, limits: LoadLimits) throws -> [Float]? {
    guard let (count, bytes) = try array(key, of: .f32, limit: limits.arrayElements) else { return nil }
    var reader = bytes
    return try (0..<count).map { _ in try reader.f32() }
  }

  /// The bytes of an array of `u8` or `i8`; nil if absent.
  mutating func optionalBytes(_ key: String, limits: LoadLimits) throws -> [UInt8]? {
    let type: GGUFValueType
    if case .array(let element, _, _)? = values[key], element == .i8 { type = .i8 } else { type = .u8 }
    guard let (count, bytes) = try array(key, of: type, limit: limits.stringBytes) else { return nil }
    var reader = bytes
    return try (0..<count).map { _ in try reader.u8() }
  }

  /// An array of i32; nil if absent.
  mutating func optionalInts(_ key: String, limits: LoadLimits) throws -> [Int32]? {
    guard let (count, bytes) = try array(key, of: .i32, limit: limits.arrayElements) else { return nil }
    var reader = bytes
    return try (0..<count).map { _ in try reader.i32() }
  }
}
