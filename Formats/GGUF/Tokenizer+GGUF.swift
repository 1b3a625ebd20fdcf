import Base
import IR

extension Tokenizer {
  /// Reads the tokenizer of a GGUF file: `llama` (scored pieces), `gpt2` (byte-level merges), `bert` (word pieces) or `t5`
  /// (unigram); nil if it has none.
  init?(gguf keys: inout GGUFMetadata, vocabulary: Int, limits: LoadLimits) throws {
    guard let kind = try keys.optionalString("tokenizer.ggml.model") else { return nil }
    switch kind {
    case "llama": self.init(algorithm: .scoredBPE)
    case "gpt2": self.init(algorithm: .byteLevelBPE)
    case "bert": self.init(algorithm: .wordPiece)
    case "t5": self.init(algorithm: .unigram)
    case "none", "no_vocab": return nil
    default:
      throw keys.failure(
        "a tokenizer of type '\(kind)' is not supported, only llama, gpt2, bert and t5", kind: .unsupported)
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
    switch algorithm {
    case .scoredBPE:
      try readScores(&keys, limits)
      useSpaceSymbol(prefix: try keys.optionalBool("tokenizer.ggml.add_space_prefix") ?? true)
    case .unigram:
      try readScores(&keys, limits)
      try readCharsmap(&keys, limits)
    case .wordPiece: readWordPieces()
    default: try readMerges(&keys, index, limits)
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
      if kind == .control || kind == .added || kind == .unknown, !tokens[id].isEmpty { added.append(Added(id: id)) }
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
    scores = numbers.map { Double($0) }
    byteFallback = kinds.contains(.byte)
  }

  /// The normalizer of a `t5` tokenizer.
  private mutating func readCharsmap(_ keys: inout GGUFMetadata, _ limits: LoadLimits) throws {
    let key = "tokenizer.ggml.precompiled_charsmap"
    let charsmap = try keys.optionalBytes(key, limits: limits) ?? []
    if !charsmap.isEmpty { try Charsmap.check(charsmap) { keys.failure("'\(key)' \($0)") } }
    fusesUnknown = true
    useSentencePiece(
      charsmap: charsmap, prefix: try keys.optionalBool("tokenizer.ggml.add_space_prefix") ?? true,
      removesSpaces: try keys.optionalBool("tokenizer.ggml.remove_extra_whitespaces") ?? true)
  }

  /// Word pieces have `▁` at the start of a word instead of `##` inside of it.
  private mutating func readWordPieces() {
    mark = "##"
    for (id, text) in tokens.enumerated() where kinds[id] == .normal {
      // A combining mark makes one character with what is before it, so that scalars are compared.
      let isStart = text.unicodeScalars.first == "\u{2581}"
      tokens[id] = isStart ? String(String.UnicodeScalarView(text.unicodeScalars.dropFirst())) : mark + text
      if tokens[id].isEmpty { kinds[id] = .unused }
    }
    normalizers = [Self.bertNormalizer]
    splitters = Self.bertSplitters
    decoders = [TokenDecoder(.wordPieces, text: mark)]
  }

  private mutating func readMerges(_ keys: inout GGUFMetadata, _ index: TokenIndex, _ limits: LoadLimits) throws {
    let pre = try keys.optionalString("tokenizer.ggml.pre") ?? "default"
    guard let splits = Self.splitters(pre: pre) else {
      throw keys.failure("'tokenizer.ggml.pre' '\(pre)' is not supported", kind: .unsupported)
    }
    splitters = splits + [Splitter(.bytes)]
    decoders = [TokenDecoder(.bytes)]
    ignoresMerges = Self.wholeWords.contains(pre)
    if try keys.optionalBool("tokenizer.ggml.add_space_prefix") ?? false {
      splitters.insert(Splitter(.spacePrefix), at: 0)
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
    let isBert = algorithm == .wordPiece
    let pre = try keys.optionalString("tokenizer.ggml.pre") ?? "default"
    let ids = 0...max(tokens.count - 1, 0)
    func id(_ name: String, _ fallback: Int?, _ keys: inout GGUFMetadata) throws -> Int? {
      try keys.optionalInt("tokenizer.ggml.\(name)_token_id", in: ids)
        ?? fallback.flatMap { ids.contains($0) ? $0 : nil }
    }
    beginID = try id("bos", isScored ? 1 : nil, &keys)
    unknownID = try id("unknown", isScored ? 0 : isBert ? 100 : algorithm == .unigram ? 2 : nil, &keys)
    if isBert { beginID = try id("cls", 101, &keys) ?? beginID }
    let separator = isBert ? try id("seperator", nil, &keys) ?? id("separator", nil, &keys) : nil
    if let end = try separator ?? id("eos", isScored ? 2 : algorithm == .unigram ? 1 : nil, &keys) { endIDs = [end] }
    for name in ["eot", "eom"] {
      if let end = try id(name, nil, &keys), !endIDs.contains(end) { endIDs.append(end) }
    }
    let isBeginUsual = isScored || isBert || Self.beginning.contains(pre)
    let addsBegin = try keys.optionalBool("tokenizer.ggml.add_bos_token") ?? isBeginUsual
    if addsBegin, let beginID { prefix = [beginID] }
    let addsEnd = try keys.optionalBool("tokenizer.ggml.add_eos_token") ?? (isBert || algorithm == .unigram)
    if addsEnd, let end = endIDs.first { suffix = [end] }
  }
}
