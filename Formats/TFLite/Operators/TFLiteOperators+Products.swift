import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Fully connected layers and products of matrices.
  static let products: [TFLiteOperator] = [
    // Weights [O, K]; the image is seen as rows of K numbers.
    TFLiteOperator("FULLY_CONNECTED") { node, importer in
      typealias Field = TFLiteSchema.FullyConnected
      let (x, w, y) = (try node.input(0), try node.input(1), try node.output())
      let weight = try importer.tensor(w, "the inputs").sizes
      let image = try importer.sizes(importer.raw(x))
      guard weight.count == 2, weight[0] > 0, weight[1] > 0, case let count = image.reduce(1, *),
        count % weight[1] == 0
      else { throw CompileError(.input, "'FULLY_CONNECTED' of shape \(image) with weights of shape \(weight)") }
      guard try node.byte(Field.weightsFormat) == 0 else {
        throw CompileError(.unsupported, "unsupported 'FULLY_CONNECTED' with shuffled weights")
      }
      let rows = count / weight[1]
      let keeps = try node.flag(Field.keepNumDims)
      guard !keeps || image.last == weight[1] else {
        throw CompileError(.input, "'FULLY_CONNECTED' of shape \(image) with weights of shape \(weight)")
      }
      let shape = (keeps ? Array(image.dropLast()) : [rows]) + [weight[0]]
      let activation = try node.activation(Field.activation)
      let layer = TFLiteLinearLayer(
        conv: Conv2D(layout: .last), kernel: [1, 1], outputs: weight[0], channelAxis: 0,
        permutation: [0, 3, 1, 2], activation: activation)
      let dims = shape.map { Dim.fixed($0) }
      if let codes = try layer.quantized(
        x: x, w: w, bias: node.optionalInput(2), y: y, &importer,
        image: { try $1.builder.emit(Reshape([1, 1, .fixed(rows), .fixed(weight[1])]), $0) })
      {
        return try importer.define(y, raw: importer.builder.emit(Reshape(dims), codes))
      }
      if try importer.tensor(w, "the inputs").element == .i8 {
        // Every row has a range of its own.
        let numbers = try layer.numbers(
          x: x, w: w, bias: node.optionalInput(2), &importer,
          image: { try $1.builder.emit(Reshape([.fixed(rows), 1, 1, .fixed(weight[1])]), $0) })
        return try importer.define(y, numbers: importer.builder.emit(Reshape(dims), numbers))
      }
      var factors = [
        try importer.builder.emit(Reshape([.fixed(rows), .fixed(weight[1])]), importer.real(x)),
        try importer.real(w),
      ]
      var product = MatMul(transposeB: true)
      if let bias = node.optionalInput(2) {
        factors.append(try importer.real(bias))
        product.epilogue.bias = true
      }
      let sums = try importer.builder.emit(product, factors)
      let numbers = try importer.activated(sums, activation)
      try importer.define(y, numbers: importer.builder.emit(Reshape(dims), numbers))
    },
    TFLiteOperator("BATCH_MATMUL") { node, importer in
      typealias Field = TFLiteSchema.BatchMatMul
      var a = try importer.real(node.input(0))
      let b = try importer.real(node.input(1))
      if try node.flag(Field.adjX) {
        let rank = importer.builder.type(of: a).rank
        guard rank >= 2 else { throw CompileError(.input, "'BATCH_MATMUL' of a list") }
        a = try importer.builder.emit(Transpose(Array(0..<rank - 2) + [rank - 1, rank - 2]), a)
      }
      let product = MatMul(transposeB: try node.flag(Field.adjY))
      try importer.define(node.output(), numbers: importer.builder.emit(product, a, b))
    },
  ]
}
