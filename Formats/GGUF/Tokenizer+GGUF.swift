import Base
import IR

extension Tokenizer {
  /// Reads the tokenizer of a GGUF file: `llama` (scored pieces) or `gpt2` (byte-level merges); nil if it has none.
  init?(gguf keys: inout GGUFMetadata, vocabulary: Int, limits: LoadLimits) throws {
    guard let kind = try keys.optionalString("tokenizer.ggml.model") else { return nil }
    switch kind {
    case "llama": self.init(algorithm: .scoredBPE)
    case "gpt2": self.init(algorithm: .byteLevelBPE)
    case "none", "no_vocab": return nil
    default:
      throw keys.failure("a tokenizer of type '\(kind)' is not supported, only llama and gpt2", kind: .unsupported)
    }
    let key = "tokenizer.ggml.tokens"
    guard let texts = try keys.optionalStrings(key, limits: limits) else {
      throw keys.failure("missing '\(key)', expected an array of string")
    }
    guard texts.count == vocabulary else {
      throw keys.failure("'\(key)' has \(texts.count) tokens, but the network knows \(vocabulary)")
    }
    tokens = texts
    try readKinds(&keys, limits)
    let index = try tokenIndex(keys)
    if algorithm == .scoredBPE {
      try readScores(&keys, limits)
    } else {
      try readMerges(&keys, index, limits)
    }
    try readTemplate(&keys)
  }

  private mutating func readKinds(_ keys: inout GGUFMetadata, _ limits: LoadLimits) throws {
    let key = "tokenizer.ggml.token_type"
    guard let numbers = try keys.optionalInts(key, limits: limits) else {
      kinds = tokens.map { $0.isEmpty ? .unused : .normal }
      return
    }
    guard numbers.count == tokens.count else {
      throw keys.failure("'\(key)' has \(numbers.count) elements for \(tokens.count) tokens")
    }
    kinds.reserveCapacity(tokens.count)
    for (id, number) in numbers.enumerated() {
      // 0 stands for undefined.
      guard let kind = Kind(rawValue: number == 0 ? 1 : Int(number)) else {
        throw keys.failure("'\(key)[\(id)]' is \(number), expected 0 to 6")
      }
      guard kind != .byte || byteOfToken(tokens[id]) != nil else {
        throw keys.failure("token \(id), '\(tokens[id])', is no byte token like '<0x0A>'")
      }
      kinds.append(tokens[id].isEmpty ? .unused : kind)
      if kind == .control || kind == .added || kind == .unknown, !tokens[id].isEmpty { specials.append(id) }
    }
  }

  private func tokenIndex(_ keys: GGUFMetadata) throws -> TokenIndex {
    var index = TokenIndex(capacity: tokens.count)
    for (id, text) in tokens.enumerated() where !text.isEmpty {
      if let earlier = index.insert(text, id) {
        throw keys.failure("tokens \(earlier) and \(id) are both '\(text)'")
      }
    }
    return index
  }

  private mutating func readScores(_ keys: inout GGUFMetadata, _ limits: LoadLimits) throws {
    let key = "tokenizer.ggml.scores"
    guard let numbers = try keys.optionalFloats(key, limits: limits) else {
      throw keys.failure("missing '\(key)', expected an array of f32")
    }
    guard numbers.count == tokens.count else {
      throw keys.failure("'\(key)' has \(numbers.count) elements for \(tokens.count) tokens")
    }
    guard !numbers.contains(where: \.isNaN) else { throw keys.failure("'\(key)' contains NaN") }
    scores = numbers
    byteFallback = kinds.contains(.byte)
    if try keys.optionalBool("tokenizer.ggml.add_space_prefix") ?? true {
      spacePrefix = .eachPiece
      stripsLeadingSpace = true
    }
  }

  private mutating func readMerges(_ keys: inout GGUFMetadata, _ index: TokenIndex, _ limits: LoadLimits) throws {
    let pre = try keys.optionalString("tokenizer.ggml.pre") ?? "default"
    switch pre {
    case "default", "gpt-2": splitting = .gpt2
    case "llama3", "llama-v3", "llama-bpe":
      splitting = .llama3
      ignoresMerges = true
    case "qwen2": splitting = .qwen2
    default:
      throw keys.failure(
        "'tokenizer.ggml.pre' '\(pre)' is not supported, only default, gpt-2, llama-bpe and qwen2", kind: .unsupported)
    }
    if try keys.optionalBool("tokenizer.ggml.add_space_prefix") ?? false {
      spacePrefix = .eachPiece
      singlePrefix = true
    }
    let key = "tokenizer.ggml.merges"
    guard let list = try keys.optionalStrings(key, limits: limits) else {
      throw keys.failure("missing '\(key)', expected an array of string")
    }
    var reader = MergeReader(index, count: list.count)
    for (rank, merge) in list.enumerated() {
      do throws(MergeFailure) {
        try reader.add(merge)
      } catch {
        throw keys.failure("'\(key)[\(rank)]' \(error.message)")
      }
    }
    merges = reader.merges
  }

  private mutating func readTemplate(_ keys: inout GGUFMetadata) throws {
    let isScored = algorithm == .scoredBPE
    let ids = 0...max(tokens.count - 1, 0)
    func id(_ name: String, _ fallback: Int?, _ keys: inout GGUFMetadata) throws -> Int? {
      try keys.optionalInt("tokenizer.ggml.\(name)_token_id", in: ids)
        ?? fallback.flatMap { ids.contains($0) ? $0 : nil }
    }
    beginID = try id("bos", isScored ? 1 : nil, &keys)
    unknownID = try id("unknown", isScored ? 0 : nil, &keys)
    if let end = try id("eos", isScored ? 2 : nil, &keys) { endIDs = [end] }
    for name in ["eot", "eom"] {
      if let end = try id(name, nil, &keys), !endIDs.contains(end) { endIDs.append(end) }
    }
    let addsBegin = try keys.optionalBool("tokenizer.ggml.add_bos_token") ?? (isScored || splitting == .llama3)
    if addsBegin, let beginID { prefix = [beginID] }
    if try keys.optionalBool("tokenizer.ggml.add_eos_token") ?? false, let end = endIDs.first { suffix = [end] }
  }
}
