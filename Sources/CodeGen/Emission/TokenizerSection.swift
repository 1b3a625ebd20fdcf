import Base
import IR

/// Writes a tokenizer in the form that generated programs read: `Runtime/tokenizer.h` is the specification.
package enum TokenizerSection {
  /// The section for a tokenizer.
  ///
  /// - Throws: `CompileError` of kind `.unsupported` for what the form cannot say, `.input` for a tokenizer that
  ///   contradicts itself.
  package static func encode(_ tokenizer: Tokenizer) throws -> [UInt8] {
    var writer = try TokenizerSectionWriter(tokenizer)
    return try writer.section()
  }

  /// The byte by which GPT-2 shows a character: printable bytes of Latin-1 are themselves, the others come in order as
  /// the characters from U+0100 on.
  static let byteOfScalar: [Unicode.Scalar: UInt8] = {
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
}

private struct TokenizerSectionWriter {
  private static let headerBytes = 200

  let tokenizer: Tokenizer
  /// Whether tokens stand for bytes as they are, without the characters that show them.
  let isPlainBytes: Bool
  /// Whether a token can come from text, not only from an id.
  private var isInVocabulary: [Bool]
  private var texts = ByteStrings()
  private var strings: [UInt8] = []
  private var numbers: [UInt32] = []

  init(_ tokenizer: Tokenizer) throws {
    self.tokenizer = tokenizer
    isPlainBytes =
      tokenizer.algorithm == .byteLevelBPE && tokenizer.splitters.last?.kind == .bytes
      && tokenizer.decoders.first?.kind == .bytes
    let count = tokenizer.tokens.count
    isInVocabulary = []
    guard count > 0, count < 1 << 24 else { throw failure("found \(count) tokens, expected 1 to \(1 << 24 - 1)") }
    guard tokenizer.kinds.count == count else {
      throw failure("found \(tokenizer.kinds.count) kinds for \(count) tokens")
    }
    guard !isScored || tokenizer.scores.count == count else {
      throw failure("found \(tokenizer.scores.count) scores for \(count) tokens")
    }
    guard tokenizer.merges.count % 2 == 0, tokenizer.merges.allSatisfy({ $0 >= 0 && Int($0) < count }) else {
      throw failure("a merge names a token that does not exist")
    }
    let ids = tokenizer.prefix + tokenizer.suffix + tokenizer.added.map(\.id)
    guard ids.allSatisfy({ (0..<count).contains($0) }) else {
      throw failure("it names a token that does not exist")
    }
    for id in 0..<count { addText(id) }
  }

  private var isScored: Bool { tokenizer.algorithm == .scoredBPE || tokenizer.algorithm == .unigram }
  private var hasTrie: Bool { tokenizer.algorithm == .wordPiece || tokenizer.algorithm == .unigram }

  private func failure(_ message: String) -> CompileError { CompileError(.input, "tokenizer: \(message)") }

  /// The bytes that a token is compared with, or that it decodes to.
  private mutating func addText(_ id: Int) {
    let text = tokenizer.tokens[id]
    let kind = tokenizer.kinds[id]
    // Those were cut out of the text before; many are unknown to the model, which has no score for them.
    let isWhole = kind == .control || kind == .added
    var isKnown = kind != .unused && !isWhole
    if isPlainBytes {
      var bytes: [UInt8] = []
      var isMapped = true
      for scalar in text.unicodeScalars {
        // A character outside of the map is no byte: the token can only be recognised as a whole.
        guard let byte = TokenizerSection.byteOfScalar[scalar] else {
          isMapped = false
          break
        }
        bytes.append(byte)
      }
      isKnown = isKnown && isMapped
      texts.append(isMapped ? bytes : Array(text.utf8))
    } else {
      texts.append(Array(text.utf8))
    }
    isInVocabulary.append(isKnown && !text.isEmpty)
  }

  // MARK: Tables

  /// Slots of an open hash table of so many entries, two thirds of them used.
  private static func slots(_ entries: Int) -> Int { entries + entries / 2 + 16 }

  private static func hash(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    return UInt32(truncatingIfNeeded: hash ^ hash >> 32)
  }

  /// The table of tokens by their texts: the id plus one, 0 for a free slot. Of equal texts the first one counts.
  private func tokenTable() -> [UInt32] {
    var table = [UInt32](repeating: 0, count: Self.slots(isInVocabulary.count { $0 }))
    for id in texts.indices where isInVocabulary[id] {
      let slot = slot(texts[id], table)
      if table[slot] == 0 { table[slot] = UInt32(id + 1) }
    }
    return table
  }

  /// The slot of a text: where it is, or where it belongs.
  private func slot(_ text: ArraySlice<UInt8>, _ table: [UInt32]) -> Int {
    var slot = Int((UInt64(Self.hash(text)) * UInt64(table.count)) >> 32)
    while table[slot] != 0, !texts[Int(table[slot]) - 1].elementsEqual(text) {
      slot = slot + 1 == table.count ? 0 : slot + 1
    }
    return slot
  }

  /// The table of merges; a pair that comes twice has its last rank.
  private func mergeTable(_ tokens: [UInt32]) throws -> [UInt32] {
    let pairs = tokenizer.algorithm == .scoredBPE ? [] : tokenizer.merges
    guard !pairs.isEmpty else { return [] }
    let slots = Self.slots(pairs.count / 2)
    var table = [UInt32](repeating: .max, count: 4 * slots)
    let mark = Array(tokenizer.mark.utf8)
    var joined: [UInt8] = []
    for rank in 0..<pairs.count / 2 {
      let (left, right) = (UInt32(pairs[2 * rank]), UInt32(pairs[2 * rank + 1]))
      joined.removeAll(keepingCapacity: true)
      joined += texts[Int(left)]
      joined += texts[Int(right)].dropFirst(!mark.isEmpty && texts[Int(right)].starts(with: mark) ? mark.count : 0)
      let result = tokens[slot(joined[...], tokens)]
      guard result != 0 else {
        throw failure("merge \(rank) makes '\(String(decoding: joined, as: UTF8.self))', which is no token")
      }
      let hash = ((UInt64(left) << 32 | UInt64(right)) &* 0x9e37_79b9_7f4a_7c15) >> 32
      var slot = Int((hash * UInt64(slots)) >> 32)
      while table[4 * slot + 3] != .max, table[4 * slot] != left || table[4 * slot + 1] != right {
        slot = slot + 1 == slots ? 0 : slot + 1
      }
      table.replaceSubrange(4 * slot..<4 * slot + 4, with: [left, right, UInt32(rank), result - 1])
    }
    return table
  }

  /// The tree of all prefixes of tokens, level by level.
  private func trie() -> (labels: [UInt8], children: [UInt32], tokens: [Int32]) {
    guard hasTrie else { return ([], [], []) }
    let sorted = texts.indices.filter { isInVocabulary[$0] }.sorted {
      texts[$0].lexicographicallyPrecedes(texts[$1])
    }
    var labels: [UInt8] = [0]
    var children: [UInt32] = []
    var tokens: [Int32] = [-1]
    // The tokens of each node of a level, those of equal prefix together.
    var level: [Range<Int>] = [0..<sorted.count]
    var depth = 0
    while !level.isEmpty {
      var next: [Range<Int>] = []
      let first = labels.count - level.count
      for (offset, range) in level.enumerated() {
        let node = first + offset
        children.append(UInt32(labels.count + next.count))
        var start = range.lowerBound
        while start < range.upperBound {
          let text = texts[sorted[start]]
          if text.count == depth {
            if tokens[node] < 0 { tokens[node] = Int32(sorted[start]) }
            start += 1
            continue
          }
          let label = text[text.startIndex + depth]
          var end = start + 1
          while end < range.upperBound, texts[sorted[end]][texts[sorted[end]].startIndex + depth] == label { end += 1 }
          next.append(start..<end)
          start = end
        }
      }
      for range in next {
        labels.append(texts[sorted[range.lowerBound]][texts[sorted[range.lowerBound]].startIndex + depth])
        tokens.append(-1)
      }
      level = next
      depth += 1
    }
    children.append(UInt32(labels.count))
    return (labels, children, tokens)
  }

  // MARK: Steps

  private mutating func add(_ text: String?) -> [UInt32] {
    let bytes = Array((text ?? "").utf8)
    strings += bytes
    return [UInt32(clamping: strings.count - bytes.count), UInt32(clamping: bytes.count)]
  }

  /// Rule, then place and length of what it needs.
  private mutating func add(_ pattern: Tokenizer.Pattern?) throws -> (rule: UInt32, place: [UInt32]) {
    guard let pattern else { throw failure("a step lacks its pattern") }
    let rules = Tokenizer.Pattern.Rule.allCases
    let rule = UInt32(rules.firstIndex(of: pattern.rule) ?? 0)
    switch pattern.rule {
    case .text:
      guard let text = pattern.text, !text.isEmpty else { throw failure("a pattern looks for nothing") }
      return (rule, add(text))
    case .run:
      guard let run = pattern.run, run.ranges.count % 2 == 0 else { throw failure("a pattern lacks its set") }
      let values = [run.least, run.most] + run.ranges
      guard run.least > 0, values.allSatisfy({ UInt32(exactly: $0) != nil }) else {
        throw failure("a number of a pattern is out of range")
      }
      let classes = run.classes.reduce(UInt32(0)) { bits, kind in
        bits | 1 << UInt32(Tokenizer.Run.Class.allCases.firstIndex(of: kind) ?? 0)
      }
      let place = UInt32(numbers.count)
      numbers += [
        UInt32(Tokenizer.Run.Lead.allCases.firstIndex(of: run.lead) ?? 0), UInt32(run.least), UInt32(run.most),
        (run.negated ? 1 : 0) | (run.atEnd ? 2 : 0), classes,
      ]
      numbers += run.ranges.map { UInt32($0) }
      return (rule, [place, UInt32(5 + run.ranges.count)])
    default: return (rule, [0, 0])
    }
  }

  private mutating func normalizers() throws -> [UInt32] {
    var words: [UInt32] = []
    for step in tokenizer.normalizers {
      let kind = UInt32(Tokenizer.Normalizer.Kind.allCases.firstIndex(of: step.kind) ?? 0)
      var rule: UInt32 = 0
      var a: UInt32 = 0
      var text: [UInt32] = [0, 0]
      var content: [UInt32] = [0, 0]
      switch step.kind {
      case .bert:
        let bert = step.bert ?? .init()
        a = (bert.cleansText ? 1 : 0) | (bert.spacesIdeographs ? 2 : 0) | (bert.stripsAccents ? 4 : 0)
        a |= bert.lowersCase ? 8 : 0
      case .strip:
        a = step.left ? 1 : 0
        text = add(step.text)
      case .replace:
        (rule, text) = try add(step.pattern)
        content = add(step.text)
      case .prepend:
        a = step.onlyFirst ? 1 : 0
        content = add(step.text)
      case .charsmap:
        guard let map = Base64.decode(step.text ?? "") else { throw failure("a map is not written in base 64") }
        a = step.byGraphemes ? 1 : 0
        strings += map
        text = [UInt32(clamping: strings.count - map.count), UInt32(clamping: map.count)]
      default: break
      }
      words += [kind, rule, a, step.kind == .strip && step.right ? 1 : 0] + text + content
    }
    return words
  }

  private mutating func splitters() throws -> [UInt32] {
    var words: [UInt32] = []
    for step in isPlainBytes ? tokenizer.splitters.dropLast() : tokenizer.splitters[...] {
      let kind = UInt32(Tokenizer.Splitter.Kind.allCases.firstIndex(of: step.kind) ?? 0)
      switch step.kind {
      case .split:
        let (rule, text) = try add(step.pattern)
        let behavior = UInt32(Tokenizer.Splitter.Behavior.allCases.firstIndex(of: step.behavior) ?? 0)
        words += [kind, rule, behavior, step.inverted ? 1 : 0] + text + [0, 0]
      case .spaces:
        guard let text = step.text, !text.isEmpty else { throw failure("a step puts nothing in the place of spaces") }
        let prefix = UInt32(Tokenizer.Splitter.Prefix.allCases.firstIndex(of: step.prefix) ?? 0)
        words += [kind, 0, prefix, 0, 0, 0] + add(text)
      default: words += [kind, 0, 0, 0, 0, 0, 0, 0]
      }
    }
    return words
  }

  private mutating func decoders() throws -> [UInt32] {
    var words: [UInt32] = []
    for (index, step) in tokenizer.decoders.enumerated() {
      let kind = UInt32(Tokenizer.TokenDecoder.Kind.allCases.firstIndex(of: step.kind) ?? 0)
      var a: UInt32 = step.flag ? 1 : 0
      if step.kind == .bytes { a = isPlainBytes && index == 0 ? 1 : 0 }
      if step.kind == .strip { a = UInt32(clamping: step.left) }
      guard step.kind != .strip || step.text?.isEmpty == false else { throw failure("a step looks for nothing") }
      words += [kind, 0, a, step.kind == .strip ? UInt32(clamping: step.right) : 0]
      words += add(step.text) + add(step.content)
    }
    return words
  }

  // MARK: Section

  /// Whether no token has `▁` behind another character, so that words may be cut there.
  private var hasSpaceWords: Bool {
    guard tokenizer.algorithm == .byteFallbackBPE || tokenizer.algorithm == .scoredBPE else { return false }
    guard tokenizer.mark.isEmpty, tokenizer.endMark.isEmpty, !tokenizer.ignoresMerges else { return false }
    let space: [UInt8] = [0xE2, 0x96, 0x81]
    var isToken = false
    for id in texts.indices where isInVocabulary[id] {
      let text = texts[id]
      var start = text.startIndex
      while text[start...].starts(with: space) { start += 3 }
      if start == text.endIndex, text.count == 3 { isToken = true }
      while start < text.endIndex {
        guard text[start] != 0xE2 || !text[start...].starts(with: space) else { return false }
        start += 1
      }
    }
    return isToken
  }

  private func modelCode() -> UInt32 {
    switch tokenizer.algorithm {
    case .byteFallbackBPE, .scoredBPE: 0
    case .byteLevelBPE: isPlainBytes ? 1 : 0
    case .wordPiece: 2
    case .unigram: 3
    case .wordLevel: 4
    }
  }

  private func flags() -> UInt32 {
    var flags: UInt32 = 0
    if tokenizer.algorithm == .scoredBPE { flags |= 1 }
    if tokenizer.ignoresMerges { flags |= 2 }
    if tokenizer.byteFallback { flags |= 4 }
    if tokenizer.fusesUnknown { flags |= 8 }
    if hasSpaceWords { flags |= 16 }
    return flags
  }

  /// Tokens that other rules never make, in the order of their ids.
  private mutating func added() -> [UInt32] {
    var words: [UInt32] = []
    for token in tokenizer.added where !tokenizer.tokens[token.id].isEmpty {
      var flags: UInt32 = 0
      if token.stripsLeft { flags |= 1 }
      if token.stripsRight { flags |= 2 }
      if token.singleWord { flags |= 4 }
      if token.normalized { flags |= 8 }
      words += [UInt32(token.id), flags] + add(tokenizer.tokens[token.id])
    }
    return words
  }

  mutating func section() throws -> [UInt8] {
    func data<Element>(_ values: [Element]) -> [UInt8] { values.withUnsafeBytes { Array($0) } }
    let count = texts.count
    let table = hasTrie ? [] : tokenTable()
    let merges = try mergeTable(table)
    let trie = trie()
    let added = added()
    let normalizers = try normalizers(), splitters = try splitters(), decoders = try decoders()
    let mark = add(tokenizer.mark), endMark = add(tokenizer.endMark)
    var kinds = tokenizer.kinds.map { kind -> UInt8 in kind == .control ? 1 : 0 }
    for token in tokenizer.added where token.normalized && !tokenizer.normalizers.isEmpty { kinds[token.id] |= 2 }
    // What is no piece must not be the worst one.
    let scores = isScored ? tokenizer.scores.indices.map { isInVocabulary[$0] ? tokenizer.scores[$0] : .infinity } : []
    let arrays: [(bytes: [UInt8], count: Int)] = [
      (data(texts.offsets), count + 1), (texts.bytes, texts.bytes.count), (kinds, count), (data(scores), scores.count),
      (data(table), table.count), (data(merges), merges.count / 4), (trie.labels, trie.labels.count),
      (data(trie.children), trie.children.count), (data(trie.tokens), trie.tokens.count),
      (data(added), added.count / 4), (data(normalizers), normalizers.count / 8),
      (data(splitters), splitters.count / 8), (data(decoders), decoders.count / 8),
      (data(tokenizer.prefix.map { Int32($0) }), tokenizer.prefix.count),
      (data(tokenizer.suffix.map { Int32($0) }), tokenizer.suffix.count), (strings, strings.count),
      (data(numbers), numbers.count),
    ]
    var extents: [UInt32] = []
    var body: [UInt8] = []
    for array in arrays {
      body += [UInt8](repeating: 0, count: (8 - body.count % 8) % 8)
      extents += [UInt32(clamping: Self.headerBytes + body.count), UInt32(clamping: array.count)]
      body += array.bytes
    }
    body += [UInt8](repeating: 0, count: (8 - body.count % 8) % 8)
    guard body.count <= Int(Int32.max) else { throw failure("it needs \(body.count) bytes, which are too many") }

    func id(_ id: Int?) -> UInt32 {
      UInt32(bitPattern: id.flatMap { (0..<count).contains($0) ? Int32($0) : nil } ?? -1)
    }
    let words: [UInt32] =
      [
        2, UInt32(Self.headerBytes + body.count), modelCode(), flags(), UInt32(count), id(tokenizer.beginID),
        id(tokenizer.endIDs.first), id(tokenizer.unknownID), UInt32(clamping: tokenizer.wordLimit),
      ] + mark + endMark + [0]
    return Array("mcctoken".utf8) + data(words + extents) + body
  }
}

/// Texts one after the other.
private struct ByteStrings {
  private(set) var bytes: [UInt8] = []
  /// Where each text begins, and the end of the last one.
  private(set) var offsets: [UInt32] = [0]

  var count: Int { offsets.count - 1 }
  var indices: Range<Int> { 0..<count }

  subscript(index: Int) -> ArraySlice<UInt8> { bytes[Int(offsets[index])..<Int(offsets[index + 1])] }

  mutating func append(_ text: [UInt8]) {
    bytes += text
    offsets.append(UInt32(clamping: bytes.count))
  }
}
