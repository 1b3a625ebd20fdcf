import Tensors

extension RMSNorm: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    nonisolated(unsafe) let weight = inputs[1].data
    let epsilon = Double(epsilon)
    eachRow(inputs[0], results[0], columns: inputs[1].count) { x, y, count in
      var squares = 0.0
      for i in 0..<count { squares += Double(x[i]) * Double(x[i]) }
      let factor = R(rounding: 1 / (squares / Double(count) + epsilon).squareRoot())
      for i in 0..<count { y[i] = x[i] * factor * weight[i] }
    }
  }
}

extension LayerNorm: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    nonisolated(unsafe) let weight = inputs[1].data
    nonisolated(unsafe) let bias = inputs.count > 2 ? inputs[2].data : nil
    let epsilon = Double(epsilon)
    eachRow(inputs[0], results[0], columns: inputs[1].count) { x, y, count in
      var sum = 0.0
      for i in 0..<count { sum += Double(x[i]) }
      let mean = sum / Double(count)
      var squares = 0.0
      for i in 0..<count { squares += (Double(x[i]) - mean) * (Double(x[i]) - mean) }
      let factor = 1 / (squares / Double(count) + epsilon).squareRoot()
      for i in 0..<count { y[i] = R(rounding: (Double(x[i]) - mean) * factor) * weight[i] }
      if let bias { for i in 0..<count { y[i] += bias[i] } }
    }
  }
}

extension BatchNorm: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, y) = (inputs[0].data, results[0].data)
    let (scale, bias, mean, variance) = (inputs[1].data, inputs[2].data, inputs[3].data, inputs[4].data)
    let channels = inputs[0].sizes[1]
    let plane = inputs[0].sizes[2...].reduce(1, *)
    for index in 0..<(inputs[0].sizes[0] * channels) {
      let channel = index % channels
      let factor = Double(scale[channel]) / (Double(variance[channel]) + Double(epsilon)).squareRoot()
      let offset = Double(bias[channel]) - Double(mean[channel]) * factor
      for i in (index * plane)..<((index + 1) * plane) { y[i] = R(rounding: Double(x[i]) * factor + offset) }
    }
  }
}

/// Calls `body` with each row of `columns` numbers in source and target.
private func eachRow<R: Real>(
  _ input: Numbers<R>, _ result: Results<R>, columns: Int,
  _ body: @Sendable (UnsafePointer<R>, UnsafeMutablePointer<R>, Int) -> Void
) {
  guard columns > 0 else { return }
  nonisolated(unsafe) let (x, y) = (input.data, result.data)
  parallelFor(input.count / columns, grain: max(1, 65536 / columns)) { range in
    for row in range { body(x + row * columns, y + row * columns, columns) }
  }
}
