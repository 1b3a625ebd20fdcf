import Base
import Tensors

/// The `count` numbers of largest magnitude of each row apart from the others: dense-and-sparse decomposition (S. Kim and
/// others, SqueezeLLM, 2023, arXiv:2306.07629), as caches of keys and values take it (C. Hooper and others, KVQuant, 2024,
/// arXiv:2401.18079).
///
/// Input `x[T, W]`, with `count <= W <= 2048`, so that f16 holds every place; results `rest[T, W]`, the row with 0 in these
/// places, and `outliers[T, 2 * count]`, first the numbers, then their places in the row. The largest come first, of equal
/// ones the first; neither 0 nor NaN is taken, and what is left then has the number 0 and the place -1.
package struct SplitOutliers: Operator {
  package static let name = "split_outliers"

  /// The most columns of a row.
  package static let mostColumns = 2048

  package var count: Int = 1

  package init() {}

  package init(count: Int) { self.count = count }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    try expectFloat(x, "input")
    try expectRank(x, 2...2, "input")
    let columns = try expectFixed(x.shape[1], "columns")
    guard columns <= Self.mostColumns else {
      throw failure("found rows of \(columns) numbers, expected at most \(Self.mostColumns)")
    }
    guard (1...max(1, columns)).contains(count), columns > 0 else {
      throw failure("attribute 'count' is \(count), expected 1 to the \(columns) numbers of a row")
    }
    return [x, x.with(shape: Shape([x.shape[0], .fixed(2 * count)]))]
  }
}

extension SplitOutliers: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let x = inputs[0], (rest, outliers) = (results[0].data, results[1].data)
    let columns = x.sizes[1]
    for row in 0..<x.sizes[0] {
      let (numbers, found) = (rest + row * columns, outliers + row * 2 * count)
      numbers.update(from: x.data + row * columns, count: columns)
      for slot in 0..<count {
        var (place, most) = (-1, R.zero)
        for column in 0..<columns where numbers[column].magnitude > most {
          (place, most) = (column, numbers[column].magnitude)
        }
        found[slot] = place < 0 ? 0 : numbers[place]
        found[count + slot] = R(rounding: Double(place))
        if place >= 0 { numbers[place] = 0 }
      }
    }
  }
}
