import Tensors

/// The elements of inline constants as text, and back.
enum ConstantText {
  /// A double as the shortest text that gives all its bits back; `nan("7ff8000000000001")` where it is an unusual NaN.
  static func number(_ bits: UInt64) -> String {
    let value = Double(bitPattern: bits)
    guard value.isNaN else { return value.description }
    switch bits {
    case Double.nan.bitPattern: return "nan"
    case (-Double.nan).bitPattern: return "-nan"
    default: return "nan(\"" + String(bits, radix: 16) + "\")"
    }
  }

  /// `[1.0, 2.0]`, or `hex("...")` for bytes that are no list of numbers of the type.
  static func elements(_ bytes: [UInt8], _ type: TensorType) -> String {
    guard type.isDense, bytes.count % type.element.byteCount == 0, bytes.count <= 1 << 20 else { return hex(bytes) }
    var text = "["
    var offset = 0
    let size = type.element.byteCount
    while offset < bytes.count {
      var bits: UInt64 = 0
      for index in (0..<size).reversed() { bits = bits << 8 | UInt64(bytes[offset + index]) }
      guard let element = element(bits, type.element) else { return hex(bytes) }
      if offset > 0 { text += ", " }
      text += element
      offset += size
    }
    return text + "]"
  }

  /// The text of one element; nil if it would not give the bits back.
  private static func element(_ bits: UInt64, _ type: DType) -> String? {
    func real(_ value: Float) -> String? { value.isNaN ? nan(value.sign, bits, type) : value.description }
    switch type {
    case .f64:
      let value = Double(bitPattern: bits)
      return value.isNaN ? nan(value.sign, bits, type) : value.description
    case .f32: return real(Float(bitPattern: UInt32(truncatingIfNeeded: bits)))
    case .f16: return real(F16.value(UInt16(truncatingIfNeeded: bits)))
    case .bf16: return real(BF16.value(UInt16(truncatingIfNeeded: bits)))
    case .f8e4m3: return real(F8.e4m3Value(UInt8(truncatingIfNeeded: bits)))
    case .f8e5m2: return real(F8.e5m2Value(UInt8(truncatingIfNeeded: bits)))
    case .i64: return Int64(bitPattern: bits).description
    case .i32: return Int32(truncatingIfNeeded: bits).description
    case .i16: return Int16(truncatingIfNeeded: bits).description
    case .i8: return Int8(truncatingIfNeeded: bits).description
    case .u8: return UInt8(truncatingIfNeeded: bits).description
    case .bool: return bits == 0 ? "false" : bits == 1 ? "true" : nil
    }
  }

  /// `nan` or `-nan` if these are the bits that the text stands for.
  private static func nan(_ sign: FloatingPointSign, _ bits: UInt64, _ type: DType) -> String? {
    let text = sign == .minus ? "-nan" : "nan"
    guard let back = bytes(.real(text), type) else { return nil }
    return back.reversed().reduce(0) { $0 << 8 | UInt64($1) } == bits ? text : nil
  }

  private static func hex(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = Array("hex(\"".utf8)
    text.reserveCapacity(2 * bytes.count + 8)
    for byte in bytes {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self) + "\")"
  }

  /// The bytes that pairs of hexadecimal digits stand for; nil for anything else.
  static func bytes(hex text: String) -> [UInt8]? {
    let digits = Array(text.utf8)
    guard digits.count % 2 == 0 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(digits.count / 2)
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard let high = Lexer.hexDigit(digits[index]), let low = Lexer.hexDigit(digits[index + 1]) else { return nil }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  /// The bytes of one element; nil if `value` is no number of the type.
  static func bytes(_ value: AttributeValue, _ type: DType) -> [UInt8]? {
    func little(_ bits: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: bits.littleEndian) { Array($0) } }
    func whole<I: FixedWidthInteger>(_ type: I.Type) -> [UInt8]? {
      guard case .integer(let number) = value, let result = I(exactly: number) else { return nil }
      return little(result)
    }
    switch type {
    case .i64: return whole(Int64.self)
    case .i32: return whole(Int32.self)
    case .i16: return whole(Int16.self)
    case .i8: return whole(Int8.self)
    case .u8: return whole(UInt8.self)
    case .bool:
      guard case .bool(let flag) = value else { return nil }
      return [flag ? 1 : 0]
    case .f64: return double(value).map { little($0.bitPattern) }
    case .f32: return float(value).map { little($0.bitPattern) }
    case .f16: return narrow(value) { F16.value(F16.bits($0)) }.map { little(F16.bits($0)) }
    case .bf16: return narrow(value) { BF16.value(BF16.bits($0)) }.map { little(BF16.bits($0)) }
    case .f8e4m3: return narrow(value) { F8.e4m3Value(F8.e4m3Bits($0)) }.map { [F8.e4m3Bits($0)] }
    case .f8e5m2: return narrow(value) { F8.e5m2Value(F8.e5m2Bits($0)) }.map { [F8.e5m2Bits($0)] }
    }
  }

  /// A number that does not become infinite or NaN in a narrower type.
  private static func narrow(_ value: AttributeValue, _ round: (Float) -> Float) -> Float? {
    guard let number = float(value) else { return nil }
    let rounded = round(number)
    return number.isFinite == rounded.isFinite && number.isNaN == rounded.isNaN ? number : nil
  }

  /// The number; nil for anything else and for finite numbers that are too large.
  static func double(_ value: AttributeValue) -> Double? {
    switch value {
    case .integer(let number): Double(number)
    case .unsigned(let number): Double(number)
    case .real("nan"): .nan
    case .real("-nan"): -Double.nan
    case .real("inf"): .infinity
    case .real("-inf"): -.infinity
    case .real(let text): Double(text).flatMap { $0.isFinite ? $0 : nil }
    default: nil
    }
  }

  private static func float(_ value: AttributeValue) -> Float? {
    switch value {
    case .integer(let number): Float(number)
    case .unsigned(let number): Float(number)
    case .real("nan"): .nan
    case .real("-nan"): -Float.nan
    case .real("inf"): .infinity
    case .real("-inf"): -.infinity
    case .real(let text): Float(text).flatMap { $0.isFinite ? $0 : nil }
    default: nil
    }
  }
}
