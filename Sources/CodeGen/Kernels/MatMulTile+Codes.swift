/// Quantized weights as they lie in panels.
extension MatMulTile {
  /// A step of one token.
  var dot: ByteDot {
    guard let narrowCodes, !narrowCodes.hasTable else { return ByteDot(k.target.vocabulary.eightBitWeights) }
    return ByteDot(.unsigned(bits: narrowCodes.bits))
  }

  /// Whether codes lie with an offset, which the sums of the activations correct.
  var needsSums: Bool { dot.weights != .i8 }

  /// What the sums of a group begin with for each zero point, as codes lie with an offset; `sum` is -8 times that of the
  /// token's codes in the group.
  func start(_ sum: @autoclosure () -> Expression, zeros: [Expression?]) -> [Expression] {
    guard needsSums else { return zeros.map { _ in .broadcast(.integer(0)) } }
    let sum = k.define("o", .broadcast(sum()))
    if zeros.contains(where: { $0 != nil }) {
      let one = k.define("o", sum.shiftedRightArithmetically(by: 3))
      return zeros.map { $0.map { one * $0 } ?? one }
    }
    // Eight times the sum is there, 2^(bits - 1) times it is wanted; levels are bytes.
    let power = (table == nil ? narrowCodes?.bits ?? 8 : 8) - 4
    let scaled = power < 0 ? sum.shiftedRightArithmetically(by: -power) : sum << power
    let start = k.define("o", scaled)
    return zeros.map { _ in start }
  }

  var narrowCodes: NarrowCodes? {
    if case .narrow(let codes) = config.weights { codes } else { nil }
  }

  /// Steps of four codes after which all planes begin new words.
  var codeUnit: Int { narrowCodes?.stepsPerUnit ?? 1 }

  /// What is subtracted from codes without zero points; nil where codes are numbers as they are.
  var middle: Expression? { table == nil ? narrowCodes.map { .real(Float($0.middle)) } : nil }

  /// The zero points of a group for the lanes of a vector; nil if there are none.
  func zeros(_ group: Pointer, vector: Int) -> Expression? {
    guard let narrowCodes, narrowCodes.hasZeroPoints else { return nil }
    return group.load(.integer(layout.scaleBytes + vector * k.lanes))
  }

  // MARK: Groups

  /// A group of the panel.
  func group(_ index: Expression) -> Pointer {
    k.pointer("group", w, offset: .integer(layout.preambleBytes) + index * .integer(layout.groupBytes))
  }

  /// The scales of a group for the lanes of a vector.
  func scale(_ group: Pointer, vector: Int) -> Expression {
    let first = Expression.integer(vector * k.lanes)
    guard let scale = narrowCodes?.scale, scale != .f16 else {
      return k.pointer("ws", group, offset: 0, as: layout.scaleBytes == 4 * layout.panelRows ? .f32 : .f16).load(first)
    }
    return k.scales(scale, k.define("e", group.load(first)), factor: factor)
  }

  /// The tile with the table of levels and the factor of scales, loaded from the beginning of the panel.
  func withPreamble() -> MatMulTile {
    guard let narrowCodes, narrowCodes.hasTable else { return self }
    var tile = self
    let bytes = k.pointer("levels", w, offset: 0, as: .f32)
    let table = Expression.reinterpret(.repeated(bytes, 0, count: 4), .i32)
    let isFlipped =
      config.activationGroup != nil && k.target.vocabulary.eightBitWeights != k.target.storedEightBitWeights
    tile.table = k.define("table", isFlipped ? table ^ -0x7f7f_7f80 : table)
    if narrowCodes.scale == .e4m3 {
      tile.factor = k.define("factor", .broadcast(bytes[.integer(NarrowCodes.factorOffset / 4)]))
    }
    return tile
  }

  // MARK: Words

  /// The words of one unit, or of its first steps, by plane; 8-bit codes have one.
  func unitWords(_ words: Pointer, _ unit: Expression, vector: Int, steps: Int? = nil) -> [[Expression]] {
    func load(_ word: Expression) -> Expression {
      k.define("w\(vector)", words.load((word * .integer(config.vectors) + .integer(vector)) * .integer(k.lanes)))
    }
    guard let narrowCodes else { return [[load(unit)]] }
    return narrowCodes.planes.map { plane in
      let count = narrowCodes.stepsPerUnit / plane.steps
      let needed = steps.map { ($0 + plane.steps - 1) / plane.steps } ?? count
      return (0..<needed).map { load(unit * .integer(count) + .integer(plane.word + $0)) }
    }
  }

  /// The four codes of a step in the bytes of each lane.
  func bytes(_ words: [[Expression]], step: Int) -> Expression {
    guard let narrowCodes else {
      let isFlipped = k.target.vocabulary.eightBitWeights != k.target.storedEightBitWeights
      // The highest bit of each byte.
      return isFlipped ? k.define("c", words[0][0] ^ -0x7f7f_7f80) : words[0][0]
    }
    var result: Expression?
    for (plane, loaded) in zip(narrowCodes.planes, words) {
      let up = plane.shift - step % plane.steps * plane.width
      let word = loaded[step / plane.steps]
      let bits = (up < 0 ? word >> -up : word << up) & .integer(plane.mask << plane.shift)
      result = result.map { $0 | bits } ?? bits
    }
    let codes = result ?? words[0][0]
    return k.define("c", table.map { .lookup(table: $0, codes) } ?? codes)
  }

  /// One of four signed bytes in each lane as a number.
  func number(_ bytes: Expression, byte: Int) -> Expression {
    (bytes << (24 - 8 * byte)).shiftedRightArithmetically(by: 24).asFloat
  }

  /// The code of one column as a number, not yet counted from its zero.
  func number(_ words: [[Expression]], step: Int, byte: Int) -> Expression {
    guard let narrowCodes else {
      if case .float8 = config.weights { return k.float8(words[0][0] << (24 - 8 * byte)) }
      return number(words[0][0], byte: byte)
    }
    var result: Expression?
    for (plane, loaded) in zip(narrowCodes.planes, words) {
      let place = 8 * byte + step % plane.steps * plane.width
      let bits = ((loaded[step / plane.steps] >> place) & .integer(1 << plane.width - 1)) << plane.shift
      result = result.map { $0 | bits } ?? bits
    }
    return (result ?? words[0][0]).asFloat
  }

  // MARK: Prefetching

  /// Asks for a line of the next panel in each group of each tile of tokens, so that it is there when its turn comes.
  func prefetchNextPanel(_ group: Expression, of groups: Int) {
    guard let ahead else { return }
    let line = ahead * .integer(64 * groups) + group * 64
    k.prefetch(w, .integer(layout.panelBytes) + .minimum(line, .integer(layout.panelBytes - 64)))
  }

  /// The distance in bytes at which few tokens, which stream weights at memory speed, ask for them.
  private var streamingDistance: Int { 4096 }

  /// Whether weights stream from memory, of which little is known to be in a cache.
  var isStreaming: Bool { ahead == nil }

  /// Lines that one unit of codes covers; nil if units do not begin with lines.
  private var linesPerUnit: Int? {
    let bytes = layout.panelRows * codeUnit * (narrowCodes?.bits ?? 8) / 2
    return bytes.isMultiple(of: 64) ? bytes / 64 : nil
  }

  /// Asks for what lies ahead of a group: the header, and the codes too unless their units ask for them.
  ///
  /// A burst of many lines would fill the buffers for misses and hold up the loads behind it.
  func prefetchGroup(_ group: Pointer) {
    let bytes = linesPerUnit == nil ? layout.groupBytes : layout.headerBytes
    for line in stride(from: 0, to: bytes, by: 64) { k.prefetch(group, .integer(streamingDistance + line)) }
  }

  /// Asks for what lies ahead of one unit of codes, given as 32-bit words.
  func prefetchUnit(_ words: Pointer, _ unit: Expression) {
    guard let lines = linesPerUnit else { return }
    for line in 0..<lines {
      k.prefetch(words, unit * .integer(16 * lines) + .integer(streamingDistance / 4 + 16 * line))
    }
  }
}
