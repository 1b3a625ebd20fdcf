/// A place in a JSON document that knows its path, for reading configuration with good messages.
///
/// `config["rope_scaling"]["factor"].double()` throws "missing 'rope_scaling.factor'" or "'rope_scaling.factor' is a
/// string, expected a number", with the file. A place may be absent; `null` counts as absent.
package struct JSONField: Sendable {
  /// The value; nil if there is none or it is null.
  package let value: JSON?
  /// Keys from the root joined by dots, positions in brackets; empty at the root.
  package let path: String
  /// The file the document came from.
  package let file: String
  /// Set where a key was looked up in something that is no object.
  private let misuse: String?

  private init(value: JSON?, path: String, file: String, misuse: String?) {
    if case .null? = value { self.value = nil } else { self.value = value }
    self.path = path
    self.file = file
    self.misuse = misuse
  }

  /// The root of a document.
  package init(_ root: JSON, file: String) { self.init(value: root, path: "", file: file, misuse: nil) }

  /// The root of the document in the file at `path`.
  package init(path: String) throws { self.init(try JSON.read(path: path), file: path) }

  /// Whether there is a value other than null.
  package var exists: Bool { value != nil }

  /// The member `key`, which may be absent.
  package subscript(key: String) -> JSONField {
    let inner = path.isEmpty ? key : "\(path).\(key)"
    guard let value else { return JSONField(value: nil, path: inner, file: file, misuse: misuse) }
    guard case .object(let object) = value else {
      return JSONField(value: nil, path: inner, file: file, misuse: misuse ?? mismatch("an object"))
    }
    return JSONField(value: object[key], path: inner, file: file, misuse: misuse)
  }

  /// The first of `keys` that exists; the first one if none does. For keys that have an old and a new spelling.
  package subscript(anyOf keys: String...) -> JSONField {
    let candidates = keys.map { self[$0] }
    return candidates.first { $0.exists } ?? candidates.first ?? self
  }

  private func mismatch(_ expected: String) -> String {
    let name = path.isEmpty ? "the document" : "'\(path)'"
    return "\(name) is \(value?.kindDescription ?? "missing"), expected \(expected)"
  }

  /// An error about this place.
  package func failure(_ message: String) -> CompileError {
    CompileError(.input, message, subject: .init(file: file))
  }

  private func require<Result>(_ expected: String, _ get: (JSON) -> Result?) throws -> Result {
    if let misuse { throw failure(misuse) }
    guard let value else { throw failure("missing '\(path)', expected \(expected)") }
    guard let result = get(value) else { throw failure(mismatch(expected)) }
    return result
  }

  /// Nil if this place is absent, else the result of `get`; a place inside something that is no object is an error.
  private func optional<Result>(_ get: (JSONField) throws -> Result) throws -> Result? {
    if let misuse { throw failure(misuse) }
    return exists ? try get(self) : nil
  }

  /// The integer here; numbers without fraction count.
  package func int() throws -> Int { try require("an integer") { $0.int } }

  /// The integer here, which must lie in `range`.
  package func int(in range: ClosedRange<Int>) throws -> Int {
    let value = try int()
    guard range.contains(value) else {
      throw failure("'\(path)' is \(value), expected \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }

  /// The number here.
  package func double() throws -> Double { try require("a number") { $0.double } }
  /// The boolean here.
  package func bool() throws -> Bool { try require("a boolean") { $0.bool } }
  /// The string here.
  package func string() throws -> String { try require("a string") { $0.string } }

  /// The elements of the array here.
  package func elements() throws -> [JSONField] {
    try require("an array") { $0.array }.enumerated().map { index, value in
      JSONField(value: value, path: "\(path)[\(index)]", file: file, misuse: nil)
    }
  }

  /// The members of the object here, in order.
  package func members() throws -> [(key: String, field: JSONField)] {
    try require("an object") { $0.object }.map { key, value in
      (key, JSONField(value: value, path: path.isEmpty ? key : "\(path).\(key)", file: file, misuse: nil))
    }
  }

  /// The integers of the array here.
  package func ints() throws -> [Int] { try elements().map { try $0.int() } }
  /// The strings of the array here.
  package func strings() throws -> [String] { try elements().map { try $0.string() } }

  /// The integer here, nil if absent.
  package func optionalInt() throws -> Int? { try optional { try $0.int() } }
  /// The number here, nil if absent.
  package func optionalDouble() throws -> Double? { try optional { try $0.double() } }
  /// The boolean here, nil if absent.
  package func optionalBool() throws -> Bool? { try optional { try $0.bool() } }
  /// The string here, nil if absent.
  package func optionalString() throws -> String? { try optional { try $0.string() } }
  /// The elements here, nil if absent.
  package func optionalElements() throws -> [JSONField]? { try optional { try $0.elements() } }

  /// The integer here, or `fallback` if absent.
  package func int(or fallback: Int) throws -> Int { try optionalInt() ?? fallback }
  /// The number here, or `fallback` if absent.
  package func double(or fallback: Double) throws -> Double { try optionalDouble() ?? fallback }
  /// The boolean here, or `fallback` if absent.
  package func bool(or fallback: Bool) throws -> Bool { try optionalBool() ?? fallback }
  /// The string here, or `fallback` if absent.
  package func string(or fallback: String) throws -> String { try optionalString() ?? fallback }
}
