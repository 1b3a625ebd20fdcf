import Base
import Glibc

/// How the angles of rotary embedding grow with the position, beyond `theta ^ (-2j / width)`.
package enum RotaryScaling: Hashable, Sendable {
  case none
  /// Frequencies divided by a factor (Chen and others, 2023).
  case linear(factor: Double)
  /// Low frequencies divided by a factor, high ones kept, between them a blend (Llama 3.1).
  case llama3(factor: Double, lowFactor: Double, highFactor: Double, originalContext: Int)
  /// A blend by the turns that a frequency makes over the original context: `fast` or more keep it, `slow` or fewer divide
  /// it (YaRN; Peng and others, 2023). If `truncates`, the blend ends at whole pairs.
  case yarn(factor: Double, fast: Double, slow: Double, originalContext: Int, truncates: Bool)
  /// Each frequency divided by its own factor.
  case factors([Float])

  /// The inverse frequencies of the pairs of a head of which `width` numbers turn, one more if that is odd: radians per
  /// position.
  package func inverseFrequencies(theta: Double, width: Int) -> [Float] {
    let blend = ramp(theta: theta, width: width)
    return (0..<(width + 1) / 2).map { index in
      let frequency = pow(theta, -2 * Double(index) / Double(width))
      switch self {
      case .none: return Float(frequency)
      case .linear(let factor): return Float(frequency / factor)
      case .factors(let factors): return Float(frequency / Double(factors[index]))
      case .yarn(let factor, _, _, _, _):
        let divided = blend(index)
        return Float(frequency / factor * divided + frequency * (1 - divided))
      case .llama3(let factor, let low, let high, let original):
        let wavelength = 2 * Double.pi / frequency
        if wavelength < Double(original) / high { return Float(frequency) }
        if wavelength > Double(original) / low { return Float(frequency / factor) }
        let blend = (Double(original) / wavelength - low) / (high - low)
        return Float((1 - blend) * frequency / factor + blend * frequency)
      }
    }
  }

  /// What cosines and sines are multiplied by under YaRN for a scale `m`: `0.1 m log(factor) + 1`.
  static func yarnMagnitude(factor: Double, scale: Double = 1) -> Double {
    factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1
  }

  /// The same where a configuration may state two scales (`mscale`, `mscale_all_dim`), whose magnitudes are divided.
  static func yarnFactor(factor: Double, scale: Double?, scaleAll: Double?) -> Double {
    guard let scale, let scaleAll, scale != 0, scaleAll != 0 else { return yarnMagnitude(factor: factor) }
    return yarnMagnitude(factor: factor, scale: scale) / yarnMagnitude(factor: factor, scale: scaleAll)
  }

  /// How much of a pair's frequency is divided under YaRN, 0 to 1.
  private func ramp(theta: Double, width: Int) -> (Int) -> Double {
    guard case .yarn(_, let fast, let slow, let original, let truncates) = self else { return { _ in 0 } }
    /// The pair that makes so many turns.
    func pair(_ turns: Double) -> Double {
      Double(width) * log(Double(original) / (turns * 2 * .pi)) / (2 * log(theta))
    }
    var (low, high) = (pair(fast), pair(slow))
    if truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
    low = max(low, 0)
    high = min(high, Double(width - 1))
    if low == high { high += 0.001 }
    return { index in min(max((Double(index) - low) / (high - low), 0), 1) }
  }
}
