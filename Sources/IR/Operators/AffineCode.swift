/// How bytes stand for real numbers: `value = (code - zeroPoint) * scale` with codes 0 ... 255.
///
/// Zero is always a code, so that padding and cut-off activations are exact.
package struct AffineCode: Hashable, Codable, Sendable {
  @Exact package var scale: Float = 1
  package var zeroPoint: Int = 0

  package init(scale: Float = 1, zeroPoint: Int = 0) {
    self.scale = scale
    self.zeroPoint = zeroPoint
  }

  /// The code whose steps cover a range of numbers, widened so that zero is in it.
  package init(covering range: ClosedRange<Float>) {
    let low = min(range.lowerBound, 0), high = max(range.upperBound, 0)
    // A range that is a point, or too narrow for a normal scale, has nothing to tell apart.
    let step = (high - low) / 255
    guard step.isFinite, step >= .leastNormalMagnitude else {
      self.init()
      return
    }
    self.init(scale: step, zeroPoint: min(255, max(0, Int((-low / step).rounded(.toNearestOrEven)))))
  }

  /// Whether the attributes are usable: a positive normal scale and a zero point that is a code.
  package var isValid: Bool { scale.isNormal && scale > 0 && (0...255).contains(zeroPoint) }

  /// Codes of the numbers that an activation lets pass, for those that only cut off: no activation, relu and relu6.
  package func limits(of activation: Activation) -> ClosedRange<Int>? {
    switch activation {
    case .none: return 0...255
    case .relu: return zeroPoint...255
    case .relu6:
      let steps = (6 / scale).rounded(.toNearestOrEven)
      return zeroPoint...max(zeroPoint, steps < 256 ? min(255, zeroPoint + Int(steps)) : 255)
    default: return nil
    }
  }
}
