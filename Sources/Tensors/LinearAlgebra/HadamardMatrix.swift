/// A matrix of 1 and -1 whose rows are orthogonal, `H H^T = n I`, as a Kronecker product
/// `H = P_1 (x) ... (x) P_f (x) S`: Paley matrices, then Sylvester's matrix of a power of two, `S[i, j] = (-1)^|i & j|`.
///
/// A vector is multiplied factor by factor: `n` times the sum of the orders of the Paley matrices and the exponent of the
/// power. Of all such products for an order that with the least work is taken, so that one order always means one matrix.
package struct HadamardMatrix: Sendable {
  package let order: Int
  /// The orders of the Paley matrices, outermost and largest first.
  package let factors: [Int]
  /// The exponent of the power of two.
  package let doublings: Int

  /// The largest order.
  package static let largestOrder = 1 << 24

  /// The matrix of that order; nil if there is none of this form.
  package init?(order: Int) {
    guard (1...Self.largestOrder).contains(order) else { return nil }
    var search = Search()
    search.visit(order, below: FiniteField.largestOrder, [])
    guard let best = search.best else { return nil }
    self.order = order
    factors = best.factors
    doublings = best.doublings
  }

  /// The width that vectors have at most on any target.
  private static let widestVector = 16

  /// The ways to write an order as a product.
  private struct Search {
    var best: (factors: [Int], doublings: Int, work: Int)?

    /// Tries all ways to write `rest` with factors up to `limit` behind the ones chosen.
    mutating func visit(_ rest: Int, below limit: Int, _ chosen: [Int]) {
      let doublings = rest.trailingZeroBitCount
      let odd = rest >> doublings
      if odd == 1 {
        let work = Self.work(chosen, doublings)
        if best.map({ work < $0.work }) ?? true { best = (chosen, doublings, work) }
        return
      }
      guard doublings >= 2 else { return }
      var divisors: [Int] = []
      var divisor = 1
      while divisor * divisor <= odd {
        if odd % divisor == 0 { divisors += divisor * divisor == odd ? [divisor] : [divisor, odd / divisor] }
        divisor += 2
      }
      for part in divisors.sorted() where part > 1 {
        for power in 2...doublings {
          let order = part << power
          guard order <= limit else { break }
          if PaleyMatrix.exists(order: order) { visit(rest / order, below: order, chosen + [order]) }
        }
      }
    }

    /// The work per number. Numbers that lie side by side are computed together, if there are enough of them.
    private static func work(_ factors: [Int], _ doublings: Int) -> Int {
      var stride = 1 << doublings
      var sum = doublings
      for factor in factors.reversed() {
        sum += stride % widestVector == 0 ? factor : 8 * factor
        stride *= factor
      }
      return sum
    }
  }

  /// The number in a row and a column, 1 or -1.
  package func sign(_ row: Int, _ column: Int, _ matrices: [PaleyMatrix]) -> Int {
    let mask = 1 << doublings - 1
    var sign = (row & column & mask).nonzeroBitCount % 2 == 0 ? 1 : -1
    var (row, column) = (row >> doublings, column >> doublings)
    for matrix in matrices.reversed() {
      sign *= Int(matrix.signs[row % matrix.order * matrix.order + column % matrix.order])
      (row, column) = (row / matrix.order, column / matrix.order)
    }
    return sign
  }

  /// The Paley matrices, in the order of `factors`.
  package var matrices: [PaleyMatrix] { factors.compactMap { PaleyMatrix(order: $0) } }
}

extension HadamardMatrix {
  /// Orders of matrices that lie one after the other on a diagonal of that width, the last one again and again.
  ///
  /// One matrix where there is one; else equal ones of at least 64, or the two most equal ones that together have the width;
  /// else what is largest, time after time. `largestFactor` bounds the Paley matrices, which are most of the work.
  package static func blocks(of width: Int, largestFactor: Int = FiniteField.largestOrder) -> [Int] {
    precondition(width >= 0)
    func exists(_ order: Int) -> Bool {
      HadamardMatrix(order: order).map { $0.factors.first ?? 1 <= largestFactor } ?? false
    }
    if width <= 1 || exists(width) { return [max(width, 1)] }
    var equal = width / 2
    while equal >= 64, width % equal != 0 || !exists(equal) { equal -= 1 }
    if equal >= 64 { return [equal] }
    if let smaller = (width / 3...width / 2).reversed().first(where: { $0 > 0 && exists($0) && exists(width - $0) }) {
      return [width - smaller, smaller]
    }
    var orders: [Int] = []
    var rest = width
    while rest > 0 {
      guard let order = (1...rest).reversed().first(where: exists) else { break }
      orders.append(order)
      rest -= order
    }
    return orders
  }
}
