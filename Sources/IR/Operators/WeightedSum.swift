import Base
import Tensors

/// `weights[0] * x_0 + weights[1] * x_1 + ...`, the mean of checkpoints among others (Wortsman and others, "Model soups",
/// 2022).
///
/// Inputs: `weights: f64[N]`, then `N` tensors of one type of floating-point numbers, which is that of the result. Sums are
/// in f64 and rounded once; a tensor whose weight is 0 does not count.
package struct WeightedSum: RowMapped {
  package static let name = "weighted_sum"

  package init() {}

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    guard inputs.count >= 2 else { throw failure("found \(inputs.count) inputs, expected at least 2") }
    return [try expectMerged(Array(inputs.dropFirst()), weights: inputs[0])]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    [nil] + inputs.dropFirst().map { $0.rank > 0 ? rows : nil }
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    TensorMerge.weightedSum(
      Array(inputs.dropFirst()), Array(inputs[0].elements(as: Double.self)), into: outputs[0])
  }
}

extension Operator {
  /// Throws unless all tensors have one type of floating-point numbers and there is a weight for each; that type.
  func expectMerged(_ tensors: [TensorType], weights: TensorType) throws -> TensorType {
    guard weights.isDense, weights.element == .f64, weights.shape == [.fixed(tensors.count)] else {
      throw failure("found weights of type \(weights), expected f64[\(tensors.count)]")
    }
    for tensor in tensors {
      try expectFloat(tensor, "tensor")
      guard tensor == tensors[0] else {
        throw failure("found tensors of types \(tensors[0]) and \(tensor), expected equal ones")
      }
    }
    return tensors[0]
  }
}
