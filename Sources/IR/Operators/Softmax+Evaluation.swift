import Tensors

extension Softmax: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    eachLine(inputs[0], results[0], axis: axis) { x, y, count, stride in
      let (largest, sum) = exponentials(x, y, count, stride)
      if sum == 0 || largest.isNaN { return }
      let factor = 1 / sum
      for i in 0..<count { y[i * stride] = R(rounding: Double(y[i * stride]) * factor) }
    }
  }
}

extension LogSoftmax: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    eachLine(inputs[0], results[0], axis: axis) { x, y, count, stride in
      let (largest, sum) = exponentials(x, y, count, stride)
      let logarithm = Double.log(sum)
      for i in 0..<count { y[i * stride] = R(rounding: Double(x[i * stride]) - Double(largest) - logarithm) }
    }
  }
}

/// Calls `body` with each line along an axis: its first element in source and target, its length, and its stride.
private func eachLine<R: Real>(
  _ input: Numbers<R>, _ result: Results<R>, axis: Int,
  _ body: @Sendable (UnsafePointer<R>, UnsafeMutablePointer<R>, Int, Int) -> Void
) {
  let sizes = input.sizes
  let axis = axis < 0 ? axis + sizes.count : axis
  let count = sizes[axis]
  let stride = sizes[(axis + 1)...].reduce(1, *)
  guard count > 0 else { return }
  nonisolated(unsafe) let (x, y) = (input.data, result.data)
  parallelFor(input.count / count, grain: max(1, 16384 / count)) { range in
    for line in range {
      let offset = line / stride * stride * count + line % stride
      body(x + offset, y + offset, count, stride)
    }
  }
}

/// Writes `exp(x - max)` and returns the maximum and the sum, which is accumulated in f64.
private func exponentials<R: Real>(
  _ x: UnsafePointer<R>, _ y: UnsafeMutablePointer<R>, _ count: Int, _ stride: Int
) -> (R, Double) {
  var largest = x[0]
  for i in 1..<max(count, 1) where x[i * stride] > largest { largest = x[i * stride] }
  var sum = 0.0
  for i in 0..<count {
    let value = R.exp(x[i * stride] - largest)
    y[i * stride] = value
    sum += Double(value)
  }
  return (largest, sum)
}
