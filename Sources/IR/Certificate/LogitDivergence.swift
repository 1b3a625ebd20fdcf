import Tensors

/// How far the distributions of next tokens are from those of a reference: the Kullback-Leibler divergence
/// `sum p log(p / q)` of `q` from `p`, in nats, for the softmax of each row of logits.
package struct LogitDivergence: Hashable, Sendable {
  /// Rows compared.
  package private(set) var rows = 0
  private var total = 0.0
  private var changed = 0
  package private(set) var largest = 0.0

  /// The mean over the rows.
  package var mean: Double { rows == 0 ? 0 : total / Double(rows) }
  /// The fraction of rows whose most likely token is another one.
  package var changedTokens: Double { rows == 0 ? 0 : Double(changed) / Double(rows) }

  package init() {}

  /// Compares arrays of rows of `columns` logits; nothing is compared where their lengths differ.
  package init(_ found: [Double], _ reference: [Double], columns: Int) {
    guard columns > 0, found.count == reference.count else { return }
    for start in stride(from: 0, to: found.count - found.count % columns, by: columns) {
      let row = start..<(start + columns)
      add(LogitRow(Array(found[row])), reference: LogitRow(Array(reference[row])))
    }
  }

  /// Adds a row of logits and its reference, of equal length.
  package mutating func add(_ found: LogitRow, reference: LogitRow) {
    precondition(found.numbers.count == reference.numbers.count, "rows of different vocabularies")
    let (qTotal, pTotal) = (found.total, reference.total)
    var divergence = 0.0
    for (x, y) in zip(found.numbers, reference.numbers) where y > -.infinity {
      divergence += Double.exp(y - pTotal) * ((y - pTotal) - (x - qTotal))
    }
    divergence = divergence.isNaN ? .infinity : max(0, divergence)
    rows += 1
    total += divergence
    largest = max(largest, divergence)
    if found.place != reference.place { changed += 1 }
  }

  /// Adds what another comparison found.
  package mutating func add(_ other: LogitDivergence) {
    rows += other.rows
    total += other.total
    changed += other.changed
    largest = max(largest, other.largest)
  }
}

/// The logits of one token, and what their softmax divides by.
package struct LogitRow: Sendable {
  fileprivate let numbers: [Double]
  /// `log(sum(exp(x)))`, without overflow.
  fileprivate let total: Double

  package init(_ numbers: [Double]) {
    self.numbers = numbers
    let largest = numbers.max() ?? 0
    total = largest + Double.log(numbers.reduce(0) { $0 + Double.exp($1 - largest) })
  }

  package init(_ numbers: UnsafeBufferPointer<Float>) { self.init(numbers.map { Double($0) }) }

  package init(_ numbers: ArraySlice<Float>) { self = numbers.withUnsafeBufferPointer { LogitRow($0) } }

  /// `-log p` of the token at a place.
  package func loss(of token: Int) -> Double { total - numbers[token] }

  /// The place of the largest.
  fileprivate var place: Int? {
    numbers.indices.max { numbers[$0] < numbers[$1] }
  }
}
