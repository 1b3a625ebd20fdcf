import Base
import IR
import Tensors

extension ONNXOperators {
  /// Losses over classes, which lie along the second axis.
  static let losses: [ONNXOperator] = [
    ONNXOperator("NegativeLogLikelihoodLoss") { node, importer in
      let logarithms = try node.input(0, &importer)
      return [try loss(of: logarithms, &node, &importer)]
    },
    ONNXOperator("SoftmaxCrossEntropyLoss") { node, importer in
      let logarithms = try importer.builder.emit(LogSoftmax(axis: 1), node.input(0, &importer))
      return [try loss(of: logarithms, &node, &importer), logarithms]
    },
  ]

  /// Minus the logarithm at each target times its weight; all of them, their sum, or their weighted mean.
  private static func loss(
    of logarithms: ValueID, _ node: inout ONNXNode, _ importer: inout ONNXImporter
  ) throws -> ValueID {
    let shape = importer.builder.type(of: logarithms).shape
    let target = try node.input(1, &importer)
    guard shape.rank >= 2, case let places = [shape[0]] + Array(shape.dims[2...]),
      importer.builder.type(of: target).shape == Shape(places),
      importer.builder.type(of: logarithms).element == .f32
    else {
      throw CompileError(
        .unsupported, "unsupported '\(node.type)' of type \(importer.builder.type(of: logarithms))")
    }
    let whole = try importer.builder.emit(Cast(.i64), target)
    var wide = places
    wide.insert(1, at: 1)
    let targets = try importer.builder.emit(Reshape(wide), whole)
    let classes = try importer.builder.places(shape[1], axis: 1, rank: shape.rank)
    let isTarget = try importer.builder.emit(Equal(), classes, targets)
    func chosen(_ values: ValueID) throws -> ValueID {
      let own = try importer.builder.emit(Select(), isTarget, values, importer.zero(.f32))
      return try importer.builder.emit(Reduce(.sum, axes: [1]), own)
    }
    var losses = try importer.builder.emit(Negate(), chosen(logarithms))
    let one = importer.builder.constant(.inline("one", .f32, [], [Float(1)]))
    var weights: ValueID?
    if let given = try node.optionalInput(2, &importer) {
      let along = try importer.builder.emit(Reshape(importer.builder.type(of: classes).shape.dims), given)
      weights = try chosen(importer.builder.emit(Expand(shape.dims), along))
    }
    if node.has("ignore_index") {
      let ignored = importer.scalar(Int64(try node.integer("ignore_index", default: 0)))
      let counts = try importer.builder.emit(NotEqual(), whole, ignored)
      weights = try importer.builder.emit(Select(), counts, weights ?? one, importer.zero(.f32))
      // What is ignored may lie outside of the classes.
      losses = try importer.builder.emit(Select(), counts, losses, importer.zero(.f32))
    }
    if let weights { losses = try importer.builder.emit(Multiply(), losses, weights) }
    switch try node.string("reduction", default: "mean") {
    case "none": return losses
    case "sum": return try importer.builder.emit(Reduce(.sum, axes: []), losses)
    case "mean":
      guard let weights else { return try importer.builder.emit(Reduce(.mean, axes: []), losses) }
      let all = try importer.builder.emit(Expand(places), weights)
      let total = try importer.builder.emit(Reduce(.sum, axes: []), all)
      return try importer.builder.emit(Divide(), importer.builder.emit(Reduce(.sum, axes: []), losses), total)
    case let other: throw CompileError(.input, "'\(node.type)' has the reduction '\(other)'")
    }
  }
}
