import Base
import Tensors

/// A base with the differences of other tensors from it added, in the way of `method`.
///
/// Inputs: `weights: f64[N]`, the base, then `N` tensors, all of one type of floating-point numbers, which is that of the
/// result. Numbers are computed in f64 and rounded once.
///
/// - `arithmetic`: `base + scale sum_i weights[i] (x_i - base)` (Ilharco and others, "Editing models with task arithmetic",
///   2023).
/// - `ties`: of each difference the share `density` of largest magnitude counts; `scale` times the mean of those that have
///   the sign of their sum is added (Yadav and others, "TIES-Merging", 2023).
/// - `dare`: each number of a difference is dropped with the probability `1 - density`, by `seed`, and the others are
///   divided by `density` (Yu and others, "Language models are super Mario", 2024).
package struct TaskVectorSum: RowMapped {
  package static let name = "task_vector_sum"

  /// What is done with the differences.
  package enum Method: String, Hashable, Codable, Sendable, CaseIterable {
    case arithmetic, ties, dare
  }

  package var method: Method = .arithmetic
  @Exact package var scale: Double = 1
  @Exact package var density: Double = 1
  package var seed: Int = 0

  package init() {}

  package init(_ method: Method, scale: Double = 1, density: Double = 1, seed: Int = 0) {
    self.method = method
    self.scale = scale
    self.density = density
    self.seed = seed
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    guard inputs.count >= 3 else { throw failure("found \(inputs.count) inputs, expected at least 3") }
    guard scale.isFinite else { throw failure("attribute 'scale' is \(scale), expected a finite number") }
    guard density > 0, density <= 1 else {
      throw failure("attribute 'density' is \(density), expected a number above 0 up to 1")
    }
    let type = try expectMerged(Array(inputs.dropFirst(2)), weights: inputs[0])
    guard inputs[1] == type else { throw failure("found a base of type \(inputs[1]), expected \(type)") }
    return [type]
  }

  /// Thresholds and masks are of the whole tensor.
  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard method == .arithmetic || density == 1 else { return nil }
    return [nil] + inputs.dropFirst().map { $0.rank > 0 ? rows : nil }
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let weights = Array(inputs[0].elements(as: Double.self))
    let others = Array(inputs.dropFirst(2))
    switch method {
    case .ties:
      TensorMerge.electedTaskVectors(
        base: inputs[1], others, weights, density: density, scale: scale, into: outputs[0])
    case .arithmetic, .dare:
      TensorMerge.taskVectors(
        base: inputs[1], others, weights.map { scale * $0 }, density: method == .dare ? density : 1,
        seed: UInt64(bitPattern: Int64(seed)), into: outputs[0])
    }
  }
}
