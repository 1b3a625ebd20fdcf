/// The dot product of groups of bytes into i32, as a verb with its operand ranges: what an instruction set does to add
/// products of four bytes to each i32 lane depends on whether intermediate sums may saturate.
///
/// The weight operand holds four codes in each i32 lane, the activation operand four signed bytes in -127...127. `dotStep`
/// adds four products per lane to a partial sum, `dotFlush` adds a partial sum to an i32 accumulator; between a zero
/// partial sum and its flush lie at most `stepsPerFlush` steps. The result is exact.
package struct ByteDot: Hashable, Sendable {
  /// Range of the weight codes.
  package enum Weights: String, Hashable, Sendable {
    /// 0...15, as unpacked from nibbles.
    case u4
    /// -128...127.
    case i8
    /// 0...255, an i8 code plus 128.
    case u8
  }

  package let weights: Weights

  package init(_ weights: Weights) { self.weights = weights }
}
