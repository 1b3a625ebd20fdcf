import IR

extension Tokenizer {
  /// The merges that have the effect of scores: every way to make a token of two, the tokens of the best scores first.
  ///
  /// Ids of the left and the right token in turn, as in ``merges``.
  func mergesByScore() -> [Int32] {
    let index = TokenIndex(self)
    var found: [(score: Double, token: Int, left: Int32, right: Int32)] = []
    for (id, token) in tokens.enumerated() where kinds[id] == .normal || kinds[id] == .added {
      Self.forEachSplit(of: token, index) { found.append((scores[id], id, $0, $1)) }
    }
    found.sort { a, b in
      a.score != b.score ? a.score > b.score : (a.token, a.left, a.right) < (b.token, b.left, b.right)
    }
    return found.flatMap { [$0.left, $0.right] }
  }

  /// The scores that have the effect of merges: less for a token the later it is made.
  ///
  /// - Returns: the scores, and how many ways to make a token of two are not among the merges or not beside the others of
  ///   that token: where there are any, scores encode some texts otherwise.
  private func scoresByMerge() -> (scores: [Float], differing: Int) {
    let index = TokenIndex(self)
    var rank = [Int](repeating: -1, count: tokens.count)
    var ways = [Int](repeating: 0, count: tokens.count)
    var differing = 0
    var next = 0
    var last = -1
    for place in stride(from: 0, to: merges.count - 1, by: 2) {
      let text = tokens[Int(merges[place])] + tokens[Int(merges[place + 1])]
      guard let id = index.id(of: text) else { continue }
      ways[id] += 1
      if rank[id] < 0 {
        rank[id] = next
        next += 1
      } else if id != last {
        differing += 1
      }
      last = id
    }
    for (id, token) in tokens.enumerated() where rank[id] >= 0 {
      var possible = 0
      Self.forEachSplit(of: token, index) { _, _ in possible += 1 }
      differing += max(0, possible - ways[id])
    }
    return (rank.map { Float(-($0 < 0 ? next : $0) - 1) }, differing)
  }

  /// The scores of the tokens, those that have the effect of merges where there are such instead, and a sentence about merges
  /// that scores do not say.
  func scoresForMerging() -> (scores: [Float], notes: [String]) {
    guard algorithm == .byteFallbackBPE else { return (scores.map { Float($0) }, []) }
    let (found, differing) = scoresByMerge()
    let note = "\(differing) merges of the tokenizer have no equal in scores: some texts are encoded otherwise"
    return (found, differing > 0 ? [note] : [])
  }

  /// Calls `body` with the ids of the two tokens of each way to cut a token in two.
  private static func forEachSplit(of token: String, _ index: TokenIndex, _ body: (Int32, Int32) -> Void) {
    var token = token
    token.withUTF8 { utf8 in
      let bytes = UnsafeRawBufferPointer(utf8)
      guard bytes.count > 1 else { return }
      for cut in 1..<bytes.count where bytes[cut] & 0xC0 != 0x80 {
        guard let left = index.id(of: UnsafeRawBufferPointer(rebasing: bytes[..<cut])),
          let right = index.id(of: UnsafeRawBufferPointer(rebasing: bytes[cut...]))
        else { continue }
        body(left, right)
      }
    }
  }

  /// Whether spaces are `▁` and pieces of text begin with one, in the way of SentencePiece without other changes; nil if the
  /// tokenizer does anything else with text.
  var spacePrefix: Bool? {
    // Decoding follows from encoding.
    for prefix in [true, false] {
      var plain = Tokenizer(algorithm: algorithm)
      plain.useSpaceSymbol(prefix: prefix)
      var own = normalizers
      for index in own.indices where own[index].kind == .prepend { own[index].onlyFirst = false }
      if own == plain.normalizers, splitters.allSatisfy(\.looksForSpaces) { return prefix }
    }
    guard normalizers.isEmpty, splitters.count == 1, splitters[0].kind == .spaces, splitters[0].text == Self.spaceSymbol
    else { return nil }
    return splitters[0].prefix != .never
  }
}

extension Tokenizer.Splitter {
  /// Whether it finds nothing where spaces have been replaced.
  fileprivate var looksForSpaces: Bool { kind == .split && pattern?.text == " " && !inverted }
}

extension TokenIndex {
  /// The ids of a tokenizer's tokens.
  init(_ tokenizer: Tokenizer) {
    self.init(capacity: tokenizer.tokens.count)
    for (id, text) in tokenizer.tokens.enumerated() where !text.isEmpty { _ = insert(text, id) }
  }
}
