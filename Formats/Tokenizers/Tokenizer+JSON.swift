import Base
import IR

extension Tokenizer {
  /// What of a `tokenizer.json` is read as text, because it may have hundreds of thousands of entries.
  static let largeMembers = [["model", "vocab"], ["model", "merges"]]

  /// Reads a `tokenizer.json` of the `tokenizers` library: byte pair encoding, word pieces, unigram and whole words, with
  /// the steps that ``TokenizerPipeline`` knows. What is not supported is refused by name.
  ///
  /// ``largeMembers`` of `document` are text. `config` is `tokenizer_config.json`, which names the first and the last token of
  /// a text; `vocabulary` is the number of tokens the network knows: added tokens beyond it are left out, others are an
  /// error.
  init(
    _ document: JSONDocument, config: JSONField?, generation: GenerationSettings, vocabulary: Int, limits: LoadLimits
  ) throws {
    let json = document.root
    let model = json["model"]
    let pipeline = try TokenizerPipeline(json)
    self.init(algorithm: try Self.algorithm(of: model, pipeline))
    normalizers = pipeline.normalizers
    splitters = pipeline.splitters
    decoders = pipeline.decoders
    var index: TokenIndex
    switch algorithm {
    case .unigram:
      index = try readPieces(document, vocabulary: vocabulary, limits: limits)
    case .wordPiece, .wordLevel:
      index = try readVocabulary(document, vocabulary: vocabulary, limits: limits)
      if algorithm == .wordPiece {
        mark = try model["continuing_subword_prefix"].string(or: "##")
        let limit = model["max_input_chars_per_word"]
        if limit.exists { wordLimit = try limit.int(in: 0...1 << 30) }
      }
      try readUnknown(json, index)
    default:
      try readBPESettings(json)
      index = try readVocabulary(document, vocabulary: vocabulary, limits: limits)
      try readMerges(document, index)
      try readUnknown(json, index)
    }
    try readAddedTokens(json, &index, vocabulary: vocabulary, limits: limits)
    try readTemplate(pipeline)
    try readEnds(config, index, generation)
  }

  /// Files of old versions leave the type out.
  private static func algorithm(of model: JSONField, _ pipeline: TokenizerPipeline) throws -> Algorithm {
    let guess = model["merges"].exists ? "BPE" : model["unk_id"].exists ? "Unigram" : "WordPiece"
    switch try model["type"].string(or: guess) {
    case "WordPiece": return .wordPiece
    case "WordLevel": return .wordLevel
    case "Unigram": return .unigram
    case "BPE":
      let isByteLevel =
        pipeline.splitters.last?.kind == .bytes && pipeline.decoders.first?.kind == .bytes
        && pipeline.splitters.dropLast().allSatisfy { $0.kind != .bytes }
        && pipeline.normalizers.allSatisfy { $0.kind != .bytes }
      let isMarked = try ["continuing_subword_prefix", "end_of_word_suffix"].contains {
        try model[$0].string(or: "") != ""
      }
      let fallsBack = try model["byte_fallback"].bool(or: false)
      return isByteLevel && !isMarked && !fallsBack ? .byteLevelBPE : .byteFallbackBPE
    case let kind: throw model.unsupported("a tokenizer of type '\(kind)'")
    }
  }

  private mutating func readBPESettings(_ json: JSONField) throws {
    let model = json["model"]
    mark = try model["continuing_subword_prefix"].string(or: "")
    endMark = try model["end_of_word_suffix"].string(or: "")
    guard mark.utf8.count <= 100, endMark.utf8.count <= 100 else {
      throw json.failure("the marks of 'model' have more than 100 bytes")
    }
    guard try model["dropout"].double(or: 0) == 0 else { throw json.unsupported("'model.dropout' in a tokenizer") }
    byteFallback = try model["byte_fallback"].bool(or: false)
    ignoresMerges = try model["ignore_merges"].bool(or: false)
    fusesUnknown = try model["fuse_unk"].bool(or: false)
  }

  /// The tokens of a unigram model: texts with scores, in the order of their ids.
  private mutating func readPieces(
    _ document: JSONDocument, vocabulary: Int, limits: LoadLimits
  ) throws -> TokenIndex {
    let model = document.root["model"]
    guard var cursor = document.cursor("model", "vocab"), cursor.enter(.array) else {
      throw model.failure("'model.vocab' is missing or no array")
    }
    guard cursor.count <= min(limits.tokens, vocabulary) else {
      throw model.failure("found \(cursor.count) tokens, but the network knows \(vocabulary)")
    }
    var index = TokenIndex(capacity: cursor.count + 64)
    byteFallback = try model["byte_fallback"].bool(or: false)
    fusesUnknown = true
    while try cursor.nextElement() {
      let id = tokens.count
      let place = cursor.offset
      guard let (text, score) = try Self.readPiece(&cursor, id, &index) else {
        throw cursor.failure("'model.vocab[\(id)]' is no pair of a text and a finite score", at: place)
      }
      tokens.append(text)
      scores.append(score)
      kinds.append(text.isEmpty ? .unused : byteFallback && byteOfToken(text) != nil ? .byte : .normal)
    }
    guard model["unk_id"].exists else { return index }
    guard !tokens.isEmpty else { throw model.failure("'model.unk_id' names a token, but there is none") }
    let unknown = try model["unk_id"].int(in: 0...tokens.count - 1)
    unknownID = unknown
    kinds[unknown] = .unknown
    return index
  }

  /// Reads `["text", -1.5]`; nil if something else is there.
  private static func readPiece(
    _ cursor: inout JSONCursor, _ id: Int, _ index: inout TokenIndex
  ) throws -> (text: String, score: Double)? {
    let place = cursor.offset
    guard cursor.enter(.array), try cursor.nextElement(), let bytes = try cursor.string() else { return nil }
    let text = String(decoding: bytes, as: UTF8.self)
    let earlier = index.insert(bytes, id)
    guard try cursor.nextElement(), let number = try cursor.number(), let score = Score.asPublished(number),
      try !cursor.nextElement()
    else { return nil }
    if let earlier { throw cursor.failure("tokens \(earlier) and \(id) are both '\(text)'", at: place) }
    return (text, score)
  }

  private mutating func readUnknown(_ json: JSONField, _ index: TokenIndex) throws {
    guard let unknown = try json["model"]["unk_token"].optionalString() else { return }
    guard let id = index.id(of: unknown) else {
      throw json.failure("'model.unk_token' is '\(unknown)', which is not in the vocabulary")
    }
    unknownID = id
    kinds[id] = .unknown
  }

  private mutating func readVocabulary(
    _ document: JSONDocument, vocabulary: Int, limits: LoadLimits
  ) throws -> TokenIndex {
    let model = document.root["model"]
    guard var cursor = document.cursor("model", "vocab"), cursor.enter(.object) else {
      throw model.failure("'model.vocab' is missing or no object")
    }
    guard cursor.count <= limits.tokens else {
      throw model.failure("\(cursor.count) tokens, at most \(limits.tokens) are allowed")
    }
    var index = TokenIndex(capacity: cursor.count + 64)
    var isSet = [Bool](repeating: false, count: vocabulary)
    var texts = [String](repeating: "", count: vocabulary)
    var last = -1
    while let bytes = try cursor.nextKey() {
      let place = cursor.offset
      let text = String(decoding: bytes, as: UTF8.self)
      guard let id = try cursor.integer(), id >= 0 else {
        throw cursor.failure("the id of token '\(text)' is no positive integer", at: place)
      }
      guard id < vocabulary else {
        throw cursor.failure("token '\(text)' has id \(id), but the network knows \(vocabulary) tokens", at: place)
      }
      guard index.insert(bytes, id) == nil else { throw cursor.failure("duplicate key '\(text)'", at: place) }
      guard !isSet[id] else {
        throw cursor.failure("tokens '\(texts[id])' and '\(text)' have the same id \(id)", at: place)
      }
      isSet[id] = true
      texts[id] = text
      last = max(last, id)
    }
    texts.removeLast(vocabulary - last - 1)
    tokens = texts
    kinds = zip(tokens, isSet).map { text, isSet in
      if !isSet || text.isEmpty { return .unused }
      return byteFallback && byteOfToken(text) != nil ? .byte : .normal
    }
    return index
  }

  private mutating func readMerges(_ document: JSONDocument, _ index: TokenIndex) throws {
    guard var cursor = document.cursor("model", "merges"), cursor.enter(.array) else {
      throw document.root["model"].failure("'model.merges' is missing or no array")
    }
    var reader = MergeReader(index, mark: mark, count: cursor.count)
    while try cursor.nextElement() {
      let place = cursor.offset
      let rank = reader.merges.count / 2
      do {
        try Self.readMerge(&cursor, &reader)
      } catch let error as MergeFailure {
        throw cursor.failure("'model.merges[\(rank)]' \(error.message)", at: place)
      }
    }
    merges = reader.merges
  }

  /// Reads `"left right"` or `["left", "right"]`.
  private static func readMerge(_ cursor: inout JSONCursor, _ reader: inout MergeReader) throws {
    if let merge = try cursor.string() { return try reader.add(merge) }
    guard cursor.enter(.array), try cursor.nextElement(), let left = try cursor.string() else {
      throw MergeFailure.notTwoTexts
    }
    try reader.setLeft(left)
    guard try cursor.nextElement(), let right = try cursor.string() else { throw MergeFailure.notTwoTexts }
    try reader.addRight(right)
    guard try !cursor.nextElement() else { throw MergeFailure.notTwoTexts }
  }

  private mutating func readAddedTokens(
    _ json: JSONField, _ index: inout TokenIndex, vocabulary: Int, limits: LoadLimits
  ) throws {
    let list = try json["added_tokens"].optionalElements() ?? []
    guard list.count <= limits.tokens else {
      throw json.failure("\(list.count) added tokens, at most \(limits.tokens) are allowed")
    }
    var seen: Set<Int> = []
    for entry in list {
      let id = try entry["id"].int(in: 0...Int(Int32.max))
      let text = try entry["content"].string()
      guard !text.isEmpty else { throw entry.failure("'\(entry.path).content' is empty") }
      if let known = index.id(of: text), known != id {
        throw entry.failure("added token '\(text)' has id \(id), but \(known) in the vocabulary")
      }
      guard id < vocabulary else { continue }
      while tokens.count <= id {
        tokens.append("")
        kinds.append(.unused)
        if algorithm == .unigram { scores.append(0) }
      }
      guard kinds[id] == .unused || tokens[id].utf8.elementsEqual(text.utf8) else {
        throw entry.failure("added token '\(text)' has id \(id), which is that of '\(tokens[id])'")
      }
      guard seen.insert(id).inserted else { throw entry.failure("added token '\(text)' occurs twice") }
      tokens[id] = text
      kinds[id] = try entry["special"].bool(or: false) ? .control : .added
      _ = index.insert(text, id)
      var token = Added(id: id)
      token.stripsLeft = try entry["lstrip"].bool(or: false)
      token.stripsRight = try entry["rstrip"].bool(or: false)
      token.singleWord = try entry["single_word"].bool(or: false)
      token.normalized = try entry["normalized"].bool(or: false)
      added.append(token)
    }
    added.sort { $0.id < $1.id }
  }

  private mutating func readTemplate(_ pipeline: TokenizerPipeline) throws {
    prefix = pipeline.prefix
    suffix = pipeline.suffix
    guard (prefix + suffix).allSatisfy({ $0 < tokens.count && kinds[$0] != .unused }) else {
      throw pipeline.json.failure("the post-processor names a token that is not in the vocabulary")
    }
  }

  private mutating func readEnds(
    _ config: JSONField?, _ index: TokenIndex, _ generation: GenerationSettings
  ) throws {
    func id(_ key: String) throws -> Int? {
      guard let field = config?[key], field.exists else { return nil }
      let text = field.value?.object == nil ? try field.string() : try field["content"].string()
      return index.id(of: text)
    }
    beginID = try id("bos_token") ?? generation.beginID
    endIDs = try id("eos_token").map { [$0] } ?? generation.endIDs
    // These classes rebuild the template from two settings.
    let rebuilding = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"]
    if let config, let name = try config["tokenizer_class"].optionalString(),
      rebuilding.contains(where: { name.hasPrefix($0) })
    {
      if let adds = try config["add_bos_token"].optionalBool() { prefix = adds ? beginID.map { [$0] } ?? [] : [] }
      if let adds = try config["add_eos_token"].optionalBool() {
        suffix = adds ? endIDs.first.map { [$0] } ?? [] : []
      }
    }
    if let first = prefix.first { beginID = first }
    if let last = suffix.first {
      endIDs.removeAll { $0 == last }
      endIDs.insert(last, at: 0)
    }
  }
}

extension JSONField {
  /// An error that says mcc does not support `what`.
  func unsupported(_ what: String) -> CompileError {
    CompileError(.unsupported, "\(what) is not supported", subject: .init(file: file))
  }
}
