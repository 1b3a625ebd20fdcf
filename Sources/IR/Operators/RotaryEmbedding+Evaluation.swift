import Tensors

extension RopeTable: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let position = integer(inputs[0].view)
    let frequencies = inputs[1].data
    let (rows, width) = (results[0].sizes[0], results[0].sizes[2])
    let table = results[0].data
    for i in 0..<rows {
      let place = R(rounding: Double(position + i))
      for j in 0..<width {
        let angle = place * frequencies[j]
        table[2 * i * width + j] = R.cos(angle)
        table[(2 * i + 1) * width + j] = R.sin(angle)
      }
    }
  }
}

extension Rope: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, table, y) = (inputs[0].data, inputs[1].data, results[0].data)
    let sizes = inputs[0].sizes
    let columns = sizes[sizes.count - 1]
    let rows = sizes[sizes.count - 2]
    let width = inputs[1].sizes[2]
    y.update(from: x, count: inputs[0].count)
    guard columns > 0 else { return }
    for row in 0..<(inputs[0].count / columns) {
      let cosines = table + 2 * (row % rows) * width
      let sines = cosines + width
      for head in 0..<(columns / headDim) {
        let offset = row * columns + head * headDim
        for j in 0..<width {
          let first = offset + (interleaved ? 2 * j : j)
          let second = offset + (interleaved ? 2 * j + 1 : j + width)
          let (a, b) = (x[first], x[second])
          y[first] = a * cosines[j] - b * sines[j]
          y[second] = b * cosines[j] + a * sines[j]
        }
      }
    }
  }
}
