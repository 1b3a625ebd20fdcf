import Tensors

/// What was seen of the channels of a value, which run along its last axis.
package struct ChannelStatistics: Sendable, Hashable {
  /// The largest magnitude of each channel.
  package private(set) var maxima: [Float] = []
  /// The sum of the squares of each channel.
  package private(set) var squares: [Double] = []
  /// The rows they were measured on.
  package private(set) var rows = 0

  package init() {}

  /// The mean square of each channel.
  package var meanSquares: [Double] { squares.map { $0 / Double(max(rows, 1)) } }

  /// Adds the rows of a dense tensor of f32; those with numbers that are not finite are passed over.
  package mutating func add(_ tensor: TensorView) {
    guard tensor.type.isDense, tensor.type.element == .f32, let width = tensor.sizes.last, width > 0 else { return }
    if maxima.isEmpty {
      maxima = [Float](repeating: 0, count: width)
      squares = [Double](repeating: 0, count: width)
    }
    guard maxima.count == width else { return }
    let values = tensor.elements(as: Float.self)
    for row in 0..<values.count / width {
      let part = UnsafeBufferPointer(rebasing: values[row * width..<(row + 1) * width])
      guard part.allSatisfy(\.isFinite) else { continue }
      rows += 1
      for i in 0..<width {
        maxima[i] = max(maxima[i], part[i].magnitude)
        squares[i] += Double(part[i]) * Double(part[i])
      }
    }
  }
}
