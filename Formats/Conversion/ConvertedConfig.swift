import Base

/// The members of a `config.json` on the way to another format: each must be taken, be known to have no effect on what
/// the network computes, or say nothing.
struct ConvertedConfig {
  private let members: JSONObject
  private var takenKeys: Set<String> = []
  /// The width of a head.
  var headDim = 0

  init(_ members: JSONObject) { self.members = members }

  /// The value under `key`, which counts as taken; nil if it is missing or null.
  mutating func value(_ key: String) -> JSON? {
    takenKeys.insert(key)
    guard let value = members[key] else { return nil }
    if case .null = value { return nil }
    return value
  }

  mutating func int(_ key: String) -> Int? { value(key)?.int }

  mutating func bool(_ key: String) -> Bool? { value(key)?.bool }

  /// A number without counting it as taken.
  func taken(_ key: String) -> Int? { members[key]?.int }

  /// Throws if a key that may matter has not been taken.
  func requireAllTaken(architecture: String) throws {
    for (key, value) in members where !takenKeys.contains(key) && !CheckpointConfig.isNeutral(key, value) {
      throw CompileError(
        .unsupported, "'\(key)' is \(value.text()), which the architecture '\(architecture)' of GGUF does not express")
    }
  }
}
