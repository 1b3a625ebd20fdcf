import Base
import IR
import TestSupport
import Tensors
import Testing

/// The sums of ``QuantizedConv2D``, which are whole numbers, against those of ``Conv2D`` in f64, which represents them.
@Suite struct QuantizedConvEvaluationTests {
  struct Sizes: CustomStringConvertible {
    var image = [2, 5, 6], channels = 4, outputs = 6, kernel = [3, 2], strides = [1, 1], padding = [0, 0, 0, 0]
    var dilations = [1, 1], groups = 1
    var description: String {
      "\(image) \(channels) -> \(outputs) \(kernel) \(strides) \(padding) \(dilations) \(groups)"
    }
  }

  static let sizes: [Sizes] = [
    Sizes(channels: 7, outputs: 9, kernel: [1, 1]), Sizes(padding: [1, 2, 0, 3]),
    Sizes(strides: [2, 3], padding: [2, 1, 2, 1], dilations: [2, 1]),
    Sizes(outputs: 8, padding: [1, 1, 1, 1], groups: 4),
    Sizes(channels: 6, outputs: 3, dilations: [1, 3], groups: 3), Sizes(image: [1, 3, 2], outputs: 1),
    Sizes(image: [1, 1, 1], kernel: [4, 4], padding: [3, 3, 3, 3]),
  ]

  @Test(arguments: sizes.indices) func sums(_ index: Int) throws {
    let s = Self.sizes[index]
    var generator = SplitMix64(seed: 11)
    for layout in [ImageLayout.first, .last] {
      let image = layout == .first ? [s.image[0], s.channels] + s.image[1...] : s.image + [s.channels]
      let bytes = (0..<image.reduce(1, *)).map { _ in UInt8(generator.int(below: 256)) }
      let depth = s.channels / s.groups * s.kernel[0] * s.kernel[1]
      let codes = (0..<(s.outputs * depth)).map { _ in Int8(generator.int(below: 255) - 127) }
      let window = Conv2D(
        strides: s.strides, padding: s.padding, dilations: s.dilations, groups: s.groups, layout: layout)
      for zero in [0, 200] {
        let op = QuantizedConv2D(window, kernel: s.kernel, input: AffineCode(scale: 1, zeroPoint: zero))
        let rows = Tensor(TensorType(.f32, [.fixed(s.outputs), .fixed(depth)], encoding: .block(.w8c)))
        for row in 0..<s.outputs {
          rows.mutableView.bytes.storeBytes(of: Float(1).bitPattern, toByteOffset: row * (4 + depth), as: UInt32.self)
          for k in 0..<depth {
            rows.mutableView.bytes[row * (4 + depth) + 4 + k] = UInt8(bitPattern: codes[row * depth + k])
          }
        }
        let inputs = [Tensor(.u8, image, bytes), rows]
        let found = try op.results(of: inputs)[0]
        let numbers = [
          Tensor(.f64, image, bytes.map { Double(Int($0) - zero) }),
          Tensor(.f64, [s.outputs, s.channels / s.groups] + s.kernel, codes.map(Double.init)),
        ]
        let expected = Tensor(try window.inferTypes(numbers.map(\.type))[0])
        try window.evaluate(numbers.map(\.view), into: [expected.mutableView])
        #expect(
          found.view.elements(as: Float.self).map { Double($0) } == Array(expected.view.elements(as: Double.self)),
          "\(s) \(layout) \(zero)")
      }
    }
  }
}
