import Base
import IR

extension Tokenizer {
  /// Reads a `tokenizer.json` of the `tokenizers` library.
  ///
  /// Byte pair encoding in two forms: over characters with `▁` for spaces (Llama 2), or over bytes shown as characters
  /// (GPT-2, Llama 3); and word pieces (BERT). Every other combination of normalizer, pre-tokenizer, decoder and post-processor is refused by
  /// name.
  ///
  /// `config` is `tokenizer_config.json`, which names the first and the last token of a text; `vocabulary` is the number
  /// of tokens the network knows: added tokens beyond it are left out, others are an error.
  init(
    json: JSONField, config: JSONField?, generation: GenerationSettings, vocabulary: Int, limits: LoadLimits
  ) throws {
    let model = json["model"]
    let kind = try model["type"].string(or: "BPE")
    if kind == "WordPiece" {
      try self.init(wordPieces: json, config: config, vocabulary: vocabulary, limits: limits)
      return
    }
    guard kind == "BPE" else { throw json.unsupported("a tokenizer of type '\(kind)', only BPE and WordPiece") }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] where try model[key].string(or: "") != "" {
      throw json.unsupported("'model.\(key)' in a tokenizer")
    }
    guard try model["dropout"].double(or: 0) == 0 else { throw json.unsupported("'model.dropout' in a tokenizer") }

    let pipeline = try TokenizerPipeline(json)
    self.init(algorithm: pipeline.isByteLevel ? .byteLevelBPE : .byteFallbackBPE)
    splitting = pipeline.splitting
    spacePrefix = pipeline.spacePrefix
    singlePrefix = pipeline.singlePrefix
    stripsLeadingSpace = pipeline.stripsLeadingSpace
    byteFallback = try model["byte_fallback"].bool(or: false)
    ignoresMerges = try model["ignore_merges"].bool(or: false)
    fusesUnknown = try model["fuse_unk"].bool(or: false)
    guard !byteFallback || !pipeline.isByteLevel else {
      throw json.unsupported("'model.byte_fallback' in a byte-level tokenizer")
    }
    guard byteFallback == pipeline.decodesBytes || pipeline.isByteLevel else {
      throw json.unsupported("a tokenizer whose decoder and 'model.byte_fallback' disagree")
    }

    var index = try readVocabulary(model, vocabulary: vocabulary, limits: limits)
    try readMerges(model, index)
    try readAddedTokens(json, &index, vocabulary: vocabulary, limits: limits)
    try readUnknown(json, index)
    try readTemplate(pipeline, config)
    try readEnds(config, index, generation)
  }

  mutating func readUnknown(_ json: JSONField, _ index: TokenIndex) throws {
    guard let unknown = try json["model"]["unk_token"].optionalString() else { return }
    guard let id = index.id(of: unknown) else {
      throw json.failure("'model.unk_token' is '\(unknown)', which is not in the vocabulary")
    }
    unknownID = id
    kinds[id] = .unknown
  }

  mutating func readVocabulary(
    _ model: JSONField, vocabulary: Int, limits: LoadLimits
  ) throws -> TokenIndex {
    guard let members = model["vocab"].value?.object else {
      throw model.failure("'model.vocab' is missing or no object")
    }
    guard members.count <= limits.tokens else {
      throw model.failure("\(members.count) tokens, at most \(limits.tokens) are allowed")
    }
    var index = TokenIndex(capacity: members.count + 64)
    var isSet = [Bool](repeating: false, count: vocabulary)
    var texts = [String](repeating: "", count: vocabulary)
    var last = -1
    for (text, value) in members {
      guard let id = value.int, id >= 0 else { throw model.failure("the id of token '\(text)' is no positive integer") }
      guard id < vocabulary else {
        throw model.failure("token '\(text)' has id \(id), but the network knows \(vocabulary) tokens")
      }
      guard !isSet[id] else { throw model.failure("tokens '\(texts[id])' and '\(text)' have the same id \(id)") }
      isSet[id] = true
      texts[id] = text
      last = max(last, id)
      _ = index.insert(text, id)
    }
    texts.removeLast(vocabulary - last - 1)
    tokens = texts
    kinds = zip(tokens, isSet).map { text, isSet in
      if !isSet || text.isEmpty { return .unused }
      return byteFallback && byteOfToken(text) != nil ? .byte : .normal
    }
    return index
  }

  private mutating func readMerges(_ model: JSONField, _ index: TokenIndex) throws {
    guard let list = model["merges"].value?.array else {
      throw model.failure("'model.merges' is missing or no array")
    }
    var reader = MergeReader(index, count: list.count)
    for (rank, merge) in list.enumerated() {
      do throws(MergeFailure) {
        switch merge {
        case .string(let text): try reader.add(text)
        case .array(let pair):
          guard pair.count == 2, let left = pair[0].string, let right = pair[1].string else { throw .notTwoTexts }
          try reader.add(left, right)
        default: throw .notTwoTexts
        }
      } catch {
        throw model.failure("'model.merges[\(rank)]' \(error.message)")
      }
    }
    merges = reader.merges
  }

  mutating func readAddedTokens(
    _ json: JSONField, _ index: inout TokenIndex, vocabulary: Int, limits: LoadLimits
  ) throws {
    let list = try json["added_tokens"].optionalElements() ?? []
    guard list.count <= limits.tokens else {
      throw json.failure("\(list.count) added tokens, at most \(limits.tokens) are allowed")
    }
    var added: Set<Int> = []
    for entry in list {
      let id = try entry["id"].int(in: 0...Int(Int32.max))
      let text = try entry["content"].string()
      guard !text.isEmpty else { throw entry.failure("'\(entry.path).content' is empty") }
      guard try !entry["single_word"].bool(or: false) else {
        throw json.unsupported("the added token '\(text)' with 'single_word'")
      }
      if let known = index.id(of: text), known != id {
        throw entry.failure("added token '\(text)' has id \(id), but \(known) in the vocabulary")
      }
      guard id < vocabulary else { continue }
      while tokens.count <= id {
        tokens.append("")
        kinds.append(.unused)
      }
      guard kinds[id] == .unused || tokens[id].utf8.elementsEqual(text.utf8) else {
        throw entry.failure("added token '\(text)' has id \(id), which is that of '\(tokens[id])'")
      }
      guard added.insert(id).inserted else { throw entry.failure("added token '\(text)' occurs twice") }
      tokens[id] = text
      kinds[id] = try entry["special"].bool(or: false) ? .control : .added
      _ = index.insert(text, id)
      specials.append(id)
      if try entry["lstrip"].bool(or: false) { absorbsSpaceBefore.append(id) }
      if try entry["rstrip"].bool(or: false) { absorbsSpaceAfter.append(id) }
    }
    specials.sort()
    absorbsSpaceBefore.sort()
    absorbsSpaceAfter.sort()
  }

  mutating func readTemplate(_ pipeline: TokenizerPipeline, _ config: JSONField?) throws {
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
    // The slow and fast Llama tokenizers rebuild the template from these two settings.
    if let config, try config["tokenizer_class"].string(or: "").hasPrefix("LlamaTokenizer") {
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
