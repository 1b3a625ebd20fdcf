import IR
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Chooses by how much the channels between weights are scaled: the strength with the least error of the rounded weights, each
/// channel weighted by the mean square of its activations.
///
///     s_j = max|x_j|^a / max|w_j|^(1 - a)                 (SmoothQuant; Xiao and others, 2023)
///     s_j = max|x_j|^a                                    (AWQ; Lin and others, 2024)
///     error(s) = sum over o, j of mean(x_j^2) (round(w_oj s_j) / s_j - w_oj)^2
///
/// `a` goes through a grid; so does no scaling at all.
struct SmoothingSearch {
  let format: BlockFormat
  let kind: Smooth.Kind
  let steps: Int

  /// The rows of each weight that errors are measured on at most.
  static let rowLimit = 256

  /// The weights that read the channels, one row per output.
  struct Weights {
    /// All rows' largest magnitude of each channel.
    var maxima: [Float]
    /// Some rows.
    var rows: [Float]
  }

  /// The scales of the best strength; nil if none is better than no scaling. `maxima` and `squares` are those of the activations.
  func scales(
    _ weights: [Weights], maxima: [Float], squares: [Double]
  ) -> (scales: [Float], before: Double, after: Double)? {
    let width = maxima.count
    guard width > 0, steps > 0 else { return nil }
    let ones = [Float](repeating: 1, count: width)
    let before = error(weights, ones, squares)
    var largest = [Float](repeating: 0, count: width)
    for weight in weights { for j in 0..<width { largest[j] = max(largest[j], weight.maxima[j]) } }
    let x = Self.bounded(maxima), w = Self.bounded(largest)
    let candidates = parallelMap(steps + 1) { step -> ([Float], Double) in
      let a = Double(step) / Double(steps)
      var logarithms = (0..<width).map { j in
        a * log(x[j]) - (kind == .smoothquant ? (1 - a) * log(w[j]) : 0)
      }
      let mean = logarithms.reduce(0, +) / Double(width)
      // Within 2^12 to either side the scales of the codes stay in the range of f16.
      logarithms = logarithms.map { min(max($0 - mean, -8.3), 8.3) }
      let scales = logarithms.map { Float(exp($0)) }
      return (scales, error(weights, scales, squares))
    }
    guard let best = candidates.min(by: { $0.1 < $1.1 }), best.1 < before else { return nil }
    return (best.0, before, best.1)
  }

  /// Numbers of at least a small share of their mean, 1 where all are 0.
  private static func bounded(_ numbers: [Float]) -> [Double] {
    let mean = numbers.reduce(0.0) { $0 + Double($1) } / Double(max(numbers.count, 1))
    guard mean > 0, mean.isFinite else { return [Double](repeating: 1, count: numbers.count) }
    return numbers.map { max(Double($0), 1e-4 * mean) }
  }

  /// The error of the rounded weights.
  private func error(_ weights: [Weights], _ scales: [Float], _ squares: [Double]) -> Double {
    let width = scales.count
    var sum = 0.0
    var scaled = [Float](repeating: 0, count: width), rounded = scaled
    var codes = [UInt8](repeating: 0, count: format.rowBytes(columns: width))
    for weight in weights {
      for first in stride(from: 0, to: weight.rows.count, by: width) {
        for j in 0..<width { scaled[j] = weight.rows[first + j] * scales[j] }
        codes.withUnsafeMutableBytes { codes in
          guard let address = codes.baseAddress else { return }
          format.quantizeRow(scaled, columns: width, into: address)
          format.dequantizeRow(address, columns: width, into: &rounded)
        }
        for j in 0..<width {
          let difference = Double(rounded[j] / scales[j] - weight.rows[first + j])
          sum += squares[j] * difference * difference
        }
      }
    }
    return sum
  }
}
