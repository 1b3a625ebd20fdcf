import IR

/// How one ONNX operator becomes IR: its type name and a function that emits nodes and returns the results.
struct ONNXOperator: Sendable {
  let type: String
  let build: @Sendable (inout ONNXNode, inout ONNXImporter) throws -> [ValueID]

  init(_ type: String, _ build: @escaping @Sendable (inout ONNXNode, inout ONNXImporter) throws -> [ValueID]) {
    self.type = type
    self.build = build
  }
}

/// The ONNX operators that are read.
enum ONNXOperators {
  /// All of them, one list per family.
  static let all: [ONNXOperator] = [
    elementwise, activations, convolution, matrixProducts, normalization, norms, shapes, shapeArithmetic, indexing,
    resizing, reductions, recurrent, losses, constants, quantized, sums,
  ].flatMap { $0 }

  /// All of them by type name.
  static let byType: [String: ONNXOperator] = Dictionary(
    all.map { ($0.type, $0) }, uniquingKeysWith: { first, _ in first })
}
