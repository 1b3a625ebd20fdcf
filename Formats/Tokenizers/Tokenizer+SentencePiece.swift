import Base
import IR

extension Tokenizer {
  /// The symbol that stands for a space in pieces of SentencePiece.
  static let spaceSymbol = "\u{2581}"

  /// Spaces are `▁` in tokens; with `prefix` one is put before each piece of text, which decoding leaves out again.
  mutating func useSpaceSymbol(prefix: Bool) {
    normalizers = []
    if prefix {
      var prepend = Normalizer(.prepend)
      prepend.text = Self.spaceSymbol
      normalizers.append(prepend)
    }
    finishSpaces(prefix: prefix)
  }

  /// The normalization of SentencePiece: its map, runs of spaces if `removesSpaces`, and with `prefix` a space before the
  /// text.
  mutating func useSentencePiece(charsmap: [UInt8], prefix: Bool, removesSpaces: Bool) {
    normalizers = []
    if !charsmap.isEmpty {
      var map = Normalizer(.charsmap)
      map.text = Base64.encode(charsmap)
      normalizers.append(map)
    }
    if removesSpaces {
      var run = Run()
      run.ranges = [0x20, 0x20]
      run.least = 2
      run.most = 0
      var replace = Normalizer(.replace)
      replace.pattern = Pattern(run)
      replace.text = " "
      var strip = Normalizer(.strip)
      strip.text = " "
      strip.left = true
      strip.right = true
      normalizers += [replace, strip]
    }
    if prefix {
      var prepend = Normalizer(.prepend)
      prepend.text = Self.spaceSymbol
      prepend.onlyFirst = true
      normalizers.append(prepend)
    }
    finishSpaces(prefix: prefix)
  }

  private mutating func finishSpaces(prefix: Bool) {
    var replace = Normalizer(.replace)
    replace.pattern = Pattern(text: " ")
    replace.text = Self.spaceSymbol
    normalizers.append(replace)
    var spaces = TokenDecoder(.replace, text: Self.spaceSymbol)
    spaces.content = " "
    decoders = [spaces, TokenDecoder(.byteTokens), TokenDecoder(.fuse)]
    if prefix {
      var strip = TokenDecoder(.strip, text: " ")
      strip.left = 1
      decoders.append(strip)
    }
  }

  /// Reads `tokenizer.model`, a `ModelProto` of SentencePiece: unigram and BPE.
  ///
  /// `config` is `tokenizer_config.json`, which says what stands before and behind a text; `vocabulary` the number of
  /// tokens the network knows.
  init(sentencePiece file: MappedFile, config: JSONField?, vocabulary: Int, limits: LoadLimits) throws {
    let model = try SentencePieceModel(file, vocabulary: min(vocabulary, limits.tokens))
    func failure(_ message: String, _ kind: CompileError.Kind = .input) -> CompileError {
      CompileError(kind, message, subject: .init(file: file.path))
    }
    switch model.type {
    case 1: self.init(algorithm: .unigram)
    case 2: self.init(algorithm: .scoredBPE)
    default: throw failure("a model of type \(model.type) is not supported, only unigram (1) and BPE (2)", .unsupported)
    }
    guard !model.spaceAsSuffix else { throw failure("'treat_whitespace_as_suffix' is not supported", .unsupported) }
    guard model.escapesSpaces else { throw failure("'escape_whitespaces' = false is not supported", .unsupported) }
    guard !model.tokens.isEmpty else { throw failure("it has no pieces") }
    var index = TokenIndex(capacity: model.tokens.count)
    for (id, text) in model.tokens.enumerated() where !text.isEmpty {
      if let earlier = index.insert(text, id) { throw failure("pieces \(earlier) and \(id) are both '\(text)'") }
      if [.control, .unknown, .added].contains(model.kinds[id]) { added.append(Added(id: id)) }
      guard model.kinds[id] != .byte || byteOfToken(text) != nil else {
        throw failure("piece \(id), '\(text)', is no byte like '<0x0A>'")
      }
    }
    tokens = model.tokens
    kinds = model.kinds
    scores = model.scores
    byteFallback = kinds.contains(.byte)
    fusesUnknown = true
    useSentencePiece(charsmap: model.charsmap, prefix: model.addsPrefix, removesSpaces: model.removesSpaces)
    unknownID = kinds.firstIndex(of: .unknown)
    func id(_ id: Int) -> Int? { tokens.indices.contains(id) && kinds[id] == .control ? id : nil }
    beginID = id(model.beginID)
    endIDs = id(model.endID).map { [$0] } ?? []
    let name = try config?["tokenizer_class"].optionalString() ?? ""
    let begins = ["Llama", "CodeLlama", "Gemma"].contains { name.hasPrefix($0) }
    if try config?["add_bos_token"].optionalBool() ?? begins, let beginID { prefix = [beginID] }
    let ends = name.hasPrefix("T5")
    if try config?["add_eos_token"].optionalBool() ?? ends, let end = endIDs.first { suffix = [end] }
  }
}

/// What `ModelProto` of SentencePiece says (sentencepiece_model.proto).
private struct SentencePieceModel {
  var tokens: [String] = []
  var kinds: [Tokenizer.Kind] = []
  var scores: [Double] = []
  var type = 1
  var spaceAsSuffix = false
  var beginID = 1
  var endID = 2
  var charsmap: [UInt8] = []
  var addsPrefix = true
  var removesSpaces = true
  var escapesSpaces = true

  init(_ file: MappedFile, vocabulary: Int) throws {
    try withExtendedLifetime(file) {
      var reader = ProtobufReader(file.bytes, 0..<file.size, file: file.path)
      while let (field, value) = try reader.next() {
        guard case .bytes(let range) = value else { continue }
        var message = ProtobufReader(file.bytes, range, file: file.path)
        switch field {
        case 1:
          guard tokens.count < vocabulary else {
            throw message.failure(
              "there are more pieces than the \(vocabulary) the network knows", at: range.lowerBound)
          }
          try readPiece(&message, file.bytes)
        case 2: try readTrainer(&message)
        case 3: try readNormalizer(&message, file.bytes)
        default: break
        }
      }
    }
  }

  private mutating func readPiece(_ message: inout ProtobufReader, _ bytes: UnsafeRawBufferPointer) throws {
    let start = message.offset
    var text = ""
    var score: Float = 0
    var kind = Tokenizer.Kind.normal
    while let (field, value) = try message.next() {
      switch (field, value) {
      case (1, .bytes(let range)):
        guard let valid = String(validating: bytes[range], as: UTF8.self) else {
          throw message.failure("piece \(tokens.count) is no UTF-8", at: range.lowerBound)
        }
        text = valid
      case (2, .fixed32(let bits)): score = Float(bitPattern: bits)
      case (3, .varint(let number)):
        guard let known = Tokenizer.Kind(rawValue: Int(clamping: number)) else {
          throw message.failure("piece \(tokens.count) has the unknown type \(number)", at: start)
        }
        kind = known
      default: break
      }
    }
    guard score.isFinite else { throw message.failure("piece \(tokens.count) has no finite score", at: start) }
    tokens.append(text)
    scores.append(Double(score))
    // User-defined pieces are numbered like added tokens.
    kinds.append(text.isEmpty ? .unused : kind)
  }

  private mutating func readTrainer(_ message: inout ProtobufReader) throws {
    while let (field, value) = try message.next() {
      guard case .varint(let number) = value else { continue }
      // Negative numbers take ten bytes.
      let signed = Int(Int64(bitPattern: number))
      switch field {
      case 3: type = signed
      case 24: spaceAsSuffix = number != 0
      case 41: beginID = signed
      case 42: endID = signed
      default: break
      }
    }
  }

  private mutating func readNormalizer(_ message: inout ProtobufReader, _ bytes: UnsafeRawBufferPointer) throws {
    while let (field, value) = try message.next() {
      switch (field, value) {
      case (2, .bytes(let range)):
        charsmap = Array(bytes[range])
        let start = range.lowerBound
        if !charsmap.isEmpty {
          try Charsmap.check(charsmap) { message.failure("'precompiled_charsmap' \($0)", at: start) }
        }
      case (3, .varint(let flag)): addsPrefix = flag != 0
      case (4, .varint(let flag)): removesSpaces = flag != 0
      case (5, .varint(let flag)): escapesSpaces = flag != 0
      default: break
      }
    }
  }
}
