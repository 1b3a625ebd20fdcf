import Base
import Tensors

/// The number formats of a compiled network in one word, such as `w4g32a8kv16`: weights of linear layers in 4 bits with a
/// scale per 32 numbers, activations in 8 bits, the KV cache in 16.
///
/// Grammar: `w` weights, `g` group, `a` activations, `kv` cache, `at` attention, in this order, all but the first optional.
///
/// - weights: `w8`, `w6`, `w5`, `w4`, `w3`, `w2`, `wt` (ternary, stored in two bits); `wf32`, `wf16`, `wbf16` only
///   change the type. Codes that are not evenly spaced (``CodeLevels``): `wnf4`, `wiq4nl`, `wtl4` and `wtl3`
///   (twin-log), `wcb4` and `wcb3` (levels fitted to each tensor), and E2M1 with scales of its own, `wmxfp4` and
///   `wnvfp4`. `wfp8`: E4M3 with an f32 scale per output channel.
/// - group: `g32`, `g64`, `g128`, or `gc` for one scale per output channel (`w8` only). Without: `gc` for `w8`,
///   otherwise `g32`; `wmxfp4`, `wnvfp4` and `wfp8` have their own. A `z` behind it (`w4g128z`, `w4z`) gives each group
///   a zero point; `w6` to `w2` only.
/// - activations: `a8` (without: the same, for quantized weights), `a7` to `a4`, whose codes are bytes of fewer values, or
///   `a32`, which leaves them as they are; `wfp8` takes `a32` only.
/// - cache: `kv32`, `kv16`, `kv8`, `kv4`, `kv4t`, `kv4n`, `kv3n` or `kv2n`, see ``CacheType``; without, the checkpoint
///   decides.
/// - attention: `at8`, products of bytes where there are several queries (``ByteAttention``), or `at32` (without: the
///   same).
package struct QuantizationSpec: Hashable, Sendable {
  /// How the weights of linear layers are stored.
  package enum Weights: String, Hashable, Sendable, CaseIterable {
    case f32, bf16, f16
    case bits8 = "8"
    case bits6 = "6"
    case bits5 = "5"
    case bits4 = "4"
    case bits3 = "3"
    case bits2 = "2"
    case ternary = "t"
    case mxfp4, nvfp4, nf4, iq4nl, fp8
    case twinLog4 = "tl4"
    case twinLog3 = "tl3"
    case codebook4 = "cb4"
    case codebook3 = "cb3"

    /// Bits of a code; nil for weights that stay numbers.
    package var bits: Int? {
      switch self {
      case .f32, .bf16, .f16: nil
      case .bits8, .fp8: 8
      case .bits6: 6
      case .bits5: 5
      case .bits4, .mxfp4, .nvfp4, .nf4, .iq4nl, .twinLog4, .codebook4: 4
      case .bits3, .twinLog3, .codebook3: 3
      case .bits2, .ternary: 2
      }
    }

    /// Whether weights become codes with scales.
    package var isQuantized: Bool { bits != nil }

    /// Whether groups may have zero points.
    package var takesZeroPoints: Bool { [.bits6, .bits5, .bits4, .bits3, .bits2].contains(self) }

    /// The table that codes are places in; of a codebook the one that fitting begins with.
    package var levels: CodeLevels? {
      switch self {
      case .mxfp4, .nvfp4: .e2m1
      case .nf4, .codebook4: .nf4
      case .iq4nl: .iq4nl
      case .twinLog4: .twinLog
      case .twinLog3: .twinLog3
      case .codebook3: .nf3
      default: nil
      }
    }

    /// Whether the format takes levels or a divisor from the numbers of each tensor
    /// (``BlockFormat/fitted(to:columns:weights:)``).
    package var isFitted: Bool { [.nvfp4, .codebook4, .codebook3].contains(self) }

    /// Whether the format says the length of groups.
    package var hasOwnGroups: Bool { [.mxfp4, .nvfp4, .fp8].contains(self) }

    /// The length of groups where none is said; nil for one scale per output channel.
    var usualGroup: Int? { self == .nvfp4 ? 16 : bits.map { $0 < 8 } ?? false ? 32 : nil }
  }

  package var weights: Weights
  /// Numbers per scale; nil for one scale per output channel. Without meaning for unquantized weights.
  package var group: Int?
  /// Whether each group has a zero point.
  package var hasZeroPoints = false
  /// Bits of activations: 4 to 8, or 32.
  package var activationBits: Int
  /// How the KV cache keeps keys and values, if it is said.
  package var cacheType: CacheType?
  /// Bits of the products of attention, 8 or 32, if they are said.
  package var attentionBits: Int?

  /// Bits that activations may be rounded to.
  package static let activationWidths = 4...8

  /// The group lengths that can be asked for.
  package static let groups = [32, 64, 128]

  /// Quantized weights with everything spelt out.
  package init(
    weights: Weights, group: Int?, activationBits: Int, cacheType: CacheType? = nil, attentionBits: Int? = nil
  ) {
    self.weights = weights
    self.group = weights.hasOwnGroups ? weights.usualGroup : weights.isQuantized ? group : nil
    self.activationBits = weights.isQuantized ? activationBits : 32
    self.cacheType = cacheType
    self.attentionBits = attentionBits
  }

  /// The block format of weights, before it is fitted to those of a tensor; nil where they stay numbers.
  package var weightFormat: BlockFormat? {
    guard let bits = weights.bits else { return nil }
    switch weights {
    case .mxfp4: return .mxfp4
    // The largest scale of weights of about 0.6.
    case .nvfp4: return .nvfp4(divisor: 4096)
    case .fp8: return .float8()
    default: break
    }
    if let levels = weights.levels { return .levels(levels, group ?? 32) }
    if bits == 8 { return group.map { .w8($0) } ?? .w8c }
    let codes: BlockFormat.Codes = weights == .ternary ? .ternary : hasZeroPoints ? .zeroPoint : .signed
    return BlockFormat(bits: bits, group: group ?? 32, scale: .f16, codes: codes)
  }

  /// The element type of weights that stay numbers; nil for quantized ones.
  package var weightType: DType? {
    switch weights {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    default: nil
    }
  }

  /// The specification with levels that are fitted to each tensor in place of even steps (`wcb4` for `w4`); itself where
  /// there are none of as many bits.
  package var withFittedLevels: QuantizationSpec {
    var copy = self
    switch weights {
    case .bits4 where !hasZeroPoints: copy.weights = .codebook4
    case .bits3 where !hasZeroPoints: copy.weights = .codebook3
    default: break
    }
    return copy
  }

  /// The specification with weights of at least eight bits, as tables that are multiplied by as well need them.
  package var widenedToBytes: QuantizationSpec {
    var copy = self
    if let bits = weights.bits, bits < 8 {
      copy.weights = .bits8
      copy.hasZeroPoints = false
      if weights == .nvfp4 { copy.group = 32 }
    }
    return copy
  }

  /// The block format of activations: one scale per token and group, the group of the weights, or 32 where those have one
  /// scale per channel; nil where activations stay numbers.
  package var activationFormat: BlockFormat? { activationRounding(group: group ?? 32)?.format }

  /// How activations are rounded in groups of some length; nil where they stay numbers.
  package func activationRounding(group: Int) -> Quantize? {
    guard Self.activationWidths.contains(activationBits) else { return nil }
    return Quantize(.a8(group), codeBits: activationBits == 8 ? nil : activationBits)
  }

  /// Bits of one weight, its share of the scale included, in rows of `columns` numbers.
  package func bitsPerWeight(columns: Int) -> Double {
    guard let format = weightFormat, columns > 0 else { return Double((weightType ?? .f32).byteCount * 8) }
    return Double(format.rowBytes(columns: columns) * 8) / Double(columns)
  }
}

// MARK: - Text

extension QuantizationSpec: CustomStringConvertible {
  /// The canonical spelling: weights, group and activations are always said, cache and attention only if they were.
  package var description: String {
    var text = "w" + weights.rawValue
    if weights.hasOwnGroups {
      text += "a\(activationBits)"
    } else if weights.isQuantized {
      text += (group.map { "g\($0)" } ?? "gc") + (hasZeroPoints ? "z" : "") + "a\(activationBits)"
    }
    if let cacheType { text += "kv" + cacheType.spelling }
    if let attentionBits { text += "at\(attentionBits)" }
    return text
  }

  /// Reads a specification such as `w8`, `w4g64`, `w4g32a32kv16`.
  ///
  /// - Throws: `CompileError`: `.usage` for text outside the grammar, `.unsupported` for formats that the grammar has a
  ///   place for but mcc cannot produce; the message lists the choices.
  package init(parsing text: String) throws {
    var rest = Substring(text)
    func fail(_ message: String, _ kind: CompileError.Kind = .usage) -> CompileError {
      CompileError(kind, "\(message) in the quantization '\(text)'")
    }
    func take(_ prefix: String) -> Bool {
      guard rest.hasPrefix(prefix) else { return false }
      rest = rest.dropFirst(prefix.count)
      return true
    }
    func word() -> String {
      let word = rest.prefix { $0.isASCII && $0.isNumber }
      rest = rest.dropFirst(word.count)
      return String(word)
    }

    guard take("w") else {
      throw fail("expected 'w' and the width of the weights (\(Self.widths))")
    }
    if take("bf16") {
      weights = .bf16
    } else if take("f16") {
      weights = .f16
    } else if take("f32") {
      weights = .f32
    } else {
      weights = try Self.parseWidth(&rest, fail)
    }

    group = weights.usualGroup
    if take("g") {
      guard weights.isQuantized else { throw fail("weights of type \(weights.rawValue) have no group: unexpected 'g'") }
      guard !weights.hasOwnGroups else {
        throw fail("weights of type \(weights.rawValue) say their group: unexpected 'g'")
      }
      if take("c") {
        guard weights == .bits8 else {
          throw fail("weights of fewer than 8 bits need a group (g32, g64, g128), found 'gc'", .unsupported)
        }
        group = nil
      } else {
        let digits = word()
        guard let length = Int(digits), Self.groups.contains(length) else {
          throw fail("unknown group 'g\(digits)' (choices: \(weights == .bits8 ? "gc, " : "")g32, g64, g128)")
        }
        group = length
      }
    }

    if take("z") {
      guard weights.takesZeroPoints else {
        throw fail("zero points are for w6, w5, w4, w3 and w2: unexpected 'z'")
      }
      hasZeroPoints = true
    }

    activationBits = weights.isQuantized && weights != .fp8 ? 8 : 32
    if !rest.hasPrefix("at"), take("a") {
      let digits = word()
      guard let bits = Int(digits), bits == 32 || Self.activationWidths.contains(bits) else {
        throw fail("unknown activations 'a\(digits)' (choices: a8, a7, a6, a5, a4, a32)")
      }
      guard bits == 32 || weights.isQuantized else {
        throw fail("\(bits)-bit activations need quantized weights (w8 to w2, wt)", .unsupported)
      }
      guard bits == 32 || weights != .fp8 else {
        throw fail("weights of type fp8 are multiplied by activations as they are (a32)", .unsupported)
      }
      activationBits = bits
    }

    cacheType = nil
    if take("kv") {
      let spelling = word() + (take("t") ? "t" : take("n") ? "n" : "")
      guard let type = CacheType(spelling: spelling) else {
        throw fail("unknown KV cache 'kv\(spelling)' (choices: kv32, kv16, kv8, kv4, kv4t, kv4n, kv3n, kv2n)")
      }
      cacheType = type
    }

    attentionBits = nil
    if take("at") {
      let digits = word()
      guard let bits = Int(digits), [8, 32].contains(bits) else {
        throw fail("unknown attention 'at\(digits)' (choices: at8, at32)")
      }
      attentionBits = bits
    }
    guard rest.isEmpty else {
      throw fail("unexpected '\(rest)' (the order is w, g, a, kv, at, as in w4g32a8kv16at8)")
    }
  }

  /// The widths that can be asked for, for messages.
  private static let widths =
    "w8, w6, w5, w4, w3, w2, wt, \(words.map { "w" + $0.rawValue }.joined(separator: ", ")), wf32, wf16, wbf16"

  /// Formats with names of their own.
  private static let words: [Weights] = [
    .nf4, .iq4nl, .twinLog4, .twinLog3, .codebook4, .codebook3, .mxfp4, .nvfp4, .fp8,
  ]

  private static func parseWidth(
    _ rest: inout Substring, _ fail: (String, CompileError.Kind) -> CompileError
  ) throws -> Weights {
    if let word = words.first(where: { rest.hasPrefix($0.rawValue) }) {
      rest = rest.dropFirst(word.rawValue.count)
      return word
    }
    var digits = rest.prefix { $0.isASCII && $0.isNumber }
    if digits.isEmpty, rest.first == "t" { digits = rest.prefix(1) }
    guard let weights = Weights(rawValue: String(digits)), weights.isQuantized else {
      let shown = digits.isEmpty ? rest.prefix(8) : digits
      throw fail("unknown weights 'w\(shown)' (choices: \(widths))", .usage)
    }
    rest = rest.dropFirst(digits.count)
    return weights
  }
}

extension QuantizationSpec: Codable {
  package init(from decoder: any Decoder) throws {
    try self.init(parsing: try decoder.singleValueContainer().decode(String.self))
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
