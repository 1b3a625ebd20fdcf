/// The whole numbers that codes stand for where these are places in a table: 4, 8 or 16 levels within -127...127, times a
/// scale.
package struct CodeLevels: Hashable, Sendable {
  /// The level of each code.
  package let values: [Int8]
  /// The levels in ascending order, each once.
  let ascending: [Float]
  /// Half way between neighbours of `ascending`.
  let thresholds: [Float]
  /// The first code of a level, by the level plus 128; 0 for numbers that are no level.
  private let codes: [UInt8]

  /// A table of levels; nil unless there are 4, 8 or 16, two different ones at least, and none below -127.
  package init?(_ values: [Int8]) {
    let sorted = Set(values).sorted()
    guard [4, 8, 16].contains(values.count), sorted.count > 1, sorted[0] > -128 else { return nil }
    self.values = values
    let numbers = sorted.map { Float($0) }
    ascending = numbers
    thresholds = zip(numbers, numbers.dropFirst()).map { ($0 + $1) / 2 }
    var codes = [UInt8](repeating: 0, count: 256)
    for (code, value) in values.enumerated().reversed() { codes[Int(value) + 128] = UInt8(code) }
    self.codes = codes
  }

  private init(known values: [Int8]) {
    guard let levels = CodeLevels(values) else { preconditionFailure("a table of \(values.count) levels") }
    self = levels
  }

  package static func == (left: CodeLevels, right: CodeLevels) -> Bool { left.values == right.values }

  package func hash(into hasher: inout Hasher) { hasher.combine(values) }

  /// Bits of a code: 2, 3 or 4.
  package var bits: Int { values.count.trailingZeroBitCount }

  /// Whether codes ascend with their levels, no two of which are equal.
  package var isAscending: Bool { zip(values, values.dropFirst()).allSatisfy(<) }

  /// The places half way between neighbouring levels, in ascending order.
  package var bounds: [Float] { thresholds }

  /// The code of a level.
  package func code(of level: Float) -> UInt8 {
    let place = Int(min(max(level, -128), 127)) + 128
    return codes[place]
  }

  /// The code of the level next to 0.
  package var zeroCode: UInt8 { code(of: nearest(Float(0))) }

  /// The level next to a number, of two equally near ones the larger.
  @inline(__always)
  func nearest(_ number: Float) -> Float {
    var result = ascending[0]
    for index in thresholds.indices where number >= thresholds[index] { result = ascending[index + 1] }
    return result
  }

  /// The levels next to sixteen numbers.
  @inline(__always)
  func nearest(_ numbers: Lanes) -> Lanes {
    var result = Lanes(repeating: ascending[0])
    for index in thresholds.indices {
      result.replace(with: Lanes(repeating: ascending[index + 1]), where: numbers .>= thresholds[index])
    }
    return result
  }
}

// MARK: - Tables with names

extension CodeLevels {
  /// Twice the numbers of the four-bit float E2M1, in the order of its codes (OCP Microscaling Formats 1.0, section 5.3.3).
  package static let e2m1 = CodeLevels(known: [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])

  /// The quantiles of a normal distribution of NF4 (T. Dettmers and others, QLoRA, 2023, arXiv:2305.14314), times 127
  /// and rounded.
  package static let nf4 = CodeLevels(
    known: [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127])

  /// The levels of IQ4_NL of GGUF (ggml, `ggml-common.h`).
  package static let iq4nl = CodeLevels(
    known: [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])

  /// Steps of half a power of two in both directions from 0: `round(127 * 2^(-j / 2))` for `j` of 0 to 6, of 0 to 7
  /// below zero (twin-log quantization, as in LRQ-DiT, 2025, arXiv:2508.03485).
  package static let twinLog = CodeLevels(
    known: [-127, -90, -64, -45, -32, -22, -16, -11, 0, 16, 22, 32, 45, 64, 90, 127])

  /// The same in eight levels: whole powers of two, `127 * 2^-j` for `j` of 0 to 2, of 0 to 3 below zero.
  package static let twinLog3 = CodeLevels(known: [-127, -64, -32, -16, 0, 32, 64, 127])

  /// Eight quantiles of a normal distribution, from which levels of three bits are fitted.
  package static let nf3 = CodeLevels(known: [-127, -68, -31, 0, 23, 49, 79, 127])

  /// Four quantiles of a normal distribution, from which levels of two bits are fitted.
  package static let nf2 = CodeLevels(known: [-127, -30, 30, 127])

  private static let named: [(name: String, levels: CodeLevels)] = [
    ("e2m1", e2m1), ("nf4", nf4), ("iq4nl", iq4nl), ("twinlog", twinLog), ("twinlog3", twinLog3), ("nf3", nf3),
    ("nf2", nf2),
  ]

  /// The name of a known table, or `x` and two hexadecimal digits for each level.
  package var name: String {
    if let known = Self.named.first(where: { $0.levels == self }) { return known.name }
    let digits = Array("0123456789abcdef")
    return values.reduce(into: "x") { text, value in
      let byte = Int(UInt8(bitPattern: value))
      text.append(digits[byte >> 4])
      text.append(digits[byte & 15])
    }
  }

  /// Whether the table has no name, as those that were fitted to numbers.
  package var isOwn: Bool { !Self.named.contains { $0.levels == self } }

  /// The table with that name; nil if the text is not a name.
  package init?(name: some StringProtocol) {
    if let known = Self.named.first(where: { $0.name == name }) {
      self = known.levels
      return
    }
    let digits = name.dropFirst().compactMap(\.hexDigitValue)
    guard name.first == "x", digits.count == name.count - 1, digits.count % 2 == 0, digits.count <= 32 else {
      return nil
    }
    let values = stride(from: 0, to: digits.count, by: 2).map { place -> Int8 in
      Int8(truncatingIfNeeded: digits[place] << 4 | digits[place + 1])
    }
    guard let levels = CodeLevels(values), levels.name == name else { return nil }
    self = levels
  }
}
