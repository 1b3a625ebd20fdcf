import Base
import IR
import Tensors

extension ONNXOperators {
  /// Normalizations and softmax.
  static let normalization: [ONNXOperator] = [
    ONNXOperator("BatchNormalization") { node, importer in
      node.ignore("momentum")
      guard try node.integer("training_mode", default: 0) == 0 else {
        throw CompileError(.unsupported, "unsupported 'BatchNormalization' in training mode")
      }
      guard try node.integer("spatial", default: 1) == 1 else {
        throw CompileError(.unsupported, "unsupported 'BatchNormalization' that is not spatial")
      }
      let epsilon = try node.number("epsilon", default: 1e-5)
      return [try importer.builder.emit(BatchNorm(epsilon: epsilon), node.inputs(&importer))]
    },
    ONNXOperator("LayerNormalization") { node, importer in
      node.ignore("stash_type")
      let x = try node.input(0, &importer)
      let rank = importer.builder.type(of: x).rank
      let axis = try normalized(node.integer("axis", default: -1), rank, "LayerNormalization")
      let epsilon = try node.number("epsilon", default: 1e-5)
      let shape = importer.builder.type(of: x).shape
      if axis == rank - 1, node.proto.output.dropFirst().allSatisfy(\.isEmpty),
        try node.inputType(1, &importer).shape == [shape.last]
      {
        return [try importer.builder.emit(LayerNorm(axis: -1, epsilon: epsilon), node.inputs(&importer))]
      }
      // With mean and inverse deviation as further results, and scale and bias that broadcast.
      let axes = Array(axis..<rank)
      let mean = try importer.builder.emit(Reduce(.mean, axes: axes, keepDims: true), x)
      let moved = try importer.builder.emit(Subtract(), x, mean)
      let squares = try importer.builder.emit(Multiply(), moved, moved)
      let variance = try importer.builder.emit(Reduce(.mean, axes: axes, keepDims: true), squares)
      let inverse = try importer.builder.emit(
        FusedElementwise(.unary(.rsqrt, .binary(.add, .input(0), .number(epsilon)))), variance)
      var y = try importer.builder.emit(Multiply(), moved, inverse)
      y = try importer.builder.emit(Multiply(), y, node.input(1, &importer))
      if let bias = try node.optionalInput(2, &importer) { y = try importer.builder.emit(Add(), y, bias) }
      return [y, mean, inverse]
    },
    ONNXOperator("Softmax") { node, importer in [try softmax(&node, &importer) { Softmax(axis: $0) }] },
    ONNXOperator("LogSoftmax") { node, importer in [try softmax(&node, &importer) { LogSoftmax(axis: $0) }] },
  ]

  /// Softmax over one axis; before operator set 13 over all axes from `axis` on, flattened.
  private static func softmax(
    _ node: inout ONNXNode, _ importer: inout ONNXImporter, _ op: (Int) -> any Operator
  ) throws -> ValueID {
    let x = try node.input(0, &importer)
    let shape = importer.builder.type(of: x).shape
    let axis = try node.integer("axis", default: importer.opset < 13 ? 1 : -1)
    guard let place = shape.normalizedAxis(axis) else {
      throw CompileError(.input, "'\(node.type)' over axis \(axis) of shape \(shape)")
    }
    if importer.opset >= 13 || place == shape.rank - 1 { return try importer.builder.emit(op(place), x) }
    guard let rows = Shape.product(Array(shape.dims[..<place])),
      let columns = Shape.product(Array(shape.dims[place...]))
    else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' over several sizes known only at run time")
    }
    let flat = try importer.builder.emit(Reshape([rows, columns]), x)
    return try importer.builder.emit(Reshape(shape.dims), try importer.builder.emit(op(1), flat))
  }
}
