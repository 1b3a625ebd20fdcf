import Base
import Glibc

/// How checkpoints become one.
package enum MergeMethod: String, CaseIterable, Sendable {
  /// The mean, with weights if they are given.
  case mean
  /// The mean with weights that follow from a metric.
  case mwa
  /// A base plus the differences from it.
  case taskArithmetic = "task-arithmetic"
  /// A base plus the mean of the large differences that agree in sign.
  case ties
  /// A base plus differences of which most are dropped at random.
  case dare
  /// Interpolation between two on the sphere.
  case slerp
  /// Linear layers by regression on the inputs that each checkpoint gives.
  case regmean
  /// Linear layers by regression on the inputs that the merged checkpoint gives.
  case regmeanPlusPlus = "regmean++"

  /// Whether it starts from a base.
  package var needsBase: Bool { self == .taskArithmetic || self == .ties || self == .dare }

  /// Whether it needs samples.
  package var needsSamples: Bool { self == .regmean || self == .regmeanPlusPlus }
}

/// What weighs checkpoints in ``MergeMethod/mwa`` (Yu and Choi, "Metrics-Weighted Averaging", 2025).
package enum MergeMetric: String, CaseIterable, Sendable {
  /// Training loss: lower weighs more.
  case loss
  /// Training steps: later weighs more.
  case step

  /// Weights that sum to 1: `step_i^p`, or `loss_i^-p`, over their sum. With `penalty` p = 0 all are equal; the larger it is
  /// the more the best checkpoint weighs.
  ///
  /// - Throws: `CompileError` of kind `.usage` if a value is not positive or `penalty` is negative.
  package func weights(_ values: [Double], penalty: Double) throws -> [Double] {
    guard values.allSatisfy({ $0 > 0 && $0.isFinite }) else {
      throw CompileError(.usage, "the values of the metric are \(values), expected positive numbers")
    }
    guard penalty >= 0, penalty.isFinite else {
      throw CompileError(.usage, "the penalty is \(penalty), expected a number of at least 0")
    }
    // Relative to the best, so that no power leaves the range of numbers.
    guard let best = self == .loss ? values.min() : values.max() else { return [] }
    let shares = values.map { pow(self == .loss ? best / $0 : $0 / best, penalty) }
    let sum = shares.reduce(0, +)
    return shares.map { $0 / sum }
  }
}
