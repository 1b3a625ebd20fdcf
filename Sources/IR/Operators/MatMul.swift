import Base
import Tensors

/// Matrix product with an epilogue: `epilogue(x W + bias)`, leading axes broadcast as in NumPy.
///
/// Inputs: `x[..., M, K]`; `w[..., K, N]`, or `[..., N, K]` if `transposeB`; `bias[N]` if the epilogue has one; the
/// residual, of the shape of the result, if it has one. Result `[..., M, N]` (`N / 2` if gated) with the element type
/// of `x`. Weights of another floating-point type are widened.
package struct MatMul: Operator {
  package static let name = "matmul"

  /// Whether the second factor is stored with one row per output column.
  package var transposeB: Bool = false
  package var epilogue: Epilogue = .identity

  package init() {}

  package init(transposeB: Bool, epilogue: Epilogue = .identity) {
    self.transposeB = transposeB
    self.epilogue = epilogue
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: (2 + epilogue.inputCount)...(2 + epilogue.inputCount))
    let (x, w) = (inputs[0], inputs[1])
    try expectFloat(x, "left factor")
    try expectFloat(w, "right factor")
    guard x.rank >= 2 else { throw failure("found left factor of shape \(x.shape), expected rank 2 or more") }
    guard w.rank >= 2 else { throw failure("found right factor of shape \(w.shape), expected rank 2 or more") }
    let depth = w.shape[w.rank - (transposeB ? 1 : 2)]
    var columns = w.shape[w.rank - (transposeB ? 2 : 1)]
    guard x.shape.last == depth else {
      throw failure(
        "left factor of shape \(x.shape) has \(x.shape.last) columns, but right factor of shape \(w.shape)"
          + "\(transposeB ? " (transposed)" : "") has \(depth) rows")
    }
    let leading = Shape(Array(x.shape.dims.dropLast(2)))
    guard let batch = Shape.broadcast(leading, Shape(Array(w.shape.dims.dropLast(2)))) else {
      throw failure("leading axes of shapes \(x.shape) and \(w.shape) do not broadcast")
    }
    if let index = epilogue.biasIndex {
      try expectFloat(inputs[index], "bias")
      try expectShape(inputs[index], Shape([columns]), "bias")
    }
    if epilogue.gated {
      guard epilogue.residual != .beforeActivation else {
        throw failure("a gated epilogue adds the residual after the activation, found 'before_activation'")
      }
      let pairs = columns / 2
      guard pairs * 2 == columns else { throw failure("found \(columns) gated columns, expected an even number") }
      columns = pairs
    }
    let shape = Shape(batch.dims + [x.shape[x.rank - 2], columns])
    if let index = epilogue.residualIndex {
      try expectFloat(inputs[index], "residual")
      try expectShape(inputs[index], shape, "residual")
    }
    return [TensorType(x.element, shape)]
  }
}
