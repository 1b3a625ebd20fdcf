import Base

struct KeyedAttributeDecoder<Key: CodingKey>: KeyedDecodingContainerProtocol {
  let decoder: AttributeDecoder
  let dictionary: AttributeDictionary
  let fallback: AttributeDictionary?

  var codingPath: [any CodingKey] { [] }

  /// The keys that were given; the defaults only where none was.
  var allKeys: [Key] {
    let keys = dictionary.isEmpty ? (fallback ?? dictionary).keys : dictionary.keys
    return keys.compactMap { Key(stringValue: $0) }
  }

  func contains(_ key: Key) -> Bool {
    decoder.request(key.stringValue)
    return dictionary[key.stringValue] != nil || fallback?[key.stringValue] != nil
  }

  private func path(_ key: String) -> AttributeDecoder.Path { .key(decoder.path, key) }

  /// The decoder of a key's value: the given one over the default, or the default.
  private func item(_ key: Key) throws -> AttributeDecoder {
    let name = key.stringValue
    decoder.request(name)
    if let value = dictionary[name] {
      return AttributeDecoder(value, fallback: fallback?[name], path: path(name), context: decoder.context)
    }
    guard let value = fallback?[name] else { throw missing(name) }
    return AttributeDecoder(value, fallback: nil, path: path(name), context: decoder.context)
  }

  private func missing(_ name: String) -> AttributeDecoder.Failure {
    let place = AttributeDecoder.Path.key(decoder.path, name).text
    return .init(error: CompileError(.input, "'\(place)' of \(decoder.context.owner) is missing"))
  }

  func decodeNil(forKey key: Key) throws -> Bool {
    decoder.request(key.stringValue)
    return (dictionary[key.stringValue] ?? fallback?[key.stringValue]) == .null
  }

  func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool { try item(key).bool() }
  func decode(_ type: String.Type, forKey key: Key) throws -> String { try item(key).string() }
  func decode(_ type: Double.Type, forKey key: Key) throws -> Double { try item(key).real(type) }
  func decode(_ type: Float.Type, forKey key: Key) throws -> Float { try item(key).real(type) }
  func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try item(key).integer(type) }
  func decode(_ type: Int8.Type, forKey key: Key) throws -> Int8 { try item(key).integer(type) }
  func decode(_ type: Int16.Type, forKey key: Key) throws -> Int16 { try item(key).integer(type) }
  func decode(_ type: Int32.Type, forKey key: Key) throws -> Int32 { try item(key).integer(type) }
  func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { try item(key).integer(type) }
  func decode(_ type: UInt.Type, forKey key: Key) throws -> UInt { try item(key).integer(type) }
  func decode(_ type: UInt8.Type, forKey key: Key) throws -> UInt8 { try item(key).integer(type) }
  func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { try item(key).integer(type) }
  func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { try item(key).integer(type) }
  func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { try item(key).integer(type) }

  func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T {
    let name = key.stringValue
    // A structure with defaults of its own is read over them even where the outer default has none.
    if let value = dictionary[name], fallback?[name] == nil, case .dictionary = value,
      let ownDefaults = try defaults(of: type)
    {
      decoder.request(name)
      return try AttributeDecoder(value, fallback: ownDefaults, path: path(name), context: decoder.context)
        .decodeValue(type)
    }
    return try item(key).decodeValue(type)
  }

  private func child(_ key: Key) throws -> AttributeDecoder {
    let name = key.stringValue
    decoder.request(name)
    if let value = dictionary[name] { return decoder.child(value, fallback: fallback?[name], path: path(name)) }
    guard let value = fallback?[name] else { throw missing(name) }
    return decoder.child(value, fallback: nil, path: path(name))
  }

  func nestedContainer<NestedKey: CodingKey>(
    keyedBy type: NestedKey.Type, forKey key: Key
  ) throws -> KeyedDecodingContainer<NestedKey> {
    try child(key).container(keyedBy: type)
  }

  func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
    try child(key).unkeyedContainer()
  }

  func superDecoder() throws -> any Decoder {
    guard let key = Key(stringValue: "super") else { throw missing("super") }
    return try child(key)
  }

  func superDecoder(forKey key: Key) throws -> any Decoder { try child(key) }
}

/// The tree of `T()` for structures whose keys may all be left out.
private func defaults<T>(of type: T.Type) throws -> AttributeValue? {
  guard let type = type as? any (DefaultInitializable & Encodable).Type else { return nil }
  return try AttributeCoder.encode(type.init())
}

struct UnkeyedAttributeDecoder: UnkeyedDecodingContainer {
  let decoder: AttributeDecoder
  let values: [AttributeValue]
  private(set) var currentIndex = 0

  init(decoder: AttributeDecoder, values: [AttributeValue]) {
    self.decoder = decoder
    self.values = values
  }

  var codingPath: [any CodingKey] { [] }
  var count: Int? { values.count }
  var isAtEnd: Bool { currentIndex >= values.count }

  private func peek() throws -> AttributeValue {
    guard !isAtEnd else {
      let error = decoder.failure("has \(values.count) elements, expected more")
      throw AttributeDecoder.Failure(error: error)
    }
    return values[currentIndex]
  }

  private mutating func next(fallback: AttributeValue? = nil) throws -> AttributeDecoder {
    let value = try peek()
    defer { currentIndex += 1 }
    return AttributeDecoder(
      value, fallback: fallback, path: .index(decoder.path, currentIndex), context: decoder.context)
  }

  private mutating func child() throws -> AttributeDecoder {
    let value = try peek()
    defer { currentIndex += 1 }
    return decoder.child(value, fallback: nil, path: .index(decoder.path, currentIndex))
  }

  mutating func decodeNil() throws -> Bool {
    guard try peek() == .null else { return false }
    currentIndex += 1
    return true
  }

  mutating func decode(_ type: Bool.Type) throws -> Bool { try next().bool() }
  mutating func decode(_ type: String.Type) throws -> String {
    if currentIndex < values.count, case .string(let text) = values[currentIndex] {
      currentIndex += 1
      return text
    }
    return try next().string()
  }
  mutating func decode(_ type: Double.Type) throws -> Double { try next().real(type) }
  mutating func decode(_ type: Float.Type) throws -> Float { try next().real(type) }
  mutating func decode(_ type: Int.Type) throws -> Int {
    if currentIndex < values.count, case .integer(let number) = values[currentIndex] {
      currentIndex += 1
      return number
    }
    return try next().integer(type)
  }
  mutating func decode(_ type: Int8.Type) throws -> Int8 { try next().integer(type) }
  mutating func decode(_ type: Int16.Type) throws -> Int16 { try next().integer(type) }
  mutating func decode(_ type: Int32.Type) throws -> Int32 { try next().integer(type) }
  mutating func decode(_ type: Int64.Type) throws -> Int64 { try next().integer(type) }
  mutating func decode(_ type: UInt.Type) throws -> UInt { try next().integer(type) }
  mutating func decode(_ type: UInt8.Type) throws -> UInt8 { try next().integer(type) }
  mutating func decode(_ type: UInt16.Type) throws -> UInt16 { try next().integer(type) }
  mutating func decode(_ type: UInt32.Type) throws -> UInt32 { try next().integer(type) }
  mutating func decode(_ type: UInt64.Type) throws -> UInt64 { try next().integer(type) }
  mutating func decode<T: Decodable>(_ type: T.Type) throws -> T {
    try next(fallback: try defaults(of: type)).decodeValue(type)
  }

  mutating func nestedContainer<NestedKey: CodingKey>(
    keyedBy type: NestedKey.Type
  ) throws -> KeyedDecodingContainer<NestedKey> {
    try child().container(keyedBy: type)
  }

  mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer { try child().unkeyedContainer() }
  mutating func superDecoder() throws -> any Decoder { try child() }
}

struct SingleAttributeDecoder: SingleValueDecodingContainer {
  let decoder: AttributeDecoder

  var codingPath: [any CodingKey] { [] }

  func decodeNil() -> Bool { decoder.value == .null }
  func decode(_ type: Bool.Type) throws -> Bool { try decoder.bool() }
  func decode(_ type: String.Type) throws -> String { try decoder.string() }
  func decode(_ type: Double.Type) throws -> Double { try decoder.real(type) }
  func decode(_ type: Float.Type) throws -> Float { try decoder.real(type) }
  func decode(_ type: Int.Type) throws -> Int { try decoder.integer(type) }
  func decode(_ type: Int8.Type) throws -> Int8 { try decoder.integer(type) }
  func decode(_ type: Int16.Type) throws -> Int16 { try decoder.integer(type) }
  func decode(_ type: Int32.Type) throws -> Int32 { try decoder.integer(type) }
  func decode(_ type: Int64.Type) throws -> Int64 { try decoder.integer(type) }
  func decode(_ type: UInt.Type) throws -> UInt { try decoder.integer(type) }
  func decode(_ type: UInt8.Type) throws -> UInt8 { try decoder.integer(type) }
  func decode(_ type: UInt16.Type) throws -> UInt16 { try decoder.integer(type) }
  func decode(_ type: UInt32.Type) throws -> UInt32 { try decoder.integer(type) }
  func decode(_ type: UInt64.Type) throws -> UInt64 { try decoder.integer(type) }
  func decode<T: Decodable>(_ type: T.Type) throws -> T {
    let inner = decoder.child(decoder.value, fallback: decoder.fallback, path: decoder.path)
    return try inner.decodeValue(type)
  }
}
