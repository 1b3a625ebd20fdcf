import Base
import Tensors

/// A convolution over time of each channel for itself that sees only what came before, going on from a state:
/// `y[t, c] = activation(bias[c] + sum over k of weight[k, c] z[t - (K - 1) + k, c])`, where `z` is `x` and, before it,
/// the state, or zeros where the call begins a text (`position` 0).
///
/// Inputs: `state[K - 1, W]`, `x[T, W]`, `weight[K, W]`, `position: i32[1]`, then optionally `bias[W]`. Results: the state
/// after the call, the last `K - 1` rows of `z`, and `y[T, W]`.
package struct CausalConv: Operator {
  package static let name = "causal_conv"

  package var activation: Activation = .none

  package init() {}

  package init(activation: Activation) { self.activation = activation }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 4...5)
    let (state, x, weight) = (inputs[0], inputs[1], inputs[2])
    for (input, role) in [(state, "state"), (x, "input"), (weight, "weight")] {
      try expectFloat(input, role)
      try expectRank(input, 2...2, role)
    }
    let taps = try expectFixed(weight.shape[0], "taps")
    guard (2...1 << 10).contains(taps) else { throw failure("found \(taps) taps, expected 2 to \(1 << 10)") }
    try expectShape(state, [.fixed(taps - 1), x.shape[1]], "state")
    try expectShape(weight, [.fixed(taps), x.shape[1]], "weight")
    try expectPosition(inputs[3])
    if inputs.count > 4 {
      try expectFloat(inputs[4], "bias")
      try expectShape(inputs[4], [x.shape[1]], "bias")
    }
    return [state, x]
  }
}

extension CausalConv: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (taps, width) = (inputs[2].sizes[0], inputs[2].sizes[1])
    let tokens = inputs[1].sizes[0]
    let (state, x, weight) = (inputs[0].data, inputs[1].data, inputs[2].data)
    let bias = inputs.count > 4 ? inputs[4].data : nil
    let fresh = integer(inputs[3].view) == 0
    let (next, y) = (results[0].data, results[1].data)
    /// Row `t` of `z`, counted from the first row of `x`.
    func z(_ t: Int, _ c: Int) -> R {
      if t >= 0 { return x[t * width + c] }
      return fresh ? 0 : state[(taps - 1 + t) * width + c]
    }
    for t in 0..<tokens {
      for c in 0..<width {
        var sum = bias?[c] ?? 0
        for k in 0..<taps { sum += weight[k * width + c] * z(t - (taps - 1) + k, c) }
        y[t * width + c] = sum
      }
    }
    // The state may be its own successor's memory: rows are taken before any is overwritten.
    for c in 0..<width {
      let column = (0..<(taps - 1)).map { z(tokens - (taps - 1) + $0, c) }
      for (row, value) in column.enumerated() { next[row * width + c] = value }
    }
    activation.apply(to: y, count: tokens * width)
  }
}

/// The scan of a selective state space (Gu and Dao, 2023), going on from a state:
/// `h = exp(dt[t, c] a[c, n]) h + dt[t, c] b[t, n] x[t, c]`, `y[t, c] = sum over n of h[c, n] c[t, n] + d[c] x[t, c]`.
///
/// Inputs: `state[W, N]`, `x[T, W]`, `dt[T, W]`, `a[W, N]`, `b[T, N]`, `c[T, N]`, `d[W]`, `position: i32[1]`; a call at
/// position 0 begins a text with a state of zeros. Results: the state after the last token, and `y[T, W]`.
package struct SelectiveScan: Operator {
  package static let name = "selective_scan"

  package init() {}

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 8...8)
    let (state, x) = (inputs[0], inputs[1])
    for (input, role) in zip(inputs, ["state", "input", "time steps", "'a'", "'b'", "'c'", "'d'"]) {
      try expectFloat(input, role)
    }
    try expectRank(state, 2...2, "state")
    try expectRank(x, 2...2, "input")
    let (tokens, width, size) = (x.shape[0], state.shape[0], state.shape[1])
    try expectShape(x, [tokens, width], "input")
    try expectShape(inputs[2], [tokens, width], "time steps")
    try expectShape(inputs[3], [width, size], "'a'")
    try expectShape(inputs[4], [tokens, size], "'b'")
    try expectShape(inputs[5], [tokens, size], "'c'")
    try expectShape(inputs[6], [width], "'d'")
    try expectPosition(inputs[7])
    return [state, x]
  }
}

extension SelectiveScan: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (width, size) = (inputs[0].sizes[0], inputs[0].sizes[1])
    let tokens = inputs[1].sizes[0]
    let (state, x, dt, a) = (inputs[0].data, inputs[1].data, inputs[2].data, inputs[3].data)
    let (b, c, d) = (inputs[4].data, inputs[5].data, inputs[6].data)
    let fresh = integer(inputs[7].view) == 0
    let (next, y) = (results[0].data, results[1].data)
    for channel in 0..<width {
      let row = channel * size
      for n in 0..<size { next[row + n] = fresh ? 0 : state[row + n] }
      for t in 0..<tokens {
        let value = x[t * width + channel], step = dt[t * width + channel]
        var sum = d[channel] * value
        for n in 0..<size {
          let h = R.exp(step * a[row + n]) * next[row + n] + step * b[t * size + n] * value
          next[row + n] = h
          sum += h * c[t * size + n]
        }
        y[t * width + channel] = sum
      }
    }
  }
}
