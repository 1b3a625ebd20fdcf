import Base
import IR

/// Writes a tokenizer in the form that generated programs read: `Runtime/tokenizer.h` is the specification.
package enum TokenizerSection {
  private static let headerBytes = 128

  /// The section for a tokenizer.
  ///
  /// - Throws: `CompileError` of kind `.unsupported` for what the form cannot say, `.input` for a tokenizer that
  ///   contradicts itself.
  package static func encode(_ tokenizer: Tokenizer) throws -> [UInt8] {
    let count = tokenizer.tokens.count
    func failure(_ message: String) -> CompileError { CompileError(.input, "tokenizer: \(message)") }
    guard count > 0, count < 1 << 24 else { throw failure("found \(count) tokens, expected 1 to \(1 << 24 - 1)") }
    guard tokenizer.kinds.count == count else {
      throw failure("found \(tokenizer.kinds.count) kinds for \(count) tokens")
    }
    let isScored = tokenizer.algorithm == .scoredBPE
    guard !isScored || tokenizer.scores.count == count else {
      throw failure("found \(tokenizer.scores.count) scores for \(count) tokens")
    }
    let texts = try tokenizer.tokens.indices.map { try text(of: $0, in: tokenizer) }

    var offsets: [UInt32] = [0]
    var bytes: [UInt8] = []
    for text in texts {
      bytes += text
      offsets.append(UInt32(clamping: bytes.count))
    }
    guard bytes.count <= Int(UInt32.max) else { throw failure("the texts of the tokens have \(bytes.count) bytes") }
    let (specials, specialFlags) = specials(of: tokenizer, texts)
    let merges = isScored ? [] : tokenizer.merges
    guard merges.count % 2 == 0, merges.allSatisfy({ $0 >= 0 && Int($0) < count }) else {
      throw failure("a merge names a token that does not exist")
    }

    let arrays: [[UInt8]] = [
      data(offsets), bytes, tokenizer.kinds.map(kindCode), isScored ? data(tokenizer.scores) : [], data(merges),
      data(specials), specialFlags,
    ]
    var places: [UInt32] = []
    var body: [UInt8] = []
    for array in arrays {
      body += [UInt8](repeating: 0, count: (4 - body.count % 4) % 4)
      places.append(array.isEmpty ? 0 : UInt32(headerBytes + body.count))
      body += array
    }
    body += [UInt8](repeating: 0, count: (4 - body.count % 4) % 4)
    guard body.count <= Int(Int32.max) else { throw failure("it needs \(body.count) bytes, which are too many") }

    func id(_ id: Int?) -> Int32 { id.flatMap { (0..<count).contains($0) ? Int32($0) : nil } ?? -1 }
    var header = Array("mcctoken".utf8)
    let words: [UInt32] = [
      1, kindCode(tokenizer.algorithm), splitCode(tokenizer.splitting), try flags(of: tokenizer),
      prefixCode(tokenizer.spacePrefix),
      UInt32(count), UInt32(bitPattern: id(tokenizer.beginID)), UInt32(bitPattern: id(tokenizer.endIDs.first)),
      UInt32(bitPattern: id(tokenizer.unknownID)), UInt32(merges.count / 2), UInt32(specials.count),
      UInt32(headerBytes + body.count),
    ]
    guard let limit = UInt32(exactly: tokenizer.words?.limit ?? 0) else {
      throw failure("a word limit of \(tokenizer.words?.limit ?? 0) is out of range")
    }
    header += data(words + places + [limit])
    header += [UInt8](repeating: 0, count: headerBytes - header.count)
    return header + body
  }

  // MARK: Parts

  private static func data<Element>(_ values: [Element]) -> [UInt8] { values.withUnsafeBytes { Array($0) } }

  private static func kindCode(_ algorithm: Tokenizer.Algorithm) -> UInt32 {
    switch algorithm {
    case .byteFallbackBPE, .scoredBPE: 0
    case .byteLevelBPE: 1
    case .wordPiece: 2
    }
  }

  private static func splitCode(_ splitting: Tokenizer.Splitting) -> UInt32 {
    switch splitting {
    case .none: 0
    case .gpt2: 1
    case .llama3: 2
    case .qwen2: 3
    case .metaspace: 4
    }
  }

  private static func prefixCode(_ prefix: Tokenizer.SpacePrefix) -> UInt32 {
    switch prefix {
    case .none: 0
    case .eachPiece: 1
    case .start: 2
    }
  }

  private static func kindCode(_ kind: Tokenizer.Kind) -> UInt8 {
    switch kind {
    case .normal: 0
    case .control, .unknown: 1
    case .byte: 2
    case .added: 3
    case .unused: 4
    }
  }

  private static func flags(of tokenizer: Tokenizer) throws -> UInt32 {
    var flags: UInt32 = 0
    if tokenizer.algorithm == .scoredBPE { flags |= 1 }
    if tokenizer.ignoresMerges { flags |= 2 }
    if tokenizer.byteFallback { flags |= 4 }
    if tokenizer.fusesUnknown { flags |= 8 }
    if tokenizer.algorithm == .byteFallbackBPE || tokenizer.algorithm == .scoredBPE { flags |= 16 }
    if tokenizer.singlePrefix { flags |= 32 }
    if tokenizer.stripsLeadingSpace { flags |= 64 }
    if !tokenizer.prefix.isEmpty {
      guard tokenizer.prefix == tokenizer.beginID.map({ [$0] }) else {
        throw CompileError(
          .unsupported, "tokenizer: ids \(tokenizer.prefix) before a text are not the one that begins a text")
      }
      flags |= 128
    }
    if !tokenizer.suffix.isEmpty {
      guard tokenizer.suffix == tokenizer.endIDs.first.map({ [$0] }) else {
        throw CompileError(
          .unsupported, "tokenizer: ids \(tokenizer.suffix) behind a text are not the one that ends a text")
      }
      flags |= 256
    }
    guard (tokenizer.words != nil) == (tokenizer.algorithm == .wordPiece) else {
      throw CompileError(.input, "tokenizer: 'words' belongs to word pieces, and they need it")
    }
    if let words = tokenizer.words {
      if words.cleansText { flags |= 512 }
      if words.spacesIdeographs { flags |= 1024 }
      if words.stripsAccents { flags |= 2048 }
      if words.lowersCase { flags |= 4096 }
    }
    return flags
  }

  /// The bytes a token stands for.
  private static func text(of id: Int, in tokenizer: Tokenizer) throws -> [UInt8] {
    let text = tokenizer.tokens[id]
    switch tokenizer.kinds[id] {
    case .byte:
      guard text.utf8.count == 6, text.hasPrefix("<0x"), text.hasSuffix(">"),
        let byte = UInt8(text.dropFirst(3).dropLast(), radix: 16)
      else { throw CompileError(.input, "tokenizer: byte token \(id) is '\(text)', expected a form like <0x0A>") }
      return [byte]
    case .normal where tokenizer.algorithm == .byteLevelBPE, .unused where tokenizer.algorithm == .byteLevelBPE:
      var bytes: [UInt8] = []
      for scalar in text.unicodeScalars {
        // A character outside of the map is no byte: the token can only be matched as plain text.
        guard let byte = byteOfScalar[scalar] else { return Array(text.utf8) }
        bytes.append(byte)
      }
      return bytes
    default: return Array(text.utf8)
    }
  }

  /// The inverse of the map by which GPT-2 shows bytes: printable bytes of Latin-1 as they are, the others in order as
  /// the characters from U+0100 on.
  private static let byteOfScalar: [Unicode.Scalar: UInt8] = {
    var map: [Unicode.Scalar: UInt8] = [:]
    var next: UInt32 = 0x100
    for byte in UInt8.min...UInt8.max {
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: map[Unicode.Scalar(byte)] = byte
      default:
        if let scalar = Unicode.Scalar(next) { map[scalar] = byte }
        next += 1
      }
    }
    return map
  }()

  /// The ids recognised as a whole, sorted by their bytes, each text once, and which white space belongs to them.
  private static func specials(of tokenizer: Tokenizer, _ texts: [[UInt8]]) -> (ids: [UInt32], flags: [UInt8]) {
    let before = Set(tokenizer.absorbsSpaceBefore), after = Set(tokenizer.absorbsSpaceAfter)
    let known = tokenizer.specials.filter { texts.indices.contains($0) && !texts[$0].isEmpty }
    let sorted = known.sorted { texts[$0] == texts[$1] ? $0 < $1 : texts[$0].lexicographicallyPrecedes(texts[$1]) }
    var ids: [UInt32] = []
    var flags: [UInt8] = []
    for id in sorted where ids.last.map({ texts[Int($0)] != texts[id] }) ?? true {
      ids.append(UInt32(id))
      flags.append((before.contains(id) ? 1 : 0) | (after.contains(id) ? 2 : 0))
    }
    return (ids, flags)
  }
}

/// Writes the defaults of a language model's command line: `Runtime/generation_settings.h` is the specification.
package enum SettingsSection {
  /// The section, one `key value` per line; empty without settings.
  package static func encode(_ settings: GenerationSettings?, _ tokenizer: Tokenizer?) -> [UInt8] {
    var lines: [String] = []
    if let settings {
      lines.append("temperature \(settings.samples ? settings.temperature : 0)")
      lines.append("top_p \(settings.topP)")
      lines.append("top_k \(settings.topK)")
      lines.append("repeat_penalty \(settings.repeatPenalty)")
    }
    if let id = settings?.beginID ?? tokenizer?.beginID { lines.append("bos \(id)") }
    let ends = settings.flatMap { $0.endIDs.isEmpty ? nil : $0.endIDs } ?? tokenizer?.endIDs ?? []
    lines += ends.prefix(16).map { "eos \($0)" }
    return lines.isEmpty ? [] : Array((lines.joined(separator: "\n") + "\n").utf8)
  }
}
