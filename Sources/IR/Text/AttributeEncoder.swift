import Base
import Tensors

/// Collects what one value encodes: a single value, a dictionary or an array.
final class AttributeEncoder: Encoder {
  private enum Storage {
    case nothing
    case single(AttributeValue)
    case dictionary(AttributeDictionary)
    case array([AttributeValue])
  }

  private var storage = Storage.nothing
  /// Containers that are filled after their place was given out.
  private var children: [(place: Place, encoder: AttributeEncoder)] = []
  private let defaults: AttributeValue?

  private enum Place {
    case key(String)
    case index(Int)
  }

  init(defaults: AttributeValue?) { self.defaults = defaults }

  var codingPath: [any CodingKey] { [] }
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  static func encode<T: Encodable>(_ value: T, defaults: AttributeValue? = nil) throws -> AttributeValue {
    if let dim = value as? Dim {
      return dim.fixedValue.map { .integer($0) } ?? .string(dim.description)
    }
    let encoder = AttributeEncoder(defaults: defaults)
    try value.encode(to: encoder)
    return try encoder.finish(T.self)
  }

  /// The finished tree; what a hashed collection encodes comes in random order and is sorted.
  private func finish(_ type: (any Any.Type)?) throws -> AttributeValue {
    for child in children {
      let value = try child.encoder.finish(nil)
      switch child.place {
      case .key(let key): set(key, value)
      case .index(let index): set(index, value)
      }
    }
    switch storage {
    case .nothing: return .dictionary(.init())
    case .single(let value): return value
    case .dictionary(var dictionary):
      if type is any UnorderedKeys.Type { dictionary.sort() }
      return .dictionary(dictionary)
    case .array(let values):
      if type is any UnorderedElements.Type { return .array(values.sorted { $0.description < $1.description }) }
      if type is any UnorderedKeys.Type, !values.isEmpty {
        throw CompileError(.internal, "a dictionary whose keys are no strings has no fixed order in the text")
      }
      return .array(values)
    }
  }

  func defaultValue(for key: String) -> AttributeValue? {
    if case .dictionary(let dictionary)? = defaults { return dictionary[key] }
    return nil
  }

  func set(_ key: String, _ value: AttributeValue) {
    guard case .dictionary(var dictionary) = storage else { preconditionFailure("'\(key)' goes into no dictionary") }
    storage = .nothing
    dictionary[key] = value
    storage = .dictionary(dictionary)
  }

  private func set(_ index: Int, _ value: AttributeValue) {
    guard case .array(var values) = storage else { preconditionFailure("an element goes into no array") }
    storage = .nothing
    values[index] = value
    storage = .array(values)
  }

  func append(_ value: AttributeValue) {
    guard case .array(var values) = storage else { preconditionFailure("an element goes into no array") }
    storage = .nothing
    values.append(value)
    storage = .array(values)
  }

  func setSingle(_ value: AttributeValue) { storage = .single(value) }

  var elementCount: Int {
    if case .array(let values) = storage { return values.count }
    return 0
  }

  /// An encoder whose result becomes the value of `key`.
  func child(for key: String) -> AttributeEncoder {
    let child = AttributeEncoder(defaults: defaultValue(for: key))
    set(key, .null)
    children.append((.key(key), child))
    return child
  }

  /// An encoder whose result becomes the next element.
  func nextChild() -> AttributeEncoder {
    let child = AttributeEncoder(defaults: nil)
    children.append((.index(elementCount), child))
    append(.null)
    return child
  }

  func beginDictionary() {
    if case .nothing = storage { storage = .dictionary(.init()) }
  }

  func beginArray() {
    if case .nothing = storage { storage = .array([]) }
  }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    beginDictionary()
    return KeyedEncodingContainer(KeyedAttributeEncoder<Key>(encoder: self))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    beginArray()
    return UnkeyedAttributeEncoder(encoder: self)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer { SingleAttributeEncoder(encoder: self) }
}

/// Hashed collections with keys, which enumerate in random order.
private protocol UnorderedKeys {}
extension Dictionary: UnorderedKeys {}

/// Hashed collections without keys, which enumerate in random order.
private protocol UnorderedElements {}
extension Set: UnorderedElements {}

extension AttributeValue {
  fileprivate init(_ value: some FixedWidthInteger) {
    if let value = Int(exactly: value) {
      self = .integer(value)
    } else {
      self = .unsigned(UInt64(truncatingIfNeeded: value))
    }
  }
}

private struct KeyedAttributeEncoder<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let encoder: AttributeEncoder

  var codingPath: [any CodingKey] { [] }

  private func put(_ value: AttributeValue, _ key: Key) { encoder.set(key.stringValue, value) }

  func encodeNil(forKey key: Key) { put(.null, key) }
  func encode(_ value: Bool, forKey key: Key) { put(.bool(value), key) }
  func encode(_ value: String, forKey key: Key) { put(.string(value), key) }
  func encode(_ value: Double, forKey key: Key) { put(.real(value), key) }
  func encode(_ value: Float, forKey key: Key) { put(.real(value), key) }
  func encode(_ value: Int, forKey key: Key) { put(.integer(value), key) }
  func encode(_ value: Int8, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: Int16, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: Int32, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: Int64, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: UInt, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: UInt8, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: UInt16, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: UInt32, forKey key: Key) { put(AttributeValue(value), key) }
  func encode(_ value: UInt64, forKey key: Key) { put(AttributeValue(value), key) }
  func encode<T: Encodable>(_ value: T, forKey key: Key) throws {
    put(try AttributeEncoder.encode(value, defaults: encoder.defaultValue(for: key.stringValue)), key)
  }

  /// Leaves nil out unless the default is something else.
  private func putIfPresent(_ value: AttributeValue?, _ key: Key) {
    if let value {
      put(value, key)
    } else if let fallback = encoder.defaultValue(for: key.stringValue), fallback != .null {
      put(.null, key)
    }
  }

  func encodeIfPresent(_ value: Bool?, forKey key: Key) { putIfPresent(value.map { .bool($0) }, key) }
  func encodeIfPresent(_ value: String?, forKey key: Key) { putIfPresent(value.map { .string($0) }, key) }
  func encodeIfPresent(_ value: Double?, forKey key: Key) { putIfPresent(value.map { .real($0) }, key) }
  func encodeIfPresent(_ value: Float?, forKey key: Key) { putIfPresent(value.map { .real($0) }, key) }
  func encodeIfPresent(_ value: Int?, forKey key: Key) { putIfPresent(value.map { .integer($0) }, key) }
  func encodeIfPresent(_ value: Int8?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: Int16?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: Int32?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: Int64?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: UInt?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: UInt8?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: UInt16?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: UInt32?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent(_ value: UInt64?, forKey key: Key) { putIfPresent(value.map { AttributeValue($0) }, key) }
  func encodeIfPresent<T: Encodable>(_ value: T?, forKey key: Key) throws {
    let defaults = encoder.defaultValue(for: key.stringValue)
    putIfPresent(try value.map { try AttributeEncoder.encode($0, defaults: defaults) }, key)
  }

  func nestedContainer<NestedKey: CodingKey>(
    keyedBy keyType: NestedKey.Type, forKey key: Key
  ) -> KeyedEncodingContainer<NestedKey> {
    encoder.child(for: key.stringValue).container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
    encoder.child(for: key.stringValue).unkeyedContainer()
  }

  func superEncoder() -> any Encoder { encoder.child(for: "super") }
  func superEncoder(forKey key: Key) -> any Encoder { encoder.child(for: key.stringValue) }
}

private struct UnkeyedAttributeEncoder: UnkeyedEncodingContainer {
  let encoder: AttributeEncoder

  var codingPath: [any CodingKey] { [] }
  var count: Int { encoder.elementCount }

  func encodeNil() { encoder.append(.null) }
  func encode(_ value: Bool) { encoder.append(.bool(value)) }
  func encode(_ value: String) { encoder.append(.string(value)) }
  func encode(_ value: Double) { encoder.append(.real(value)) }
  func encode(_ value: Float) { encoder.append(.real(value)) }
  func encode(_ value: Int) { encoder.append(.integer(value)) }
  func encode(_ value: Int8) { encoder.append(AttributeValue(value)) }
  func encode(_ value: Int16) { encoder.append(AttributeValue(value)) }
  func encode(_ value: Int32) { encoder.append(AttributeValue(value)) }
  func encode(_ value: Int64) { encoder.append(AttributeValue(value)) }
  func encode(_ value: UInt) { encoder.append(AttributeValue(value)) }
  func encode(_ value: UInt8) { encoder.append(AttributeValue(value)) }
  func encode(_ value: UInt16) { encoder.append(AttributeValue(value)) }
  func encode(_ value: UInt32) { encoder.append(AttributeValue(value)) }
  func encode(_ value: UInt64) { encoder.append(AttributeValue(value)) }
  func encode<T: Encodable>(_ value: T) throws { encoder.append(try AttributeEncoder.encode(value)) }

  func nestedContainer<NestedKey: CodingKey>(keyedBy keyType: NestedKey.Type) -> KeyedEncodingContainer<NestedKey> {
    encoder.nextChild().container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { encoder.nextChild().unkeyedContainer() }
  func superEncoder() -> any Encoder { encoder.nextChild() }
}

private struct SingleAttributeEncoder: SingleValueEncodingContainer {
  let encoder: AttributeEncoder

  var codingPath: [any CodingKey] { [] }

  func encodeNil() { encoder.setSingle(.null) }
  func encode(_ value: Bool) { encoder.setSingle(.bool(value)) }
  func encode(_ value: String) { encoder.setSingle(.string(value)) }
  func encode(_ value: Double) { encoder.setSingle(.real(value)) }
  func encode(_ value: Float) { encoder.setSingle(.real(value)) }
  func encode(_ value: Int) { encoder.setSingle(.integer(value)) }
  func encode(_ value: Int8) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: Int16) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: Int32) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: Int64) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: UInt) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: UInt8) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: UInt16) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: UInt32) { encoder.setSingle(AttributeValue(value)) }
  func encode(_ value: UInt64) { encoder.setSingle(AttributeValue(value)) }
  func encode<T: Encodable>(_ value: T) throws { encoder.setSingle(try AttributeEncoder.encode(value)) }
}
