import Base
import Tensors

/// The whole numbers `0, 1, ..., size - 1`, as i64.
package struct Iota: DimensionAttributes {
  package static let name = "iota"

  package var size: Dim = 1

  package init() {}

  package init(_ size: Dim) { self.size = size }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 0...0)
    guard size.bounds.upperBound >= 0 else { throw failure("found size \(size), expected at least 0") }
    return [TensorType(.i64, Shape([size]))]
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> Iota { Iota(size.substituting(replacement)) }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    outputs[0].storeIntegers((0..<outputs[0].count).map { Int64($0) })
  }
}

/// Sizes as numbers: `result[i] = sizes[i]`, as i64.
///
/// What a network computes from the shape of its inputs, where these have symbols.
package struct Sizes: DimensionAttributes {
  package static let name = "sizes"

  package var sizes: [Dim] = []

  package init() {}

  package init(_ sizes: [Dim]) { self.sizes = sizes }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 0...0)
    guard sizes.count <= Constant.inlineLimit else {
      throw failure("found \(sizes.count) sizes, expected at most \(Constant.inlineLimit)")
    }
    return [TensorType(.i64, [sizes.count])]
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> Sizes {
    Sizes(sizes.map { $0.substituting(replacement) })
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    outputs[0].storeIntegers(
      try sizes.map { size in
        guard let value = size.fixedValue else { throw failure("the size \(size) has no value") }
        return Int64(value)
      })
  }
}

extension MutableTensorView {
  /// Stores i64 elements.
  fileprivate func storeIntegers(_ values: [Int64]) {
    values.withUnsafeBytes { bytes.copyMemory(from: $0) }
  }
}
