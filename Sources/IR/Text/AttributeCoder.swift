import Base
import Tensors

/// Turns any `Codable` structure into an ``AttributeValue`` and back.
///
/// Keys keep their order of declaration. Decoding lays the given keys over defaults, so that each may be left out; a key
/// that the structure does not read is an error. Optionals that are nil are left out, enumerations with raw values are
/// those values, ``Exact`` is the number inside, and a size (`Dim`) is a number or a string.
package enum AttributeCoder {
  /// The tree of `value`. Where `defaults`, the tree that the text will be read over, has something and `value` has nil,
  /// the nil is said.
  package static func encode<T: Encodable>(_ value: T, defaults: AttributeValue? = nil) throws -> AttributeValue {
    try AttributeEncoder.encode(value, defaults: defaults)
  }

  /// The attributes of `value` as a dictionary, empty for a structure without any.
  package static func attributes<T: Encodable>(
    of value: T, defaults: AttributeDictionary? = nil
  ) throws -> AttributeDictionary {
    guard case .dictionary(let attributes) = try encode(value, defaults: defaults.map { .dictionary($0) }) else {
      throw CompileError(.internal, "\(T.self) does not encode as a set of attributes")
    }
    return attributes
  }

  /// Reads a `T` from what the user wrote over the tree of its defaults.
  ///
  /// Messages name `owner` as what the attributes belong to; sizes may name the `symbols`. Throws a `CompileError` of kind
  /// `.input` that names the key, what was found and what was expected.
  package static func decode<T: Decodable>(
    _ type: T.Type, from value: AttributeValue, defaults: AttributeValue? = nil, of owner: String,
    symbols: [String: Symbol] = [:]
  ) throws -> T {
    let decoder = AttributeDecoder(
      value, fallback: defaults, path: .root, context: .init(owner: owner, symbols: symbols))
    do {
      return try decoder.decode(type)
    } catch let error as DecodingError {
      throw decoder.failure("cannot be read: \(error)")
    }
  }

  /// Reads a `T` over the defaults of `T()`.
  package static func decode<T: Codable & DefaultInitializable>(
    _ type: T.Type, overDefaults attributes: AttributeDictionary, of owner: String, symbols: [String: Symbol] = [:]
  ) throws -> T {
    try decode(
      type, from: .dictionary(attributes), defaults: try encode(T()), of: owner, symbols: symbols)
  }
}

/// A structure whose keys may all be left out in the text, wherever it stands.
package protocol DefaultInitializable {
  init()
}
