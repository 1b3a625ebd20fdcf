import Tensors

/// What a matmul or convolution does to its sums before they are stored.
///
/// With sums `s`: `s + bias`, then, `gated`, `activation(gate) * up` of neighbouring columns (gate in even, up in odd
/// columns), else `activation(s)`; the residual is added before or after the activation.
package struct Epilogue: Hashable, Codable, Sendable {
  /// Where the residual input is added.
  package enum Residual: String, Hashable, Codable, Sendable {
    case none
    case beforeActivation = "before_activation"
    case afterActivation = "after_activation"
  }

  /// Whether an input gives one number per output column (or channel) to add.
  package var bias: Bool = false
  package var activation: Activation = .none
  package var residual: Residual = .none
  /// Whether output columns are pairs of gate and up, which give half as many results.
  package var gated: Bool = false

  package init(
    bias: Bool = false, activation: Activation = .none, residual: Residual = .none, gated: Bool = false
  ) {
    self.bias = bias
    self.activation = activation
    self.residual = residual
    self.gated = gated
  }

  /// The epilogue that stores the sums as they are.
  package static let identity = Epilogue()

  /// The number of inputs besides the two factors.
  package var inputCount: Int { (bias ? 1 : 0) + (residual == .none ? 0 : 1) }

  /// The index of the bias among the inputs.
  package var biasIndex: Int? { bias ? 2 : nil }

  /// The index of the residual among the inputs.
  package var residualIndex: Int? { residual == .none ? nil : (bias ? 3 : 2) }
}
