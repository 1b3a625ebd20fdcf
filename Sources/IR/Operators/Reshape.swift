import Base
import Tensors

/// The same numbers in the same order with another shape.
package struct Reshape: DimensionAttributes, RowMapped {
  package static let name = "reshape"

  package var shape: [Dim] = []

  package init() {}

  package init(_ shape: [Dim]) { self.shape = shape }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    guard shape.allSatisfy({ $0.bounds.upperBound >= 0 }) else {
      throw failure("found shape \(Shape(shape)), expected sizes of at least 0")
    }
    guard Shape.countsAgree(x.shape, Shape(shape)) else {
      throw failure("shape \(x.shape) has not as many elements as \(Shape(shape))")
    }
    return [x.with(shape: Shape(shape))]
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> Reshape {
    Reshape(shape.map { $0.substituting(replacement) })
  }

  /// Rows of the result that one row of the input becomes; 1 if several become one.
  package func rowGranularity(_ inputs: [TensorType]) -> Int {
    guard let (before, after) = rowCounts(inputs), after % before == 0 else { return 1 }
    return after / before
  }

  /// Rows that are cut into equal parts, or made of equal numbers of rows, map to rows.
  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard inputs[0].rank >= 1, !shape.isEmpty else { return nil }
    if inputs[0].shape[0] == shape[0] { return [rows] }
    guard let (before, after) = rowCounts(inputs) else { return nil }
    if before % after == 0 {
      let parts = before / after
      return [rows.lowerBound * parts..<rows.upperBound * parts]
    }
    let parts = after / before
    guard after % before == 0, rows.lowerBound % parts == 0, rows.upperBound % parts == 0 else { return nil }
    return [rows.lowerBound / parts..<rows.upperBound / parts]
  }

  /// The outermost sizes of the input and of the result, if they are positive numbers.
  private func rowCounts(_ inputs: [TensorType]) -> (before: Int, after: Int)? {
    guard let before = inputs[0].shape.dims.first?.fixedValue, let after = shape.first?.fixedValue, before > 0,
      after > 0
    else { return nil }
    return (before, after)
  }
}

extension Shape {
  /// Whether two shapes have the same number of elements for every value of their symbols, as far as that shows once
  /// equal sizes are struck out.
  static func countsAgree(_ left: Shape, _ right: Shape) -> Bool {
    var rest = right.dims
    var own: [Dim] = []
    for dim in left.dims {
      if let index = rest.firstIndex(of: dim) { rest.remove(at: index) } else { own.append(dim) }
    }
    guard let a = product(own), let b = product(rest) else { return false }
    return a == b
  }

  /// The product, if it is a size that can be computed with and no number leaves 62 bits.
  package static func product(_ dims: [Dim]) -> Dim? {
    guard let count = try? checkedCount(dims.compactMap(\.fixedValue), of: "") else { return nil }
    var product = Dim.fixed(1)
    for dim in dims where !dim.isFixed {
      guard let next = Dim.product(product, dim) else { return nil }
      product = next
    }
    for number in [product.offset] + product.terms.map(\.coefficient)
    where number.multipliedReportingOverflow(by: count).overflow {
      return nil
    }
    return product * count
  }
}
