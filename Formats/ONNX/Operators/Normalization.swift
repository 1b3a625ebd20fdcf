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
      let axis = try node.integer("axis", default: -1)
      guard axis == -1 || axis == rank - 1 else {
        throw CompileError(
          .unsupported, "unsupported 'LayerNormalization' over axes from \(axis) on, only the last is read")
      }
      let norm = LayerNorm(axis: -1, epsilon: try node.number("epsilon", default: 1e-5))
      return [try importer.builder.emit(norm, node.inputs(&importer))]
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
