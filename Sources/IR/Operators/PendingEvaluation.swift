import Base
import Tensors

extension Operator {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    throw CompileError(.unsupported, "\(Self.name): evaluation is not implemented")
  }
}
