#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The bits of layers that lose least at a given mean, where a weight of layer `j` with `R` bits loses `c_j 2^(-2R)`.
///
/// The least of `sum_j n_j c_j 2^(-2 R_j)` at `sum_j n_j R_j = R sum_j n_j` has equal losses of all weights:
/// `R_j = R + 1/2 log2(c_j / g)`, `g` the geometric mean of `c` over all weights (J. Xin and others, "BAQ", 2025,
/// arXiv:2506.05664). Where a layer has a least and a most, the same holds of the layers between them.
package struct ClosedFormBits: Sendable {
  /// The weights of each layer.
  private let counts: [Double]
  /// `1/2 log2 c` of each layer.
  private let places: [Double]
  private let constants: [Double]

  /// Layers of so many weights, each of which loses so much at 0 bits. What loses nothing counts as a millionth of the
  /// least that does.
  package init(counts: [Int], constants: [Double]) {
    precondition(counts.count == constants.count, "a constant for each layer")
    self.counts = counts.map { Double(max(1, $0)) }
    let least = constants.filter { $0 > 0 }.min() ?? 1
    self.constants = constants.map { $0 > 0 ? $0 : least * 1e-6 }
    places = self.constants.map { 0.5 * log2($0) }
  }

  /// By how much less is lost than with equally many bits for all: the arithmetic over the geometric mean of `c`.
  package var gain: Double {
    let all = counts.reduce(0, +)
    guard all > 0 else { return 1 }
    let arithmetic = zip(counts, constants).reduce(0.0) { $0 + $1.0 * $1.1 } / all
    let logarithm = zip(counts, places).reduce(0.0) { $0 + $1.0 * 2 * $1.1 } / all
    return arithmetic / exp2(logarithm)
  }

  /// The bits of each layer for that mean; the nearest that `limits` allow where it is beyond them.
  package func bits(mean: Double, limits: [ClosedRange<Double>]) -> [Double] {
    precondition(limits.count == counts.count, "limits for each layer")
    let all = counts.reduce(0, +)
    func bits(_ shift: Double) -> [Double] {
      zip(places, limits).map { place, limits in min(max(place + shift, limits.lowerBound), limits.upperBound) }
    }
    func average(_ bits: [Double]) -> Double { zip(counts, bits).reduce(0.0) { $0 + $1.0 * $1.1 } / max(all, 1) }
    // All at their least, and all at their most.
    var low = zip(places, limits).map { $1.lowerBound - $0 }.min() ?? 0
    var high = zip(places, limits).map { $1.upperBound - $0 }.max() ?? 0
    for _ in 0..<200 {
      let middle = (low + high) / 2
      if average(bits(middle)) > mean { high = middle } else { low = middle }
    }
    return bits(low)
  }
}

extension ClosedFormBits {
  /// The layers with the formats that they may have: `c` from all formats, whose losses are about `n c 2^(-2R)`.
  init(_ layers: [LayerStatistics], _ units: [[BudgetedChoice.Option]]) {
    self.init(
      counts: layers.map(\.count),
      constants: zip(layers, units).map { layer, options in
        let found = options.indices.filter { options[$0].loss > 0 }
        guard !found.isEmpty else { return 0 }
        let sum = found.reduce(0.0) { sum, option in
          sum + log2(options[option].loss / Double(max(1, layer.count))) + 2 * layer.bits(option)
        }
        return exp2(sum / Double(found.count))
      })
  }

  /// The formats within a budget that are nearest to the bits; what rounding them leaves is spent, or made up for,
  /// where it changes the loss of a byte least. Nil if the budget is below what the layers need at least.
  func choose(_ layers: [LayerStatistics], _ units: [[BudgetedChoice.Option]], budget: Int) -> [Int]? {
    guard BudgetedChoice.least(units) <= budget, units.allSatisfy({ !$0.isEmpty }) else { return nil }
    let limits = layers.map { layer -> ClosedRange<Double> in
      let bits = layer.roundings.indices.map { layer.bits($0) }
      return (bits.min() ?? 0)...(bits.max() ?? 0)
    }
    let all = layers.reduce(0) { $0 + $1.count }
    let ideal = bits(mean: Double(8 * budget) / Double(max(1, all)), limits: limits)
    var choice = layers.indices.map { index -> Int in
      let layer = layers[index]
      let options = BudgetedChoice.frontier(units[index])
      return options.min { abs(layer.bits($0) - ideal[index]) < abs(layer.bits($1) - ideal[index]) } ?? 0
    }
    BudgetedChoice.save(&choice, units, budget)
    BudgetedChoice.spend(&choice, units, budget)
    return choice
  }
}
