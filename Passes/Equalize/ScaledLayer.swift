import IR
import Tensors

/// The largest magnitudes in a layer's weight, and the scales that its outputs and input channels have got so far.
struct ScaledLayer {
  let node: NodeID
  let layer: AffineLayer
  /// Input channels that each output sees.
  let width: Int
  /// The largest magnitude over the taps, `[outputs, width]`.
  private var magnitudes: [Float]
  private(set) var outputScales: [Double]
  private(set) var channelScales: [Double]

  /// The layer at a node, whose weight has these numbers.
  init(_ node: NodeID, _ layer: AffineLayer, _ numbers: [Float]) {
    self.node = node
    self.layer = layer
    width = layer.channels / layer.groups
    outputScales = [Double](repeating: 1, count: layer.outputs)
    channelScales = [Double](repeating: 1, count: layer.channels)
    let (rows, columns) = (layer.outputs, width)
    let perGroup = rows / layer.groups
    var largest = [Float](repeating: 0, count: rows * columns)
    for row in 0..<rows {
      for column in 0..<columns {
        let (first, step, taps): (Int, Int, Int)
        switch layer.operation {
        case .product(let op):
          (first, step, taps) = (op.transposeB ? row * columns + column : column * rows + row, 1, 1)
        case .convolution:
          let count = layer.sizes[2] * layer.sizes[3]
          (first, step, taps) = ((row * columns + column) * count, 1, count)
        case .transposed:
          let count = layer.sizes[2] * layer.sizes[3]
          (first, step, taps) = (
            ((row / perGroup * columns + column) * perGroup + row % perGroup) * count, 1, count
          )
        }
        var magnitude: Float = 0
        for tap in 0..<taps { magnitude = max(magnitude, numbers[first + tap * step].magnitude) }
        largest[row * columns + column] = magnitude
      }
    }
    magnitudes = largest
  }

  /// The first input channel that an output sees.
  private func firstChannel(of output: Int) -> Int { output / (layer.outputs / layer.groups) * width }

  /// The largest magnitude that the weights of each output have by now.
  var outputMaxima: [Double] {
    (0..<layer.outputs).map { output in
      let first = firstChannel(of: output)
      var largest = 0.0
      for i in 0..<width { largest = max(largest, Double(magnitudes[output * width + i]) * channelScales[first + i]) }
      return largest * outputScales[output]
    }
  }

  /// The largest magnitude that the weights reading each input channel have by now.
  var channelMaxima: [Double] {
    var maxima = [Double](repeating: 0, count: layer.channels)
    for output in 0..<layer.outputs {
      let first = firstChannel(of: output)
      for i in 0..<width {
        maxima[first + i] = max(maxima[first + i], Double(magnitudes[output * width + i]) * outputScales[output])
      }
    }
    return zip(maxima, channelScales).map { $0 * $1 }
  }

  /// Divides the outputs by scales.
  mutating func divideOutputs(by scales: [Double]) {
    for (index, scale) in scales.enumerated() { outputScales[index] /= scale }
  }

  /// Multiplies the weights that read input channels by scales.
  mutating func multiplyChannels(by scales: [Double]) {
    for (index, scale) in scales.enumerated() { channelScales[index] *= scale }
  }
}
