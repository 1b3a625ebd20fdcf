import Base
import IR
import Tensors

extension ONNXOperators {
  /// Products of codes. Codes less their zero points are whole numbers that f32 holds, and so are sums of few of their products;
  /// results in i32 are added up from such sums.
  static let quantized: [ONNXOperator] = [
    ONNXOperator("MatMulInteger") { node, importer in
      let a = try codes(node, &importer, 0, zero: 2, axis: -2), b = try codes(node, &importer, 1, zero: 3, axis: -1)
      let (left, right) = (importer.builder.type(of: a).shape, importer.builder.type(of: b).shape)
      guard left.rank >= 2, right.rank >= 2, let depth = left.last.fixedValue, right[right.rank - 2] == left.last else {
        throw CompileError(.input, "'MatMulInteger' of shapes \(left) and \(right)")
      }
      return [
        try exactSum(depth, &importer) { range, importer in
          let part = Slice(axis: left.rank - 1, start: .fixed(range.lowerBound), size: .fixed(range.count))
          let rows = Slice(axis: right.rank - 2, start: .fixed(range.lowerBound), size: .fixed(range.count))
          let isAll = range.count == depth
          return try importer.builder.emit(
            MatMul(), isAll ? a : importer.builder.emit(part, a), isAll ? b : importer.builder.emit(rows, b))
        }
      ]
    },
    ONNXOperator("ConvInteger") { node, importer in
      let x = try codes(node, &importer, 0, zero: 2, axis: 1), w = try codes(node, &importer, 1, zero: 3, axis: 0)
      let shape = importer.builder.type(of: w).shape
      guard let count = shape.fixedSizes?.dropFirst().reduce(1, *), count <= mostProducts else {
        throw CompileError(.unsupported, "unsupported 'ConvInteger' with weights of shape \(shape)")
      }
      let y = try convolution(x, w, bias: nil, &node, &importer)
      return [try importer.builder.emit(Cast(.i32), y)]
    },
    ONNXOperator("QLinearMatMul") { node, importer in
      let a = try codes(node, &importer, 0, zero: 2, axis: -2), b = try codes(node, &importer, 3, zero: 5, axis: -1)
      let sum = try importer.builder.emit(MatMul(), a, b)
      let scales = [
        try scale(node, &importer, 1, with: a, axis: -2),
        try scale(node, &importer, 4, with: b, axis: -1),
      ]
      return [try requantized(sum, scales, &node, &importer, scale: 6, zero: 7)]
    },
    ONNXOperator("QLinearConv") { node, importer in
      let x = try codes(node, &importer, 0, zero: 2, axis: 1), w = try codes(node, &importer, 3, zero: 5, axis: 0)
      let bias = try node.optionalInput(8, &importer).map { try importer.builder.emit(Cast(.f32), $0) }
      let sum = try convolution(x, w, bias: bias, &node, &importer)
      let scales = [
        try scale(node, &importer, 1, with: sum, axis: 1),
        try scale(node, &importer, 4, with: sum, axis: 1),
      ]
      return [try requantized(sum, scales, &node, &importer, scale: 6, zero: 7)]
    },
  ]

  /// Products of two codes less their zero points, each of magnitude 255 at most, whose sum f32 holds whatever they are.
  private static let mostProducts = (1 << 24) / (255 * 255)

  /// The codes of an input less their zero points, as f32.
  private static func codes(
    _ node: ONNXNode, _ importer: inout ONNXImporter, _ index: Int, zero: Int, axis: Int
  ) throws -> ValueID {
    let value = try node.input(index, &importer)
    let element = importer.builder.type(of: value).element
    guard element == .u8 || element == .i8 else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' of \(element.rawValue)")
    }
    let numbers = try importer.builder.emit(Cast(.f32), value)
    guard let zero = try node.optionalInput(zero, &importer) else { return numbers }
    let offset = try importer.aligned(importer.builder.emit(Cast(.f32), zero), with: numbers, axis: axis, node.type)
    return try importer.builder.emit(Subtract(), numbers, offset)
  }

  /// A scale as f32, along the axis of a value that it belongs to.
  private static func scale(
    _ node: ONNXNode, _ importer: inout ONNXImporter, _ index: Int, with value: ValueID, axis: Int
  ) throws -> ValueID {
    let scale = try node.input(index, &importer)
    guard importer.builder.type(of: scale).element != .f32 else {
      return try importer.aligned(scale, with: value, axis: axis, node.type)
    }
    return try importer.aligned(importer.builder.emit(Cast(.f32), scale), with: value, axis: axis, node.type)
  }

  /// The sum in i32 over a depth, in parts that f32 holds.
  private static func exactSum(
    _ depth: Int, _ importer: inout ONNXImporter,
    _ part: (Range<Int>, inout ONNXImporter) throws -> ValueID
  ) throws -> ValueID {
    guard depth > 0, depth / mostProducts < 256 else {
      throw CompileError(.unsupported, "unsupported sum of \(depth) products of codes")
    }
    var sum: ValueID?
    for start in stride(from: 0, to: depth, by: mostProducts) {
      let product = try part(start..<min(start + mostProducts, depth), &importer)
      let whole = try importer.builder.emit(Cast(.i32), product)
      sum = try sum.map { try importer.builder.emit(Add(), $0, whole) } ?? whole
    }
    guard let sum else { throw CompileError(.input, "a sum of no products") }
    return sum
  }

  /// A sum of products of codes as the code of the result: times the scales of both factors, over that of the result.
  private static func requantized(
    _ sum: ValueID, _ scales: [ValueID], _ node: inout ONNXNode, _ importer: inout ONNXImporter, scale: Int, zero: Int
  ) throws -> ValueID {
    let offset = try node.input(zero, &importer)
    let element = importer.builder.type(of: offset).element
    let result = try self.scale(node, &importer, scale, with: sum, axis: 1)
    let factor = try importer.builder.emit(
      FusedElementwise(.binary(.divide, .binary(.multiply, .input(0), .input(1)), .input(2))), scales + [result])
    let moved = try importer.aligned(
      importer.builder.emit(Cast(.f32), offset), with: sum, axis: 1, node.type)
    let (low, high): (Float, Float) = element == .u8 ? (0, 255) : (-128, 127)
    guard element == .u8 || element == .i8 else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' to \(element.rawValue)")
    }
    let code = ScalarExpression.clamp(
      .binary(.add, .unary(.round, .binary(.multiply, .input(0), .input(1))), .input(2)), low, high)
    return try importer.builder.emit(
      Cast(element), importer.builder.emit(FusedElementwise(code), sum, factor, moved))
  }
}
