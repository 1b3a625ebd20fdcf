import Base
import Tensors

/// Products with the weights of the experts that were chosen for each row (Shazeer and others, 2017).
///
/// For token `t` and slot `s` with the expert `e = ids[t, s]`: `y[t, s] = f(x[t, s] W[e]^T)`, where `x` may have one row
/// per token for all its slots. `f` is `activation`, or, `gated`, `activation(gate) * up` of neighbouring columns (gate in
/// even, up in odd columns). With weights for the slots the result is their sum, `sum over s of weights[t, s] y[t, s]`.
///
/// Inputs: `x[T, K]` or `x[T, S, K]`; `w[E, N, K]`, a ``Stack``; `ids: i32[T, S]`; then optionally `weights[T, S]`. Result
/// `[T, S, N]`, or `[T, N]` with weights (`N / 2` if gated), with the element type of `x`. Weights of another
/// floating-point type are widened. An id outside of `0 ..< E` is an error.
package struct ExpertMatMul: Operator {
  package static let name = "expert_matmul"

  package var activation: Activation = .none
  package var gated: Bool = false

  package init() {}

  package init(activation: Activation = .none, gated: Bool = false) {
    self.activation = activation
    self.gated = gated
  }

  /// What is done to the sums of one row.
  package var epilogue: Epilogue { Epilogue(activation: activation, gated: gated) }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 3...4)
    let (x, w, ids) = (inputs[0], inputs[1], inputs[2])
    try expectFloat(x, "left factor")
    try expectFloat(w, "right factor")
    try expectRank(x, 2...3, "left factor")
    try expectRank(w, 3...3, "right factor")
    try expectDense(ids, "ids")
    guard ids.element == .i32 else {
      throw failure("found ids of element type \(ids.element.rawValue), expected i32")
    }
    let slots = try expectFixed(ids.shape.last, "slots")
    try expectShape(ids, [x.shape[0], .fixed(slots)], "ids")
    if x.rank == 3 { try expectShape(x, [x.shape[0], .fixed(slots), x.shape[2]], "left factor") }
    guard x.shape.last == w.shape[2] else {
      throw failure("left factor of shape \(x.shape) does not fit weights of shape \(w.shape)")
    }
    var columns = try expectFixed(w.shape[1], "columns")
    if gated {
      guard columns % 2 == 0 else { throw failure("found \(columns) gated columns, expected an even number") }
      columns /= 2
    }
    if inputs.count > 3 {
      try expectFloat(inputs[3], "weights of the slots")
      try expectShape(inputs[3], ids.shape, "weights of the slots")
      return [x.with(shape: [x.shape[0], .fixed(columns)])]
    }
    return [x.with(shape: [x.shape[0], .fixed(slots), .fixed(columns)])]
  }
}

extension ExpertMatMul: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, w, result) = (inputs[0], inputs[1], results[0])
    let (experts, rows, depth) = (w.sizes[0], w.sizes[1], w.sizes[2])
    let ids = inputs[2].view.elements(as: Int32.self)
    let slots = inputs[2].sizes[1]
    let columns = gated ? rows / 2 : rows
    let weights = inputs.count > 3 ? inputs[3].data : nil
    guard result.count > 0 else { return }
    if weights != nil { result.data.update(repeating: 0, count: result.count) }
    // Rows by expert, so that each one's weights are widened once.
    var places = [[Int]](repeating: [], count: experts)
    for (place, id) in ids.enumerated() {
      guard (0..<experts).contains(Int(id)) else { throw failure("the id \(id) is none of \(experts) experts") }
      places[Int(id)].append(place)
    }
    let matrix = Scratch<R>(rows * depth)
    let products = Scratch<R>(ids.count * columns)
    let sums = Scratch<R>(rows)
    for (expert, places) in places.enumerated() where !places.isEmpty {
      loadNumbers(w.view, (expert * rows * depth)..<((expert + 1) * rows * depth), into: matrix.data)
      for place in places {
        R.multiply(
          MatrixProduct(rows: 1, columns: rows, depth: depth, transposeB: true),
          x.data + (x.sizes.count == 3 ? place : place / slots) * depth, matrix.data, into: sums.data)
        finish(
          epilogue, sums: sums.data, rows: 1, columns: rows, bias: nil, residual: nil,
          into: products.data + place * columns)
      }
    }
    for place in ids.indices {
      let row = products.data + place * columns
      if let weights {
        let target = result.data + place / slots * columns
        for i in 0..<columns { target[i] += weights[place] * row[i] }
      } else {
        (result.data + place * columns).update(from: row, count: columns)
      }
    }
    withExtendedLifetime((matrix, products, sums)) {}
  }
}
