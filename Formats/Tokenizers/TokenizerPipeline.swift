import Base
import IR

/// What the normalizer, pre-tokenizer, decoder and post-processor of a `tokenizer.json` do, for the combinations mcc
/// knows.
struct TokenizerPipeline {
  let json: JSONField
  var isByteLevel = false
  var splitting = Tokenizer.Splitting.none
  var spacePrefix = Tokenizer.SpacePrefix.none
  var singlePrefix = false
  var stripsLeadingSpace = false
  /// Whether the decoder turns tokens like `<0x0A>` into bytes.
  var decodesBytes = false
  /// Ids before and after a text.
  var prefix: [Int] = []
  var suffix: [Int] = []
  private var replacesSpaces = false

  /// The symbol that stands for a space.
  private static let space = "\u{2581}"

  /// The regular expressions of pre-tokenizers, as the checkpoints spell them.
  private static let expressions: [String: Tokenizer.Splitting] = [
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#: .gpt2,
    #"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#: .gpt2,
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#:
      .llama3,
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#:
      .qwen2,
  ]

  init(_ json: JSONField) throws {
    self.json = json
    try readNormalizer(json["normalizer"])
    try readPreTokenizer(json["pre_tokenizer"])
    if isByteLevel {
      guard !replacesSpaces else { throw json.unsupported("a byte-level tokenizer with a normalizer") }
    } else {
      guard replacesSpaces else { throw json.unsupported("a tokenizer that neither replaces spaces nor is byte-level") }
    }
    try readDecoder(json["decoder"])
    try readPostProcessor(json["post_processor"])
  }

  /// The template alone, for tokenizers whose other steps are read elsewhere.
  init(template json: JSONField) throws {
    self.json = json
    try readPostProcessor(json["post_processor"])
  }

  private func type(of step: JSONField) throws -> String { try step["type"].string() }

  /// The steps of a `Sequence`, or the step itself; none if absent. Sequences do not nest.
  private func steps(_ field: JSONField, _ list: String) throws -> [JSONField] {
    guard field.exists else { return [] }
    guard try type(of: field) == "Sequence" else { return [field] }
    return try field[list].elements()
  }

  private func refuse(_ step: JSONField, _ role: String) throws -> CompileError {
    json.unsupported("the \(role) '\(try type(of: step))' at '\(step.path)' of a tokenizer")
  }

  /// Whether a step is `Replace` of one plain text by another.
  private func isReplace(_ step: JSONField, _ old: String, _ new: String) throws -> Bool {
    guard try type(of: step) == "Replace" else { return false }
    return try step["pattern"]["String"].optionalString() == old && step["content"].string() == new
  }

  private mutating func readNormalizer(_ field: JSONField) throws {
    for step in try steps(field, "normalizers") {
      if try type(of: step) == "Prepend", try step["prepend"].string() == Self.space, !replacesSpaces {
        spacePrefix = .eachPiece
      } else if try isReplace(step, " ", Self.space) {
        replacesSpaces = true
      } else {
        throw try refuse(step, "normalizer")
      }
    }
  }

  private mutating func readPreTokenizer(_ field: JSONField) throws {
    for step in try steps(field, "pretokenizers") {
      guard !isByteLevel else { throw try refuse(step, "pre-tokenizer after ByteLevel") }
      switch try type(of: step) {
      case "ByteLevel":
        isByteLevel = true
        if try step["use_regex"].bool(or: true) {
          guard splitting == .none else { throw json.unsupported("a tokenizer that splits text twice") }
          splitting = .gpt2
        }
        if try step["add_prefix_space"].bool(or: true) {
          guard splitting == .gpt2 else { throw json.unsupported("'add_prefix_space' after a split") }
          spacePrefix = .eachPiece
          singlePrefix = true
        }
      case "Split":
        let expression = try step["pattern"]["Regex"].string()
        guard let known = Self.expressions[expression], splitting == .none,
          try step["behavior"].string() == "Isolated", try !step["invert"].bool(or: false)
        else { throw json.unsupported("the regular expression '\(expression)' at '\(step.path)' of a tokenizer") }
        splitting = known
      case "Metaspace": try readMetaspace(step)
      default: throw try refuse(step, "pre-tokenizer")
      }
    }
    guard isByteLevel || splitting == .none || splitting == .metaspace else {
      throw json.unsupported("a tokenizer that splits text by a regular expression and is not byte-level")
    }
  }

  private mutating func readMetaspace(_ step: JSONField) throws {
    guard try step["replacement"].string() == Self.space, spacePrefix == .none, splitting == .none else {
      throw try refuse(step, "pre-tokenizer")
    }
    replacesSpaces = true
    singlePrefix = true
    let scheme = try step["add_prefix_space"].bool(or: true) ? "always" : "never"
    switch try step["prepend_scheme"].string(or: scheme) {
    case "always": spacePrefix = .eachPiece
    case "first": spacePrefix = .start
    case "never": spacePrefix = .none
    case let other: throw json.unsupported("the scheme '\(other)' at '\(step.path)' of a tokenizer")
    }
    splitting = try step["split"].bool(or: true) ? .metaspace : .none
  }

  private mutating func readDecoder(_ field: JSONField) throws {
    let steps = try steps(field, "decoders")
    guard !steps.isEmpty else { throw json.unsupported("a tokenizer without a decoder") }
    if isByteLevel {
      guard steps.count == 1, try type(of: steps[0]) == "ByteLevel" else { throw try refuse(steps[0], "decoder") }
      return
    }
    var restoresSpaces = false
    for step in steps {
      switch try type(of: step) {
      case "Replace":
        guard try isReplace(step, Self.space, " ") else { throw try refuse(step, "decoder") }
        restoresSpaces = true
      case "ByteFallback": decodesBytes = true
      case "Fuse": break
      case "Strip":
        guard try step["content"].string() == " ", try step["start"].int() == 1, try step["stop"].int() == 0 else {
          throw try refuse(step, "decoder")
        }
        stripsLeadingSpace = true
      case "Metaspace":
        guard try step["replacement"].string() == Self.space else { throw try refuse(step, "decoder") }
        let scheme = try step["add_prefix_space"].bool(or: true) ? "always" : "never"
        stripsLeadingSpace = try step["prepend_scheme"].string(or: scheme) != "never"
        restoresSpaces = true
      default: throw try refuse(step, "decoder")
      }
    }
    guard restoresSpaces else { throw json.unsupported("a decoder that does not restore spaces") }
  }

  private mutating func readPostProcessor(_ field: JSONField) throws {
    var hasTemplate = false
    for step in try steps(field, "processors") {
      switch try type(of: step) {
      case "ByteLevel": continue
      case "TemplateProcessing" where !hasTemplate:
        hasTemplate = true
        try readTemplate(step)
      case "BertProcessing" where !hasTemplate, "RobertaProcessing" where !hasTemplate:
        hasTemplate = true
        prefix = [try endToken(step["cls"])]
        suffix = [try endToken(step["sep"])]
      default: throw try refuse(step, "post-processor")
      }
    }
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
      }
    }
    guard seenText, prefix.count <= 1, suffix.count <= 1 else {
      throw json.unsupported("a template at '\(step.path)' with more than one token before or after the text")
    }
  }
}
