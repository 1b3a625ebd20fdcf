import Base
import IR

extension Tokenizer {
  /// The `tokenizer.json` that the library `tokenizers` reads as this tokenizer.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the step that the library does not have.
  func json() throws -> JSON {
    var (normalizers, splitters) = (normalizers, try json(splitters))
    if let place = normalizers.firstIndex(where: { $0.kind == .prepend && $0.onlyFirst }),
      normalizers.contains(where: { $0.kind == .strip }), normalizers.count == place + 2
    {
      // What is before the first word alone, after spaces have been stripped.
      normalizers.removeLast(2)
      splitters.insert(
        ["type": "Metaspace", "replacement": .string(Self.spaceSymbol), "prepend_scheme": "first", "split": false],
        at: 0)
    }
    return [
      "version": "1.0", "truncation": nil, "padding": nil, "added_tokens": .array(added.map { json($0) }),
      "normalizer": Self.sequence(try normalizers.map { try Self.json($0) }, "normalizers"),
      "pre_tokenizer": Self.sequence(splitters, "pretokenizers"), "post_processor": template,
      "decoder": Self.sequence(decoders.compactMap { Self.json($0) }, "decoders"), "model": model,
    ]
  }

  /// The `tokenizer_config.json` that `transformers` reads beside it.
  var settings: JSONObject {
    func text(_ id: Int?) -> JSON { id.map { .string(tokens[$0]) } ?? nil }
    return JSONObject([
      ("tokenizer_class", "PreTrainedTokenizerFast"), ("bos_token", text(prefix.first ?? beginID)),
      ("eos_token", text(suffix.first ?? endIDs.first)), ("unk_token", text(unknownID)),
      ("clean_up_tokenization_spaces", false),
    ])
  }

  private static func refused(_ what: String) -> CompileError {
    CompileError(.unsupported, "\(what) of the tokenizer has no place in tokenizer.json")
  }

  private static func sequence(_ steps: [JSON], _ list: String) -> JSON {
    switch steps.count {
    case 0: nil
    case 1: steps[0]
    default: .object(JSONObject([("type", "Sequence"), (list, .array(steps))]))
    }
  }

  private func json(_ token: Added) -> JSON {
    [
      "id": .int(token.id), "content": .string(tokens[token.id]), "single_word": .bool(token.singleWord),
      "lstrip": .bool(token.stripsLeft), "rstrip": .bool(token.stripsRight), "normalized": .bool(token.normalized),
      "special": .bool(kinds[token.id] != .added),
    ]
  }

  // MARK: Steps

  private static func json(_ step: Normalizer) throws -> JSON {
    switch step.kind {
    case .nfc: return ["type": "NFC"]
    case .nfd: return ["type": "NFD"]
    case .nfkc: return ["type": "NFKC"]
    case .nfkd: return ["type": "NFKD"]
    case .lowercase: return ["type": "Lowercase"]
    case .stripAccents: return ["type": "StripAccents"]
    case .nmt: return ["type": "Nmt"]
    case .bytes: return ["type": "ByteLevel"]
    // Only spaces are left where a text is given: maps of SentencePiece make all white space that.
    case .strip: return ["type": "Strip", "strip_left": .bool(step.left), "strip_right": .bool(step.right)]
    case .prepend: return ["type": "Prepend", "prepend": .string(step.text ?? "")]
    case .charsmap: return ["type": "Precompiled", "precompiled_charsmap": .string(step.text ?? "")]
    case .replace:
      guard let pattern = step.pattern.flatMap({ json($0) }) else { throw refused("a pattern") }
      return ["type": "Replace", "pattern": pattern, "content": .string(step.text ?? "")]
    case .bert:
      guard let bert = step.bert else { throw refused("the normalizer 'bert'") }
      return [
        "type": "BertNormalizer", "clean_text": .bool(bert.cleansText),
        "handle_chinese_chars": .bool(bert.spacesIdeographs), "strip_accents": .bool(bert.stripsAccents),
        "lowercase": .bool(bert.lowersCase),
      ]
    }
  }

  private static func json(_ pattern: Pattern) -> JSON? {
    if let text = pattern.text { return ["String": .string(text)] }
    return pattern.expression.map { ["Regex": .string($0)] }
  }

  private func json(_ steps: [Splitter]) throws -> [JSON] {
    guard steps.first?.kind == .spacePrefix else { return try steps.map { try Self.json($0) } }
    guard steps.count == 3, steps[1] == Splitter(Pattern(.gpt2), .isolated), steps[2].kind == .bytes else {
      throw Self.refused("the space before a text")
    }
    return [["type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true]]
  }

  private static func json(_ step: Splitter) throws -> JSON {
    switch step.kind {
    case .spacePrefix: throw refused("a space before words")
    case .bytes: return ["type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false]
    case .spaces:
      return [
        "type": "Metaspace", "replacement": .string(step.text ?? spaceSymbol),
        "prepend_scheme": .string(step.prefix.rawValue), "split": false,
      ]
    case .split: break
    }
    guard let pattern = step.pattern else { throw refused("a splitter without pattern") }
    let behavior: JSON =
      switch step.behavior {
      case .isolated: "Isolated"
      case .removed: "Removed"
      case .withPrevious: "MergedWithPrevious"
      case .withNext: "MergedWithNext"
      case .contiguous: "Contiguous"
      }
    if !step.inverted, let run = pattern.run {
      switch (run, step.behavior) {
      case (Run(.space), .removed): return ["type": "WhitespaceSplit"]
      case (Run(.delimiter), _): return ["type": "Punctuation", "behavior": behavior]
      case (Run(.numeric), .isolated): return ["type": "Digits", "individual_digits": true]
      case (Run(.numeric), .contiguous): return ["type": "Digits", "individual_digits": false]
      default: break
      }
    }
    guard let text = json(pattern) else { throw refused("a pattern") }
    return ["type": "Split", "pattern": text, "behavior": behavior, "invert": .bool(step.inverted)]
  }

  /// Nil for what the library does where nothing is said.
  private static func json(_ step: TokenDecoder) -> JSON? {
    switch step.kind {
    case .bytes: ["type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true]
    case .byteTokens: ["type": "ByteFallback"]
    case .fuse: ["type": "Fuse"]
    case .spaces:
      [
        "type": "Metaspace", "replacement": .string(step.text ?? spaceSymbol),
        "prepend_scheme": step.flag ? "always" : "never", "split": true,
      ]
    case .wordPieces: ["type": "WordPiece", "prefix": .string(step.text ?? "##"), "cleanup": .bool(step.flag)]
    case .wordEnds: ["type": "BPEDecoder", "suffix": .string(step.text ?? "")]
    case .strip:
      ["type": "Strip", "content": .string(step.text ?? ""), "start": .int(step.left), "stop": .int(step.right)]
    case .replace:
      [
        "type": "Replace", "pattern": ["String": .string(step.text ?? "")], "content": .string(step.content ?? ""),
      ]
    case .separate: nil
    }
  }

  /// What puts tokens around a text.
  private var template: JSON {
    if prefix.isEmpty, suffix.isEmpty { return nil }
    func pieces(_ ids: [Int], _ type: Int) -> [JSON] {
      ids.map { ["SpecialToken": ["id": .string(tokens[$0]), "type_id": .int(type)]] }
    }
    func text(_ name: String, _ type: Int) -> [JSON] {
      [["Sequence": ["id": .string(name), "type_id": .int(type)]]]
    }
    let single = pieces(prefix, 0) + text("A", 0) + pieces(suffix, 0)
    let specials = JSONObject(
      (prefix + suffix).map { id in
        let token = JSON.string(tokens[id])
        return (tokens[id], ["id": token, "ids": [.int(id)], "tokens": [token]] as JSON)
      })
    return [
      "type": "TemplateProcessing", "single": .array(single), "pair": .array(single + text("B", 1) + pieces(suffix, 1)),
      "special_tokens": .object(specials),
    ]
  }

  // MARK: Models

  private var model: JSON {
    let unknown: JSON = unknownID.map { .string(tokens[$0]) } ?? nil
    switch algorithm {
    case .byteLevelBPE, .byteFallbackBPE, .scoredBPE:
      let scored = algorithm == .scoredBPE
      let merges = scored ? mergesByScore() : merges
      return [
        "type": "BPE", "dropout": nil, "unk_token": unknown,
        "continuing_subword_prefix": mark.isEmpty ? nil : .string(mark),
        "end_of_word_suffix": endMark.isEmpty ? nil : .string(endMark), "fuse_unk": .bool(scored || fusesUnknown),
        "byte_fallback": .bool(byteFallback), "ignore_merges": .bool(ignoresMerges), "vocab": vocabulary,
        "merges": .array(merges.count > 1 ? json(merges) : []),
      ]
    case .wordPiece:
      return [
        "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": .string(mark),
        "max_input_chars_per_word": .int(wordLimit), "vocab": vocabulary,
      ]
    case .wordLevel: return ["type": "WordLevel", "vocab": vocabulary, "unk_token": unknown]
    case .unigram:
      return [
        "type": "Unigram", "unk_id": unknownID.map { .int($0) } ?? nil,
        "vocab": .array(zip(tokens, scores).map { [.string($0), .number($1)] }), "byte_fallback": .bool(byteFallback),
      ]
    }
  }

  private var vocabulary: JSON {
    var members = JSONObject()
    for (id, text) in tokens.enumerated() where !text.isEmpty { members[text] = .int(id) }
    return .object(members)
  }

  /// Merges as two texts with a space between them, or as pairs where a token has a space in it.
  private func json(_ merges: [Int32]) -> [JSON] {
    let pairs = stride(from: 0, to: merges.count - 1, by: 2).map {
      (tokens[Int(merges[$0])], tokens[Int(merges[$0 + 1])])
    }
    let hasSpaces = pairs.contains { $0.utf8.contains(0x20) || $1.utf8.contains(0x20) }
    return pairs.map { hasSpaces ? [.string($0), .string($1)] : .string("\($0) \($1)") }
  }
}
