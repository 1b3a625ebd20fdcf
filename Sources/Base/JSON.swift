/// A JSON value. Objects keep the order of their keys; integers stay exact.
package enum JSON: Sendable {
  case null
  case bool(Bool)
  /// A number without fraction and exponent that fits into 64 bits with sign.
  case integer(Int64)
  /// A number without fraction and exponent above `Int64.max`.
  case unsigned(UInt64)
  /// Any other number; `NaN` and `Infinity` are accepted as Python writes them.
  case number(Double)
  case string(String)
  case array([JSON])
  case object(JSONObject)

  /// What the value is, for messages: "a string", "an object", ...
  package var kindDescription: String {
    switch self {
    case .null: "null"
    case .bool: "a boolean"
    case .integer, .unsigned: "an integer"
    case .number: "a number"
    case .string: "a string"
    case .array: "an array"
    case .object: "an object"
    }
  }

  /// The value under `key`; nil if this is no object or has no such key.
  package subscript(key: String) -> JSON? {
    if case .object(let object) = self { return object[key] }
    return nil
  }

  /// The text; nil if this is no string.
  package var string: String? {
    if case .string(let text) = self { return text }
    return nil
  }

  /// The elements; nil if this is no array.
  package var array: [JSON]? {
    if case .array(let elements) = self { return elements }
    return nil
  }

  /// The members; nil if this is no object.
  package var object: JSONObject? {
    if case .object(let object) = self { return object }
    return nil
  }

  /// The truth value; nil if this is no boolean.
  package var bool: Bool? {
    if case .bool(let value) = self { return value }
    return nil
  }

  /// The number as an integer; nil if this is no number or has a fraction or is out of range. `1e3` counts as integer.
  package var int: Int? {
    switch self {
    case .integer(let value): Int(exactly: value)
    case .number(let value) where value.magnitude <= 0x1p53: Int(exactly: value)
    default: nil
    }
  }

  /// The number, rounded to double precision if need be; nil if this is no number.
  package var double: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .unsigned(let value): Double(value)
    case .number(let value): value
    default: nil
    }
  }

  /// An integer of any width that fits.
  package static func int(_ value: Int) -> JSON { .integer(Int64(value)) }
}

extension JSON: Equatable {
  /// Strings are equal if their UTF-8 is: canonically equivalent texts are different tokens. Numbers compare by value,
  /// apart from NaN, which equals itself.
  package static func == (a: JSON, b: JSON) -> Bool {
    switch (a, b) {
    case (.null, .null): true
    case (.bool(let a), .bool(let b)): a == b
    case (.integer(let a), .integer(let b)): a == b
    case (.unsigned(let a), .unsigned(let b)): a == b
    case (.number(let a), .number(let b)): a == b || (a.isNaN && b.isNaN)
    case (.string(let a), .string(let b)): a.utf8.elementsEqual(b.utf8)
    case (.array(let a), .array(let b)): a == b
    case (.object(let a), .object(let b)): a == b
    default: false
    }
  }
}

extension JSON: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByFloatLiteral, ExpressibleByStringInterpolation, ExpressibleByArrayLiteral,
  ExpressibleByDictionaryLiteral
{
  package init(nilLiteral: ()) { self = .null }
  package init(booleanLiteral value: Bool) { self = .bool(value) }
  package init(integerLiteral value: Int64) { self = .integer(value) }
  package init(floatLiteral value: Double) { self = .number(value) }
  package init(stringLiteral value: String) { self = .string(value) }
  package init(arrayLiteral elements: JSON...) { self = .array(elements) }
  package init(dictionaryLiteral elements: (String, JSON)...) { self = .object(JSONObject(elements)) }
}
