import Base
import Tensors

/// Reads one value of the tree, over what the defaults have in its place.
final class AttributeDecoder: Decoder {
  /// What holds for a whole tree.
  struct Context {
    var owner: String
    var symbols: [String: Symbol]
  }

  /// Where in the tree a value lies.
  indirect enum Path {
    case root
    case key(Path, String)
    case index(Path, Int)

    var text: String {
      switch self {
      case .root: ""
      case .key(.root, let key): key
      case .key(let parent, let key): parent.text + "." + key
      case .index(let parent, let index): parent.text + "[\(index)]"
      }
    }
  }

  /// A failure that names its place already.
  struct Failure: Error {
    var error: CompileError
  }

  let value: AttributeValue
  let fallback: AttributeValue?
  let path: Path
  let context: Context
  /// The keys that were asked for, in order; nil as long as nobody asked for a dictionary.
  private(set) var requested: [String]?
  private var children: [AttributeDecoder] = []

  init(_ value: AttributeValue, fallback: AttributeValue?, path: Path, context: Context) {
    self.value = value
    self.fallback = fallback
    self.path = path
    self.context = context
  }

  var codingPath: [any CodingKey] { [] }
  var userInfo: [CodingUserInfoKey: Any] { [.symbols: context.symbols] }

  // MARK: Errors

  func failure(_ message: String) -> CompileError {
    let place = path.text
    return CompileError(
      .input, place.isEmpty ? "\(context.owner) \(message)" : "'\(place)' of \(context.owner) \(message)")
  }

  func mismatch(expected: String) -> Failure {
    Failure(error: failure("is \(value.kind), expected \(expected)"))
  }

  // MARK: Reading

  /// Reads a `T` and then objects to keys that it did not ask for.
  func decode<T: Decodable>(_ type: T.Type) throws -> T {
    do {
      return try decodeValue(type)
    } catch let failure as Failure {
      throw failure.error
    }
  }

  func decodeValue<T: Decodable>(_ type: T.Type) throws -> T {
    if type == Dim.self, let dim = try decodeDim() as? T { return dim }
    do {
      let result = try T(from: self)
      try refuseUnknownKeys()
      return result
    } catch let error as Failure {
      if let choices = Self.choices(of: type) { throw mismatch(expected: Self.list(choices, suggestionFor: value)) }
      throw error
    } catch let error as DecodingError {
      if let choices = Self.choices(of: type) { throw mismatch(expected: Self.list(choices, suggestionFor: value)) }
      throw Failure(error: failure("cannot be read: \(Self.describe(error))"))
    } catch let error as CompileError {
      throw Failure(error: failure("is wrong: \(error.message)"))
    }
  }

  private func decodeDim() throws -> Dim {
    let dim: Dim
    switch value {
    case .integer(let number): dim = .fixed(number)
    case .string(let text):
      do {
        dim = try Dim.parse(text, symbols: context.symbols)
      } catch let error as CompileError {
        throw Failure(error: failure("is '\(text)', expected a size: \(error.message)"))
      }
    default: throw mismatch(expected: "a size")
    }
    guard dim.checkedBounds != nil else { throw Failure(error: failure("is \(dim), which is out of range")) }
    return dim
  }

  func request(_ key: String) {
    requested?.append(key)
  }

  private func refuseUnknownKeys() throws {
    for child in children { try child.refuseUnknownKeys() }
    guard case .dictionary(let dictionary) = value, !dictionary.isEmpty else { return }
    // A structure without properties asks for no container.
    guard let requested = requested ?? (children.isEmpty ? [] : nil) else { return }
    if requested.count > 32 {
      let known = Set(requested)
      for entry in dictionary.entries where !known.contains(entry.key) { throw unknown(entry.key, requested) }
    } else {
      for entry in dictionary.entries where !requested.contains(entry.key) { throw unknown(entry.key, requested) }
    }
  }

  private func unknown(_ key: String, _ requested: [String]) -> Failure {
    var valid: [String] = []
    for key in requested where !valid.contains(key) { valid.append(key) }
    let place = path.text
    let owner = place.isEmpty ? context.owner : "'\(place)' of \(context.owner)"
    if valid.isEmpty { return Failure(error: CompileError(.input, "unknown key '\(key)': \(owner) takes no keys")) }
    let suggestion = nearest(key, in: valid).map { ", did you mean '\($0)'?" } ?? ","
    return Failure(
      error: CompileError(
        .input, "unknown key '\(key)' of \(owner)\(suggestion) valid keys are \(valid.joined(separator: ", "))"))
  }

  static func list(_ choices: [String], suggestionFor value: AttributeValue) -> String {
    var text = "one of " + choices.joined(separator: ", ")
    if case .string(let found) = value, let suggestion = nearest(found, in: choices) {
      text += "; did you mean '\(suggestion)'?"
    }
    return text
  }

  /// The raw values of an enumeration that lists its cases.
  private static func choices(of type: Any.Type) -> [String]? {
    guard type is any RawRepresentable.Type, let type = type as? any CaseIterable.Type else { return nil }
    func list<C: CaseIterable>(_ type: C.Type) -> [String]? {
      var choices: [String] = []
      for item in type.allCases {
        guard let item = item as? any RawRepresentable else { return nil }
        choices.append("\(item.rawValue)")
      }
      return choices
    }
    return list(type)
  }

  private static func describe(_ error: DecodingError) -> String {
    switch error {
    case .typeMismatch(_, let context), .valueNotFound(_, let context), .keyNotFound(_, let context),
      .dataCorrupted(let context):
      let text = context.debugDescription
      return text.prefix(1).lowercased() + (text.hasSuffix(".") ? text.dropFirst().dropLast() : text.dropFirst())
    @unknown default: return "\(error)"
    }
  }

  // MARK: Containers

  private func fallbackDictionary() -> AttributeDictionary? {
    if case .dictionary(let dictionary)? = fallback { return dictionary }
    return nil
  }

  func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
    guard case .dictionary(let dictionary) = value else { throw mismatch(expected: "a dictionary") }
    if requested == nil {
      requested = []
      requested?.reserveCapacity(8)
    }
    return KeyedDecodingContainer(
      KeyedAttributeDecoder<Key>(decoder: self, dictionary: dictionary, fallback: fallbackDictionary()))
  }

  func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
    guard case .array(let values) = value else { throw mismatch(expected: "a list") }
    return UnkeyedAttributeDecoder(decoder: self, values: values)
  }

  func singleValueContainer() -> any SingleValueDecodingContainer { SingleAttributeDecoder(decoder: self) }

  /// A decoder of a part of this value, whose keys are checked together with those of this one.
  func child(_ value: AttributeValue, fallback: AttributeValue?, path: Path) -> AttributeDecoder {
    let child = AttributeDecoder(value, fallback: fallback, path: path, context: context)
    children.append(child)
    return child
  }

  // MARK: Single values

  func bool() throws -> Bool {
    guard case .bool(let flag) = value else { throw mismatch(expected: "true or false") }
    return flag
  }

  func string() throws -> String {
    guard case .string(let text) = value else { throw mismatch(expected: "a string") }
    return text
  }

  func integer<I: FixedWidthInteger>(_ type: I.Type) throws -> I {
    switch value {
    case .integer(let number):
      if let result = I(exactly: number) { return result }
    case .unsigned(let number):
      if let result = I(exactly: number) { return result }
    default: throw mismatch(expected: "an integer")
    }
    throw mismatch(expected: "an integer in \(I.min)...\(I.max)")
  }

  func real<F: BinaryFloatingPoint & LosslessStringConvertible>(_ type: F.Type) throws -> F {
    switch value {
    case .integer(let number): return F(number)
    case .unsigned(let number): return F(number)
    case .real("nan"): return .nan
    case .real("-nan"): return -F.nan
    case .real("inf"): return .infinity
    case .real("-inf"): return -F.infinity
    case .real(let text):
      guard let number = F(text) else { throw mismatch(expected: "a number") }
      guard number.isFinite else { throw mismatch(expected: "a number of at most \(F.greatestFiniteMagnitude)") }
      return number
    default: throw mismatch(expected: "a number")
    }
  }
}
