import Base
import Tensors

extension CodingUserInfoKey {
  /// The symbols in scope, `[String: Symbol]`, when sizes are decoded.
  package static let symbols = CodingUserInfoKey(unchecked: "symbols")

  private init(unchecked name: String) {
    guard let key = CodingUserInfoKey(rawValue: name) else { preconditionFailure("'\(name)' is a key") }
    self = key
  }
}

/// A size is coded as its text; symbols are looked up in the decoder's user information.
extension Dim: Codable {
  package init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    self = try Dim.parse(text, symbols: decoder.userInfo[.symbols] as? [String: Symbol] ?? [:])
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
