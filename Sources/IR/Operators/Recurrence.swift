import Base
import Tensors

/// The steps of a recurrent layer over time, given what the inputs add to the gates (ONNX `RNN`, `GRU`, `LSTM`).
///
/// Inputs: `x: f32[T, B, G * H]`, the inputs' part of the gates, biases included; `r: f32[H, G * H]`, the recurrent weights; `h0:
/// f32[B, H]`; for LSTM `c0: f32[B, H]`; then, as the attributes say, `bias: f32[H]`, `peepholes: f32[3 * H]` for input, output
/// and forget gate, and `lengths: i32[B]`. With the activations f, g, h and the gates in the order of ONNX:
///
///     rnn:   h' = f(x + h r)
///     gru:   z = f(xz + h rz), r = f(xr + h rr), n = g(xn + (r h) rn), or g(xn + r (h rn + bias)) with `resetsLater`;
///            h' = (1 - z) n + z h
///     lstm:  i = f(xi + h ri + pi c), f = f(xf + h rf + pf c) (1 - i if `couplesGates`), n = g(xc + h rc),
///            c' = f c + i n, o = f(xo + h ro + po c'), h' = o h(c'); gates in the order i, o, f, c
///
/// Result `f32[T + 2, B, H]`: row t is h' of time t, then follow the last h and the last c (zeros but for LSTM). `backward` runs from the last
/// time to the first. With lengths, entry b has `lengths[b]` times; rows behind are zeros.
package struct Recurrence: Operator {
  package static let name = "recurrence"

  package enum Cell: String, Hashable, Codable, Sendable, CaseIterable {
    case rnn, gru, lstm

    /// Gates, which are columns of `x` and `r`.
    package var gates: Int {
      switch self {
      case .rnn: 1
      case .gru: 3
      case .lstm: 4
      }
    }

    /// Activations: f, g and h.
    package var activations: Int {
      switch self {
      case .rnn: 1
      case .gru: 2
      case .lstm: 3
      }
    }
  }

  package var cell: Cell = .rnn
  package var backward: Bool = false
  /// Functions of `%0`.
  package var activations: [ScalarExpression] = [.unary(.tanh, .input(0))]
  package var resetsLater: Bool = false
  package var couplesGates: Bool = false
  package var peepholes: Bool = false
  package var lengths: Bool = false

  package init() {}

  package init(_ cell: Cell, backward: Bool = false, activations: [ScalarExpression]) {
    self.cell = cell
    self.backward = backward
    self.activations = activations
  }

  /// The indices of inputs that may be missing.
  package var cellIndex: Int? { cell == .lstm ? 3 : nil }
  package var biasIndex: Int? { resetsLater ? 3 : nil }
  package var peepholesIndex: Int? { peepholes ? 4 : nil }
  package var lengthsIndex: Int? {
    lengths ? 3 + (cell == .lstm ? 1 : 0) + (resetsLater ? 1 : 0) + (peepholes ? 1 : 0) : nil
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    let count = 3 + [cellIndex, biasIndex, peepholesIndex, lengthsIndex].count { $0 != nil }
    try expect(inputs, count: count...count)
    guard activations.count == cell.activations, activations.allSatisfy({ $0.inputCount <= 1 }) else {
      throw failure("found \(activations.count) activations, expected \(cell.activations) of one number each")
    }
    guard !resetsLater || cell == .gru, !peepholes && !couplesGates || cell == .lstm else {
      throw failure("found attributes of another cell than '\(cell.rawValue)'")
    }
    let (x, r) = (inputs[0], inputs[1])
    try expectFloat(x, "gates")
    try expectRank(x, 3...3, "gates")
    try expectRank(r, 2...2, "weights")
    let hidden = try expectFixed(r.shape[0], "hidden size")
    guard hidden > 0, hidden <= 1 << 16, case let columns = hidden * cell.gates, r.shape[1] == .fixed(columns),
      x.shape[2] == .fixed(columns)
    else { throw failure("gates of shape \(x.shape) do not fit weights of shape \(r.shape)") }
    let state = Shape([x.shape[1], .fixed(hidden)])
    func expectInput(_ index: Int?, _ shape: Shape, _ role: String) throws {
      guard let index else { return }
      try expectFloat(inputs[index], role)
      try expectShape(inputs[index], shape, role)
    }
    try expectFloat(r, "weights")
    try expectInput(2, state, "first state")
    try expectInput(cellIndex, state, "first cell")
    try expectInput(biasIndex, Shape([hidden]), "bias")
    try expectInput(peepholesIndex, Shape([3 * hidden]), "peepholes")
    if let index = lengthsIndex {
      guard inputs[index] == TensorType(.i32, Shape([x.shape[1]])) else {
        throw failure("found lengths of type \(inputs[index]), expected i32[\(x.shape[1])]")
      }
    }
    return [x.with(shape: Shape([x.shape[0] + 2, x.shape[1], .fixed(hidden)]))]
  }
}

extension Recurrence: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let sizes = inputs[0].sizes, hidden = inputs[1].sizes[0], width = sizes[2]
    let (times, batch) = (sizes[0], sizes[1])
    let y = results[0].data
    let recurrent = inputs[1].data
    let bias = biasIndex.map { inputs[$0].data }, peepholes = peepholesIndex.map { inputs[$0].data }
    var sums = [R](repeating: 0, count: width)
    let product = MatrixProduct(rows: 1, columns: width, depth: hidden)
    for entry in 0..<batch {
      var length = times
      if let index = lengthsIndex {
        length = Int(inputs[index].data[entry])
        guard (0...times).contains(length) else { throw failure("entry \(entry) has \(length) of \(times) times") }
      }
      var h = Array(UnsafeBufferPointer(start: inputs[2].data + entry * hidden, count: hidden))
      var c = cellIndex.map { Array(UnsafeBufferPointer(start: inputs[$0].data + entry * hidden, count: hidden)) } ?? []
      for step in 0..<times {
        guard step < length else {
          (y + (step * batch + entry) * hidden).update(repeating: 0, count: hidden)
          continue
        }
        let time = backward ? length - 1 - step : step
        let gates = UnsafeBufferPointer(start: inputs[0].data + (time * batch + entry) * width, count: width)
        sums.withUnsafeMutableBufferPointer { target in
          guard let base = target.baseAddress else { return }
          h.withUnsafeBufferPointer { R.multiply(product, $0.baseAddress ?? recurrent, recurrent, into: base) }
        }
        func gate(_ index: Int) -> [R] { (0..<hidden).map { gates[index * hidden + $0] + sums[index * hidden + $0] } }
        switch cell {
        case .rnn: h = activations[0].apply(to: gate(0))
        case .gru:
          let z = activations[0].apply(to: gate(0)), reset = activations[0].apply(to: gate(1))
          var new = (0..<hidden).map { gates[2 * hidden + $0] }
          if let bias {
            for j in 0..<hidden { new[j] += reset[j] * (sums[2 * hidden + j] + bias[j]) }
          } else {
            for j in 0..<hidden {
              for i in 0..<hidden { new[j] += reset[i] * h[i] * recurrent[i * width + 2 * hidden + j] }
            }
          }
          new = activations[1].apply(to: new)
          h = (0..<hidden).map { (1 - z[$0]) * new[$0] + z[$0] * h[$0] }
        case .lstm:
          func peeping(_ index: Int, _ part: Int, _ cell: [R]) -> [R] {
            let own = gate(index)
            guard let peepholes else { return own }
            return (0..<hidden).map { own[$0] + peepholes[part * hidden + $0] * cell[$0] }
          }
          let i = activations[0].apply(to: peeping(0, 0, c))
          let f = couplesGates ? i.map { 1 - $0 } : activations[0].apply(to: peeping(2, 2, c))
          let n = activations[1].apply(to: gate(3))
          c = (0..<hidden).map { f[$0] * c[$0] + i[$0] * n[$0] }
          let o = activations[0].apply(to: peeping(1, 1, c))
          let squashed = activations[2].apply(to: c)
          h = (0..<hidden).map { o[$0] * squashed[$0] }
        }
        for j in 0..<hidden { y[(time * batch + entry) * hidden + j] = h[j] }
      }
      for j in 0..<hidden {
        y[(times * batch + entry) * hidden + j] = h[j]
        y[((times + 1) * batch + entry) * hidden + j] = cell == .lstm ? c[j] : 0
      }
    }
  }
}

extension ScalarExpression {
  /// The function of `%0` of each number.
  fileprivate func apply<R: Real>(to x: [R]) -> [R] {
    switch self {
    case .input: return x
    case .constant(let bits): return x.map { _ in R(rounding: Double(Float(bitPattern: bits))) }
    case .unary(let function, let operand):
      var values = operand.apply(to: x)
      values.withUnsafeMutableBufferPointer { buffer in
        if let base = buffer.baseAddress { R.apply(function, to: base, count: buffer.count) }
      }
      return values
    case .binary(let function, let left, let right):
      var values = left.apply(to: x)
      let others = right.apply(to: x)
      values.withUnsafeMutableBufferPointer { buffer in
        others.withUnsafeBufferPointer { other in
          if let base = buffer.baseAddress, let second = other.baseAddress {
            _ = R.apply(function, to: base, second, count: buffer.count)
          }
        }
      }
      return values
    case .select(let condition, let left, let right):
      let (flags, a, b) = (condition.apply(to: x), left.apply(to: x), right.apply(to: x))
      return x.indices.map { flags[$0] != 0 ? a[$0] : b[$0] }
    }
  }
}
