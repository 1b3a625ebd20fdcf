/// The dot product of groups of bytes into i32, as a verb with its operand ranges: what an instruction set does to add
/// products of four bytes to each i32 lane depends on whether intermediate sums may saturate.
///
/// The weight operand holds four codes in each i32 lane, the activation operand four bytes, signed in -127...127 or
/// unsigned. `dotStep` adds four products per lane to a partial sum, `dotFlush` adds a partial sum to an i32
/// accumulator; between a zero partial sum and its flush lie at most `stepsPerFlush` steps. The result is exact.
///
/// A target may multiply blocks (`Vocabulary.hasDotBlocks`): eight bytes of two rows by eight bytes of two tokens, which is
/// two steps of four products each, added to the four sums of rows and tokens. Its operands are made of those of two
/// ordinary steps: `Arrangement` says how, and how the sums of the tokens are taken apart again.
package struct ByteDot: Hashable, Sendable {
  /// Range of the weight codes.
  package enum Weights: String, Hashable, Sendable {
    /// 0...3, 0...7, 0...15, 0...31 and 0...63, as unpacked from planes of bits.
    case u2, u3, u4, u5, u6
    /// -128...127.
    case i8
    /// 0...255, an i8 code plus 128.
    case u8

    /// The verbs that compute it; codes of a few bits differ only in how many products fit a partial sum.
    var verb: String {
      switch self {
      case .u2, .u3, .u4, .u5, .u6: "u4"
      case .i8, .u8: rawValue
      }
    }

    /// The unsigned codes of a width.
    static func unsigned(bits: Int) -> Weights {
      switch bits {
      case 2: .u2
      case 3: .u3
      case 4: .u4
      case 5: .u5
      case 6: .u6
      default: preconditionFailure("no byte dot of \(bits) bits")
      }
    }

    /// The largest code of a few bits.
    fileprivate var largest: Int? {
      switch self {
      case .u2: 3
      case .u3: 7
      case .u4: 15
      case .u5: 31
      case .u6: 63
      case .i8, .u8: nil
      }
    }
  }

  /// Range of the activations.
  package enum Activations: String, Hashable, Sendable {
    /// -127...127.
    case i8
    /// 0...255.
    case u8
  }

  /// What a step multiplies.
  package enum Extent: Hashable, Sendable {
    /// Four bytes of a row with four of a token in each lane.
    case lanes
    /// In each four lanes, eight bytes of two rows with eight of two tokens. The sums are those of the first token with
    /// both rows, then those of the second.
    case blocks
  }

  /// From two vectors to the operand of a block, or from the sums of two blocks to those of a token.
  package enum Arrangement: String, Hashable, Sendable {
    /// Weights of two neighbouring steps: the first or the last half of the rows with both.
    case lowRows = "dotRows.low", highRows = "dotRows.high"
    /// Sums of blocks of the low and the high rows: those of the first or the second token with all rows.
    case firstToken = "dotToken.first", secondToken = "dotToken.second"
  }

  package let weights: Weights
  package let activations: Activations
  package let extent: Extent

  package init(_ weights: Weights, _ extent: Extent = .lanes) {
    self.weights = weights
    self.extent = extent
    activations = .i8
  }

  private init(weights: Weights, activations: Activations) {
    self.weights = weights
    self.activations = activations
    extent = .lanes
  }

  /// Signed weights and unsigned activations, as in quantized convolutions; its partial sums are i32.
  package static let unsignedActivations = ByteDot(weights: .i8, activations: .u8)

  /// The last part of the verbs: `u4`, `i8`, `u8`, or `i8u8` for unsigned activations; `u4.block` and `i8.block`.
  var name: String { weights.verb + (activations == .u8 ? "u8" : "") + (extent == .blocks ? ".block" : "") }
}

extension Vocabulary {
  /// Whether a step is one instruction, and not a function made of several.
  func hasInstruction(for dot: ByteDot) -> Bool {
    verbs["dotStep.\(dot.name)"].map { !$0.contains("mcc_") && stepsPerFlush[dot.weights] == nil } ?? false
  }

  /// How many steps may lie between a zero partial sum and its flush; nil if sums need no flush. Where those of `u4` do,
  /// they are pairs of products added in 16 bits.
  func steps(perFlushOf weights: ByteDot.Weights) -> Int? {
    guard let largest = weights.largest else { return stepsPerFlush[weights] }
    return stepsPerFlush[.u4].map { _ in Int(Int16.max) / (2 * 127 * largest) }
  }
}
