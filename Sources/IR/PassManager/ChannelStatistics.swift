import Tensors

/// What was seen of the channels of a value, which run along its last axis unless said otherwise.
package struct ChannelStatistics: Sendable, Hashable {
  /// The largest magnitude of each channel.
  package private(set) var maxima: [Float] = []
  /// The smallest and the largest number of each channel.
  package private(set) var smallest: [Float] = []
  package private(set) var largest: [Float] = []
  /// The sum of the squares of each channel.
  package private(set) var squares: [Double] = []
  /// The rows they were measured on.
  package private(set) var rows = 0

  package init() {}

  /// The mean square of each channel.
  package var meanSquares: [Double] { squares.map { $0 / Double(max(rows, 1)) } }

  /// Adds the rows along an axis of a dense tensor of f32, the last if it is nil; those with numbers that are not
  /// finite are passed over.
  package mutating func add(_ tensor: TensorView, axis: Int? = nil) {
    guard tensor.type.isDense, tensor.type.element == .f32, !tensor.sizes.isEmpty else { return }
    let axis = axis ?? tensor.sizes.count - 1
    precondition(tensor.sizes.indices.contains(axis), "an axis of the tensor")
    let width = tensor.sizes[axis]
    guard width > 0 else { return }
    if maxima.isEmpty {
      maxima = [Float](repeating: 0, count: width)
      smallest = [Float](repeating: .infinity, count: width)
      largest = [Float](repeating: -.infinity, count: width)
      squares = [Double](repeating: 0, count: width)
    }
    guard maxima.count == width else { return }
    let values = tensor.elements(as: Float.self)
    let step = tensor.sizes[(axis + 1)...].reduce(1, *)
    for row in 0..<values.count / width {
      let first = row / step * width * step + row % step
      func value(_ channel: Int) -> Float { values[first + channel * step] }
      guard (0..<width).allSatisfy({ value($0).isFinite }) else { continue }
      rows += 1
      for i in 0..<width {
        let number = value(i)
        maxima[i] = max(maxima[i], number.magnitude)
        smallest[i] = min(smallest[i], number)
        largest[i] = max(largest[i], number)
        squares[i] += Double(number) * Double(number)
      }
    }
  }
}

extension TensorView {
  /// The mean of each channel of a dense tensor of f32.
  package func channelMeans(axis: Int) -> [Double] {
    precondition(type.isDense && type.element == .f32 && sizes.indices.contains(axis), "an axis of numbers in f32")
    let width = sizes[axis], step = sizes[(axis + 1)...].reduce(1, *)
    let values = elements(as: Float.self)
    var sums = [Double](repeating: 0, count: width)
    guard !values.isEmpty else { return sums }
    for index in values.indices { sums[index / step % width] += Double(values[index]) }
    return sums.map { $0 * Double(width) / Double(values.count) }
  }
}
