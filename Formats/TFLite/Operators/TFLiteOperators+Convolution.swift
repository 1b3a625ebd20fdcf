import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Convolutions and pooling over images with channels last.
  static let convolution: [TFLiteOperator] = [
    TFLiteOperator("CONV_2D") { node, importer in
      typealias Field = TFLiteSchema.Conv2D
      let layer = try ConvolutionLayer(
        node, &importer, strides: [node.integer(Field.strideH, default: 1), node.integer(Field.strideW, default: 1)],
        dilations: [node.integer(Field.dilationH, default: 1), node.integer(Field.dilationW, default: 1)],
        padding: node.byte(Field.padding), activation: node.activation(Field.activation), isDepthwise: false)
      try layer.build(node, &importer)
    },
    TFLiteOperator("DEPTHWISE_CONV_2D") { node, importer in
      typealias Field = TFLiteSchema.DepthwiseConv2D
      let layer = try ConvolutionLayer(
        node, &importer, strides: [node.integer(Field.strideH, default: 1), node.integer(Field.strideW, default: 1)],
        dilations: [node.integer(Field.dilationH, default: 1), node.integer(Field.dilationW, default: 1)],
        padding: node.byte(Field.padding), activation: node.activation(Field.activation), isDepthwise: true)
      try layer.build(node, &importer)
    },
    // Inputs: the sizes of the result, weights [O, H, W, C], the image.
    TFLiteOperator("TRANSPOSE_CONV") { node, importer in
      typealias Field = TFLiteSchema.TransposeConv
      let x = try importer.real(node.input(2)), w = try importer.real(node.input(1))
      let size = try importer.integers(node.input(0))
      let (image, weight) = (try importer.sizes(x), try importer.sizes(w))
      let strides = [try node.integer(Field.strideH, default: 1), try node.integer(Field.strideW, default: 1)]
      guard image.count == 4, weight.count == 4, size.count == 4, strides.allSatisfy({ (1...1 << 16).contains($0) }),
        size.allSatisfy({ (1...1 << 24).contains($0) }), weight.allSatisfy({ (1...1 << 24).contains($0) }),
        image.allSatisfy({ (1...1 << 24).contains($0) })
      else {
        throw CompileError(
          .input, "'TRANSPOSE_CONV' of shape \(image) with weights of shape \(weight) to shape \(size)")
      }
      var padding = [0, 0, 0, 0], extra = [0, 0]
      for axis in 0..<2 {
        let rest = (image[axis + 1] - 1) * strides[axis] + weight[axis + 1] - size[axis + 1]
        extra[axis] = max(0, -rest)
        padding[axis] = max(0, rest) / 2
        padding[axis + 2] = max(0, rest) - padding[axis]
      }
      let planes = try importer.builder.emit(Transpose([0, 3, 1, 2]), x)
      let turned = try importer.builder.emit(Transpose([3, 0, 1, 2]), w)
      let bias = try node.optionalInput(3).map { try importer.real($0) }
      let op = ConvTranspose2D(strides: strides, padding: padding, extra: extra)
      var y = try importer.builder.emit(op, [planes, turned] + (bias.map { [$0] } ?? []))
      y = try importer.builder.emit(Transpose([0, 2, 3, 1]), y)
      try importer.define(node.output(), numbers: importer.activated(y, node.activation(Field.activation)))
    },
    TFLiteOperator("MAX_POOL_2D") { node, importer in
      let window = try PoolWindow(node, &importer)
      let (x, y) = (try node.input(0), try node.output())
      let op = MaxPool2D(
        kernel: window.kernel, strides: window.strides, padding: window.padding, layout: .last)
      if window.activation == .none, try importer.sharesCode(x, y) {
        try importer.define(y, raw: importer.builder.emit(op, importer.raw(x)))
      } else {
        let pooled = try importer.builder.emit(op, importer.real(x))
        try importer.define(y, numbers: importer.activated(pooled, window.activation))
      }
    },
    TFLiteOperator("AVERAGE_POOL_2D") { node, importer in
      let window = try PoolWindow(node, &importer)
      let (x, y) = (try node.input(0), try node.output())
      let op = AveragePool2D(
        kernel: window.kernel, strides: window.strides, padding: window.padding, layout: .last)
      let tensor = try importer.tensor(y, "the outputs")
      guard let code = importer.code(of: tensor), try importer.sharesCode(x, y) else {
        let pooled = try importer.builder.emit(op, importer.real(x))
        return try importer.define(y, numbers: importer.activated(pooled, window.activation))
      }
      // The mean of the codes, rounded half away from the code 0 of the file.
      let middle: Float = tensor.element == .i8 ? 128 : 0
      let codes = try importer.builder.emit(Cast(.f32), importer.raw(x))
      let steps = try importer.builder.emit(Subtract(), codes, importer.number(middle))
      let mean = try importer.builder.emit(op, steps)
      let limits = code.limits(of: window.activation == .relu6 ? .relu6 : window.activation == .relu ? .relu : .none)
      guard let limits, [.none, .relu, .relu6].contains(window.activation) else {
        throw CompileError(.unsupported, "unsupported activation of a quantized 'AVERAGE_POOL_2D'")
      }
      let half = ScalarExpression.number(0.5)
      let rounded = ScalarExpression.select(
        .binary(.less, .input(0), .number(0)), .unary(.ceil, .binary(.subtract, .input(0), half)),
        .unary(.floor, .binary(.add, .input(0), half)))
      let moved = ScalarExpression.clamp(
        .binary(.add, rounded, .number(middle)), Float(limits.lowerBound), Float(limits.upperBound))
      let result = try importer.builder.emit(FusedElementwise(moved), mean)
      try importer.define(y, raw: importer.builder.emit(Cast(.u8), result))
    },
  ]
}

extension TFLiteImporter {
  /// Whether two tensors hold numbers, or codes that stand for the same numbers.
  func sharesCode(_ a: Int, _ b: Int) throws -> Bool {
    code(of: try tensor(a, "the inputs")) == code(of: try tensor(b, "the outputs"))
  }

  /// Padding `[top, left, bottom, right]` of windows over the axes 1 and 2: with `SAME` there are as many places as strides,
  /// and what is padded once more lies behind.
  static func padding(
    _ mode: Int8, size: [Int], kernel: [Int], strides: [Int], dilations: [Int], _ type: String
  ) throws -> [Int] {
    guard (kernel + strides + dilations).allSatisfy({ (1...1 << 16).contains($0) }) else {
      throw CompileError(.input, "'\(type)' has a window of \(kernel), strides \(strides) and dilations \(dilations)")
    }
    guard mode == 0 || mode == 1 else { throw CompileError(.input, "'\(type)' has the padding \(mode)") }
    var padding = [0, 0, 0, 0]
    guard mode == 0 else { return padding }
    for axis in 0..<2 {
      let count = (size[axis] + strides[axis] - 1) / strides[axis]
      let extent = dilations[axis] * (kernel[axis] - 1) + 1
      let total = max(0, (count - 1) * strides[axis] + extent - size[axis])
      padding[axis] = total / 2
      padding[axis + 2] = total - total / 2
    }
    return padding
  }
}

/// The window of a pooling operator.
private struct PoolWindow {
  var kernel: [Int]
  var strides: [Int]
  var padding: [Int]
  var activation: TFLiteSchema.Activation

  init(_ node: TFLiteNode, _ importer: inout TFLiteImporter) throws {
    typealias Field = TFLiteSchema.Pool2D
    let sizes = try importer.sizes(importer.raw(node.input(0)))
    guard sizes.count == 4 else { throw CompileError(.input, "'\(node.type)' of shape \(sizes)") }
    kernel = [try node.integer(Field.filterHeight), try node.integer(Field.filterWidth)]
    strides = [try node.integer(Field.strideH), try node.integer(Field.strideW)]
    padding = try TFLiteImporter.padding(
      node.byte(Field.padding), size: Array(sizes[1...2]), kernel: kernel, strides: strides, dilations: [1, 1],
      node.type)
    activation = try node.activation(Field.activation)
  }
}

/// A convolution of float or 8-bit numbers, or of float numbers with 8-bit weights.
private struct ConvolutionLayer {
  let conv: Conv2D
  let kernel: [Int]
  let outputs: Int
  let activation: TFLiteSchema.Activation
  let isDepthwise: Bool

  init(
    _ node: TFLiteNode, _ importer: inout TFLiteImporter, strides: [Int], dilations: [Int], padding: Int8,
    activation: TFLiteSchema.Activation, isDepthwise: Bool
  ) throws {
    let image = try importer.sizes(importer.raw(node.input(0)))
    let weight = try importer.tensor(node.input(1), "the inputs").sizes
    guard image.count == 4, weight.count == 4, weight.allSatisfy({ $0 > 0 }), image[3] > 0 else {
      throw CompileError(.input, "'\(node.type)' of shape \(image) with weights of shape \(weight)")
    }
    kernel = Array(weight[1...2])
    outputs = weight[isDepthwise ? 3 : 0]
    let groups = isDepthwise ? image[3] : image[3] / weight[3]
    guard isDepthwise ? weight[0] == 1 && outputs % image[3] == 0 : groups * weight[3] == image[3] && groups > 0 else {
      throw CompileError(.input, "'\(node.type)' of shape \(image) with weights of shape \(weight)")
    }
    conv = Conv2D(
      strides: strides,
      padding: try TFLiteImporter.padding(
        padding, size: Array(image[1...2]), kernel: kernel, strides: strides, dilations: dilations, node.type),
      dilations: dilations, groups: groups, layout: .last)
    self.activation = activation
    self.isDepthwise = isDepthwise
  }

  func build(_ node: TFLiteNode, _ importer: inout TFLiteImporter) throws {
    let (x, w, y) = (try node.input(0), try node.input(1), try node.output())
    let layer = TFLiteLinearLayer(
      conv: conv, kernel: kernel, outputs: outputs, channelAxis: isDepthwise ? 3 : 0,
      permutation: isDepthwise ? [3, 0, 1, 2] : [0, 3, 1, 2], activation: activation)
    if let codes = try layer.quantized(x: x, w: w, bias: node.optionalInput(2), y: y, &importer, image: { x, _ in x }) {
      return try importer.define(y, raw: codes)
    }
    let numbers = try layer.numbers(x: x, w: w, bias: node.optionalInput(2), &importer, image: { x, _ in x })
    try importer.define(y, numbers: numbers)
  }
}
