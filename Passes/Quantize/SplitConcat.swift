import IR
import Tensors

/// A concatenation of channels that only layers read, whose operands keep scales of their own as bytes: a common one
/// would leave few steps to the operand with the small numbers (X. Li and others, Q-Diffusion, 2023, arXiv:2302.04304,
/// section 4.2.2).
///
///     %y = conv2d(concat(%a, %b), %w)
///     // -> %p = dequantize_linear(quantize_linear(%a) {code = A}) {code = C}
///     //    %q = dequantize_linear(quantize_linear(%b) {code = B}) {code = C}
///     //    %y = conv2d(concat(%p, %q), multiply(%w, [A.scale / C.scale, ..., B.scale / C.scale, ...]))
///
/// The codes have one zero point, so that bytes are joined as they are. A scale is not made finer than the weights that
/// read the operand allow, which are rounded with those of the others.
struct SplitConcat {
  let node: NodeID
  let readers: [NodeID]
  /// The code of each operand, and that with which the joined bytes are read.
  let codes: [AffineCode]
  let common: AffineCode

  /// What the weights of each operand's channels are multiplied by.
  var factors: [Float] { codes.map { $0.scale / common.scale } }

  /// What is to be known of an operand: its range, its channels, and the root mean square of the rows' largest weights
  /// on them.
  struct Operand {
    var range: ClosedRange<Float>
    var channels: Int
    var weight: Double
  }

  /// The codes that leave less than half of the squared error of activations that a common one leaves; nil if there are
  /// none.
  init?(_ node: NodeID, readers: [NodeID], _ operands: [Operand]) {
    let ranges = operands.map { (low: min($0.range.lowerBound, 0), high: max($0.range.upperBound, 0)) }
    let all = (ranges.map(\.low).min() ?? 0)...(ranges.map(\.high).max() ?? 0)
    let joint = AffineCode(covering: all)
    func error(_ scales: [Double]) -> Double {
      zip(operands, scales).reduce(0) { sum, pair in
        let error = pair.0.weight * pair.1
        return sum + error * error * Double(pair.0.channels)
      }
    }
    func scale(_ range: (low: Float, high: Float), _ zeroPoint: Int) -> Double? {
      guard zeroPoint > 0 || range.low == 0, zeroPoint < 255 || range.high == 0 else { return nil }
      return max(
        zeroPoint < 255 ? Double(range.high) / Double(255 - zeroPoint) : 0,
        zeroPoint > 0 ? -Double(range.low) / Double(zeroPoint) : 0)
    }
    var best: (zeroPoint: Int, scales: [Double], error: Double)?
    for zeroPoint in 0...255 {
      let scales = ranges.compactMap { scale($0, zeroPoint) }
      guard scales.count == ranges.count else { continue }
      let found = error(scales)
      if found < best?.error ?? .infinity { best = (zeroPoint, scales, found) }
    }
    guard let best, let widest = best.scales.max(), widest >= Double(Float.leastNormalMagnitude), widest.isFinite else {
      return nil
    }
    // The magnitude that the largest weights have once all scales are as fine as they can be.
    let level = zip(operands, best.scales).map { $0.weight * $1 / widest }.max() ?? 0
    let chosen = zip(operands, best.scales).map { operand, scale in
      operand.weight > 0 ? min(widest, max(scale, widest * level / operand.weight)) : widest
    }
    let codes = chosen.map { AffineCode(scale: Float($0), zeroPoint: best.zeroPoint) }
    guard codes.allSatisfy(\.isValid),
      error(chosen) < 0.5 * error(operands.map { _ in Double(joint.scale) })
    else { return nil }
    self.node = node
    self.readers = readers
    self.codes = codes
    common = AffineCode(scale: Float(widest), zeroPoint: best.zeroPoint)
  }
}
