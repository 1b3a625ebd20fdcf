import Base
import IR

extension Tokenizer {
  /// Puts the tokenizer into the metadata of a GGUF file, for a network that knows `vocabulary` tokens.
  ///
  /// - Returns: sentences about what the format does not say.
  /// - Throws: ``CompileError`` of kind `.unsupported` if readers would encode texts altogether otherwise.
  func write(to writer: inout GGUFWriter, vocabulary: Int) throws -> [String] {
    guard tokens.count <= vocabulary else {
      throw CompileError(.input, "the tokenizer has \(tokens.count) tokens, but the network knows \(vocabulary)")
    }
    var notes: [String] = []
    var texts = tokens
    switch algorithm {
    case .byteLevelBPE: notes += try writeByteLevel(&writer)
    case .scoredBPE, .byteFallbackBPE: notes += try writeScored(&writer)
    case .wordPiece:
      try writeWordPiece(&writer)
      texts = zip(tokens, kinds).map { text, kind in
        guard kind == .normal else { return text }
        // A combining mark makes one character with what is before it, so that bytes are compared.
        guard text.utf8.starts(with: mark.utf8) else { return Self.spaceSymbol + text }
        return String(decoding: text.utf8.dropFirst(mark.utf8.count), as: UTF8.self)
      }
    case .unigram: notes += try writeUnigram(&writer)
    case .wordLevel: throw Self.refused("its words are tokens as they are")
    }
    // Readers want as many tokens as the network knows, each with a text of its own.
    for id in 0..<vocabulary where id >= texts.count || texts[id].isEmpty {
      if id >= texts.count { texts.append("") }
      texts[id] = "[PAD\(id)]"
    }
    writer["tokenizer.ggml.tokens"] = .strings(texts)
    var types = kinds.map(\.rawValue) + [Int](repeating: Kind.unused.rawValue, count: vocabulary - kinds.count)
    if let unknownID { types[unknownID] = Kind.unknown.rawValue }
    writer["tokenizer.ggml.token_type"] = .i32s(types)
    notes += writeTemplate(&writer)
    if added.contains(where: { $0.stripsLeft || $0.stripsRight || $0.singleWord }) {
      notes.append("GGUF does not say which tokens take white space beside them, or stand alone")
    }
    return notes
  }

  private static func refused(_ reason: String) -> CompileError {
    CompileError(.unsupported, "the tokenizer has no place in GGUF: \(reason)")
  }

  // MARK: Algorithms

  /// The values of `tokenizer.ggml.pre` that are written, of equal ones the first.
  private static let writtenRules = [
    "gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o", "starcoder", "falcon", "deepseek-coder", "deepseek-v3", "bloom",
    "viking", "default",
  ]

  /// Those of them whose expressions llama.cpp has in a simpler form.
  private static let approximated: Set<String> = ["gpt-4o", "tekken", "deepseek-coder"]

  private func writeByteLevel(_ writer: inout GGUFWriter) throws -> [String] {
    var notes: [String] = []
    for normalizer in normalizers {
      guard [.nfc, .nfkc, .nfd, .nfkd].contains(normalizer.kind) else {
        throw Self.refused("it changes text by '\(normalizer.kind.rawValue)'")
      }
      notes.append("GGUF does not say that text is brought into the form \(normalizer.kind.rawValue) first")
    }
    var splits = Array(splitters.dropLast().map(\.plain))
    let hasPrefix = splits.first?.kind == .spacePrefix
    if hasPrefix { splits.removeFirst() }
    func isRule(_ name: String) -> Bool { Self.splitters(pre: name)?.map(\.plain) == splits }
    let names = Self.writtenRules.filter(isRule)
    guard let name = names.first(where: { Self.wholeWords.contains($0) == ignoresMerges }) ?? names.first else {
      throw Self.refused("it cuts text into words in a way that has no name there")
    }
    if Self.wholeWords.contains(name) != ignoresMerges {
      let how = ignoresMerges ? "are merged from parts all the same" : "are not merged from parts"
      notes.append("readers of GGUF take it that words that are tokens as a whole \(how)")
    }
    if Self.approximated.contains(name) {
      notes.append("llama.cpp cuts some words with combining marks otherwise than the rule '\(name)' says")
    }
    writer["tokenizer.ggml.model"] = .string("gpt2")
    writer["tokenizer.ggml.pre"] = .string(name)
    if hasPrefix {
      writer["tokenizer.ggml.add_space_prefix"] = .bool(true)
      notes.append("not all readers of GGUF put a space before a text for such tokenizers")
    }
    writer["tokenizer.ggml.merges"] = .strings(
      stride(from: 0, to: merges.count - 1, by: 2).map { place in
        "\(tokens[Int(merges[place])]) \(tokens[Int(merges[place + 1])])"
      })
    return notes
  }

  private func writeScored(_ writer: inout GGUFWriter) throws -> [String] {
    guard let prefix = spacePrefix else { throw Self.refused("it changes or cuts text in other ways than at spaces") }
    guard byteFallback else { throw Self.refused("it has no tokens for bytes") }
    guard mark.isEmpty, endMark.isEmpty, !ignoresMerges else { throw Self.refused("tokens inside of words are marked") }
    var notes: [String] = []
    if prefix, normalizers.contains(where: \.onlyFirst) || splitters.first?.kind == .spaces {
      notes.append("readers of GGUF put a space before every piece between special tokens, whatever it begins with")
    }
    let (numbers, lost) = scoresForMerging()
    writeScores(numbers, prefix: prefix, model: "llama", &writer)
    return notes + lost
  }

  private func writeScores(_ numbers: [Float], prefix: Bool, model: String, _ writer: inout GGUFWriter) {
    writer["tokenizer.ggml.model"] = .string(model)
    writer["tokenizer.ggml.pre"] = .string("default")
    writer["tokenizer.ggml.scores"] = .f32s(numbers)
    writer["tokenizer.ggml.add_space_prefix"] = .bool(prefix)
  }

  private func writeWordPiece(_ writer: inout GGUFWriter) throws {
    guard normalizers == [Self.bertNormalizer], splitters == Self.bertSplitters else {
      throw Self.refused("it changes or cuts text in other ways than BERT without case")
    }
    guard mark == "##" else { throw Self.refused("tokens inside of words begin with '\(mark)'") }
    writer["tokenizer.ggml.model"] = .string("bert")
    if writer["tokenizer.ggml.token_type_count"] == nil { writer["tokenizer.ggml.token_type_count"] = .u32(2) }
  }

  private func writeUnigram(_ writer: inout GGUFWriter) throws -> [String] {
    let charsmap = normalizers.first { $0.kind == .charsmap }?.text.flatMap { Base64.decode($0) } ?? []
    let allowed: Set<Normalizer.Kind> = [.charsmap, .replace, .strip, .prepend]
    guard normalizers.allSatisfy({ allowed.contains($0.kind) }),
      splitters.allSatisfy({ $0.kind == .spaces || $0.pattern?.text == Self.spaceSymbol })
    else { throw Self.refused("it changes or cuts text in other ways than SentencePiece") }
    let prefix =
      normalizers.contains { $0.kind == .prepend } || splitters.contains { $0.kind == .spaces && $0.prefix != .never }
    let removes = normalizers.contains { $0.kind == .strip || ($0.kind == .replace && $0.pattern?.run != nil) }
    writeScores(scores.map { Float($0) }, prefix: prefix, model: "t5", &writer)
    writer["tokenizer.ggml.remove_extra_whitespaces"] = .bool(removes)
    if !charsmap.isEmpty { writer["tokenizer.ggml.precompiled_charsmap"] = .bytes(charsmap) }
    var notes = byteFallback ? ["GGUF does not say that unknown characters become bytes"] : []
    if removes, !normalizers.contains(where: { $0.kind == .strip && $0.right }) {
      notes.append("readers of GGUF leave out spaces at the end of a text")
    }
    return notes
  }

  // MARK: Ids

  private func writeTemplate(_ writer: inout GGUFWriter) -> [String] {
    var notes: [String] = []
    func set(_ name: String, _ id: Int?) {
      if let id { writer["tokenizer.ggml.\(name)_token_id"] = .u32(id) }
    }
    let (first, last) = (prefix.first ?? beginID, suffix.first ?? endIDs.first)
    set("bos", first)
    set("eos", last)
    set("unknown", unknownID)
    if algorithm == .wordPiece {
      set("cls", first)
      // The key is spelled so.
      set("seperator", last)
    } else if let turn = endIDs.first(where: { $0 != last }) {
      set("eot", turn)
    }
    writer["tokenizer.ggml.add_bos_token"] = .bool(!prefix.isEmpty)
    writer["tokenizer.ggml.add_eos_token"] = .bool(!suffix.isEmpty)
    if prefix.count > 1 || suffix.count > 1 {
      notes.append("GGUF says one token before and behind a text, not \(prefix.count) and \(suffix.count)")
    }
    return notes
  }

  /// How BERT without case changes text.
  static var bertNormalizer: Normalizer {
    var bert = Normalizer(.bert)
    bert.bert = .init()
    return bert
  }

  /// How BERT cuts text into words.
  static let bertSplitters = [
    Splitter(Pattern(Run(.space)), .removed), Splitter(Pattern(Run(.delimiter)), .isolated),
  ]
}

extension Tokenizer.Splitter {
  /// The same with one name for the class of numbers, which has two, and one spelling for rules that find all of a text.
  fileprivate var plain: Tokenizer.Splitter {
    var copy = self
    let isComplete = [.gpt2, .llama3, .qwen2, .o200k, .tekken, .deepseek3].contains(pattern?.rule)
    if isComplete, behavior == .removed, inverted {
      copy.behavior = .isolated
      copy.inverted = false
    }
    if let run = pattern?.run { copy.pattern?.run?.classes = run.classes.map { $0 == .numeric ? .number : $0 } }
    return copy
  }
}
