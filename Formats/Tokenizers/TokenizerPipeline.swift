import Base
import IR

/// The normalizer, pre-tokenizer, decoder and post-processor of a `tokenizer.json`.
///
/// A step, or a setting of one, that mcc does not know is refused by name.
struct TokenizerPipeline {
  let json: JSONField
  private(set) var normalizers: [Tokenizer.Normalizer] = []
  private(set) var splitters: [Tokenizer.Splitter] = []
  private(set) var decoders: [Tokenizer.TokenDecoder] = []
  /// Ids before and after a text.
  private(set) var prefix: [Int] = []
  private(set) var suffix: [Int] = []
  private var hasTemplate = false

  /// More steps than any tokenizer has.
  private static let stepLimit = 60

  init(_ json: JSONField) throws {
    self.json = json
    for step in try steps(json["normalizer"], "normalizers") { try readNormalizer(step) }
    for step in try steps(json["pre_tokenizer"], "pretokenizers") { try readSplitter(step) }
    for step in try steps(json["decoder"], "decoders") { try readDecoder(step) }
    for step in try steps(json["post_processor"], "processors") { try readPostProcessor(step) }
    if decoders.isEmpty { decoders = [.init(.separate)] }
  }

  private func type(of step: JSONField) throws -> String { try step["type"].string() }

  /// The steps of a `Sequence`, or the step itself; none if absent.
  private func steps(_ field: JSONField, _ list: String) throws -> [JSONField] {
    guard field.exists else { return [] }
    guard try type(of: field) == "Sequence" else { return [field] }
    let all = try field[list].elements().flatMap { try steps($0, list) }
    guard all.count <= Self.stepLimit else {
      throw json.failure("'\(field.path)' has \(all.count) steps, at most \(Self.stepLimit) are allowed")
    }
    return all
  }

  private func refuse(_ step: JSONField, _ role: String) throws -> CompileError {
    json.unsupported("the \(role) '\(try type(of: step))' at '\(step.path)' of a tokenizer")
  }

  /// Refuses settings other than these.
  private func expect(_ step: JSONField, only keys: String...) throws {
    for (key, _) in try step.members() where key != "type" && !keys.contains(key) {
      throw json.unsupported("the setting '\(key)' of '\(try type(of: step))' at '\(step.path)' of a tokenizer")
    }
  }

  private func pattern(_ step: JSONField) throws -> Tokenizer.Pattern {
    let field = step["pattern"]
    // Old files have the text itself.
    if let text = field.value?.string ?? field["String"].value?.string {
      guard !text.isEmpty else { throw json.failure("'\(field.path)' is empty") }
      return Tokenizer.Pattern(text: text)
    }
    let expression = try field["Regex"].string()
    guard let pattern = Tokenizer.Pattern(expression: expression) else {
      throw json.unsupported("the regular expression '\(expression)' at '\(step.path)' of a tokenizer")
    }
    return pattern
  }

  // MARK: Normalizers

  private mutating func readNormalizer(_ step: JSONField) throws {
    var made: Tokenizer.Normalizer
    switch try type(of: step) {
    case "NFC": made = .init(.nfc)
    case "NFD": made = .init(.nfd)
    case "NFKC": made = .init(.nfkc)
    case "NFKD": made = .init(.nfkd)
    case "Lowercase": made = .init(.lowercase)
    case "StripAccents": made = .init(.stripAccents)
    case "Nmt": made = .init(.nmt)
    case "ByteLevel": made = .init(.bytes)
    case "Strip":
      try expect(step, only: "strip_left", "strip_right")
      made = .init(.strip)
      made.left = try step["strip_left"].bool(or: true)
      made.right = try step["strip_right"].bool(or: true)
    case "Replace":
      try expect(step, only: "pattern", "content")
      made = .init(.replace)
      made.pattern = try pattern(step)
      made.text = try step["content"].string()
    case "Prepend":
      try expect(step, only: "prepend")
      made = .init(.prepend)
      made.text = try step["prepend"].string()
    case "BertNormalizer":
      try expect(step, only: "clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
      made = .init(.bert)
      var bert = Tokenizer.Normalizer.Bert()
      bert.cleansText = try step["clean_text"].bool(or: true)
      bert.spacesIdeographs = try step["handle_chinese_chars"].bool(or: true)
      bert.lowersCase = try step["lowercase"].bool(or: true)
      bert.stripsAccents = try step["strip_accents"].bool(or: bert.lowersCase)
      made.bert = bert
    case "Precompiled":
      try expect(step, only: "precompiled_charsmap")
      let text = try step["precompiled_charsmap"].string(or: "")
      guard !text.isEmpty else { return }
      guard let bytes = Base64.decode(text) else {
        throw json.failure("'\(step.path).precompiled_charsmap' is not written in base 64")
      }
      try Charsmap.check(bytes) { json.failure("'\(step.path).precompiled_charsmap' \($0)") }
      made = .init(.charsmap)
      made.text = text
      made.byGraphemes = true
    default: throw try refuse(step, "normalizer")
    }
    normalizers.append(made)
  }

  // MARK: Pre-tokenizers

  private mutating func readSplitter(_ step: JSONField) throws {
    switch try type(of: step) {
    case "ByteLevel":
      try expect(step, only: "add_prefix_space", "trim_offsets", "use_regex")
      if try step["add_prefix_space"].bool(or: true) { splitters.append(.init(.spacePrefix)) }
      if try step["use_regex"].bool(or: true) { splitters.append(.init(Tokenizer.Pattern(.gpt2), .isolated)) }
      splitters.append(.init(.bytes))
    case "Split":
      try expect(step, only: "pattern", "behavior", "invert")
      splitters.append(
        .init(try pattern(step), try behavior(step["behavior"]), inverted: try step["invert"].bool(or: false)))
    case "Metaspace": try readMetaspace(step)
    case "BertPreTokenizer":
      splitters.append(.init(Tokenizer.Pattern(Tokenizer.Run(.space)), .removed))
      splitters.append(.init(Tokenizer.Pattern(Tokenizer.Run(.delimiter)), .isolated))
    case "Punctuation":
      try expect(step, only: "behavior")
      let behavior = step["behavior"].exists ? try behavior(step["behavior"]) : .isolated
      splitters.append(.init(Tokenizer.Pattern(Tokenizer.Run(.delimiter)), behavior))
    case "Digits":
      try expect(step, only: "individual_digits")
      let single = try step["individual_digits"].bool(or: false)
      splitters.append(.init(Tokenizer.Pattern(Tokenizer.Run(.numeric)), single ? .isolated : .contiguous))
    case "Whitespace": splitters.append(.init(Tokenizer.Pattern(.words), .removed, inverted: true))
    case "WhitespaceSplit": splitters.append(.init(Tokenizer.Pattern(Tokenizer.Run(.space)), .removed))
    case "CharDelimiterSplit":
      try expect(step, only: "delimiter")
      let delimiter = try step["delimiter"].string()
      guard delimiter.unicodeScalars.count == 1 else {
        throw json.failure("'\(step.path).delimiter' is '\(delimiter)', expected one character")
      }
      splitters.append(.init(Tokenizer.Pattern(text: delimiter), .removed))
    default: throw try refuse(step, "pre-tokenizer")
    }
  }

  private func behavior(_ field: JSONField) throws -> Tokenizer.Splitter.Behavior {
    switch try field.string() {
    case "Isolated": return .isolated
    case "Removed": return .removed
    case "MergedWithPrevious": return .withPrevious
    case "MergedWithNext": return .withNext
    case "Contiguous": return .contiguous
    case let other: throw json.unsupported("the behavior '\(other)' at '\(field.path)' of a tokenizer")
    }
  }

  /// Whether a space stands before the text, by the settings of new and of old files.
  private func scheme(_ step: JSONField) throws -> Tokenizer.Splitter.Prefix {
    let old = try step["add_prefix_space"].bool(or: true) ? "always" : "never"
    let scheme = try step["prepend_scheme"].string(or: old)
    guard let known = Tokenizer.Splitter.Prefix(rawValue: scheme) else {
      throw json.unsupported("the scheme '\(scheme)' at '\(step.path)' of a tokenizer")
    }
    return known
  }

  private func replacement(_ step: JSONField) throws -> String {
    let text = try step["replacement"].string()
    guard text.unicodeScalars.count == 1 else {
      throw json.failure("'\(step.path).replacement' is '\(text)', expected one character")
    }
    return text
  }

  private mutating func readMetaspace(_ step: JSONField) throws {
    try expect(step, only: "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep")
    var made = Tokenizer.Splitter(.spaces)
    made.text = try replacement(step)
    made.prefix = try scheme(step)
    splitters.append(made)
    if try step["split"].bool(or: true) {
      splitters.append(.init(Tokenizer.Pattern(text: made.text ?? ""), .withNext))
    }
  }

  // MARK: Decoders

  private mutating func readDecoder(_ step: JSONField) throws {
    let isJoined = decoders.contains { $0.kind == .fuse || $0.kind == .bytes }
    switch try type(of: step) {
    case "ByteLevel": decoders.append(.init(.bytes))
    case "ByteFallback": decoders.append(.init(.byteTokens))
    case "Fuse": decoders.append(.init(.fuse))
    case "Metaspace":
      try expect(step, only: "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep")
      var made = Tokenizer.TokenDecoder(.spaces, text: try replacement(step))
      made.flag = try scheme(step) != .never
      decoders.append(made)
    case "WordPiece":
      try expect(step, only: "prefix", "cleanup")
      var made = Tokenizer.TokenDecoder(.wordPieces, text: try step["prefix"].string(or: "##"))
      made.flag = try step["cleanup"].bool(or: true)
      decoders.append(made)
    case "BPEDecoder":
      try expect(step, only: "suffix")
      decoders.append(.init(.wordEnds, text: try step["suffix"].string(or: "</w>")))
    case "Strip":
      try expect(step, only: "content", "start", "stop")
      var made = Tokenizer.TokenDecoder(.strip, text: try step["content"].string())
      guard made.text?.unicodeScalars.count == 1 else {
        throw json.failure("'\(step.path).content' is no single character")
      }
      made.left = try step["start"].int(in: 0...1 << 20)
      made.right = try step["stop"].int(in: 0...1 << 20)
      decoders.append(made)
    case "Replace":
      try expect(step, only: "pattern", "content")
      let pattern = try pattern(step)
      guard let text = pattern.text, !isJoined || text.unicodeScalars.count == 1 else {
        throw try refuse(step, "decoder")
      }
      var made = Tokenizer.TokenDecoder(.replace, text: text)
      made.content = try step["content"].string()
      decoders.append(made)
    default: throw try refuse(step, "decoder")
    }
    // Tokens that are joined are no tokens any more, which the steps behind would have to know.
    let last = decoders[decoders.count - 1].kind
    if isJoined, ![.fuse, .strip, .replace].contains(last) { throw try refuse(step, "decoder behind a joining one") }
  }

  // MARK: Post-processors

  private mutating func readPostProcessor(_ step: JSONField) throws {
    switch try type(of: step) {
    case "ByteLevel": return
    case "TemplateProcessing" where !hasTemplate: try readTemplate(step)
    case "BertProcessing" where !hasTemplate, "RobertaProcessing" where !hasTemplate:
      prefix = [try endToken(step["cls"])]
      suffix = [try endToken(step["sep"])]
    default: throw try refuse(step, "post-processor")
    }
    hasTemplate = true
  }

  /// The id of `["[SEP]", 102]`.
  private func endToken(_ field: JSONField) throws -> Int {
    let pair = try field.elements()
    guard pair.count == 2 else { throw json.failure("'\(field.path)' is no pair of a token and its id") }
    return try pair[1].int(in: 0...Int(Int32.max))
  }

  private mutating func readTemplate(_ step: JSONField) throws {
    var seenText = false
    for piece in try step["single"].elements() {
      if piece["Sequence"].exists {
        guard !seenText, try piece["Sequence"]["id"].string() == "A" else {
          throw try refuse(step, "post-processor")
        }
        seenText = true
      } else {
        let token = try piece["SpecialToken"]["id"].string()
        let ids = try step["special_tokens"][token]["ids"].elements().map { try $0.int(in: 0...Int(Int32.max)) }
        if seenText { suffix += ids } else { prefix += ids }
        guard prefix.count + suffix.count <= 1024 else {
          throw json.failure("the template at '\(step.path)' has more than 1024 tokens around the text")
        }
      }
    }
    guard seenText else { throw json.unsupported("the template at '\(step.path)', which leaves out the text,") }
  }
}
