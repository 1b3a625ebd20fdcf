import IR
import Tensors

/// Small models for tests of lowering, scheduling and emission; weights are random numbers.
enum LoweringModels {
  static func random(_ name: String, _ sizes: [Int], _ seed: UInt64) -> Constant {
    Constant(name: name, type: TensorType(.f32, sizes), source: .random(seed: seed, deviation: 0.3 as Double))
  }

  static func model(_ name: String, _ builder: GraphBuilder) -> Model {
    var model = Model(name: name, stage: .transform)
    model.functions = [builder.graph]
    model.constants = builder.constants
    return model
  }

  /// `layers` blocks of x + relu(norm(x) W) V, then a product with a wider matrix; rows are symbolic.
  static func blocks(_ layers: Int, format: BlockFormat? = nil) throws -> Model {
    let rows = Symbol("T", in: 1...7)
    var builder = GraphBuilder(name: "main", role: "main", symbols: [rows])
    var x = builder.input("x", TensorType(.f32, [.symbol(rows), 16]))
    func weight(_ name: String, _ sizes: [Int], _ seed: Int) throws -> ValueID {
      let constant = builder.constant(random(name, sizes, UInt64(seed)))
      guard let format else { return constant }
      return try builder.emit(Dequantize(), try builder.emit(Quantize(format), constant))
    }
    for layer in 0..<layers {
      let gain = builder.constant(random("net.blocks.\(layer).norm.weight", [16], UInt64(10 * layer)))
      let normed = try builder.emit(RMSNorm(axis: -1, epsilon: 1e-5), x, gain)
      let up = try weight("net.blocks.\(layer).up.weight", [24, 16], 10 * layer + 1)
      let down = try weight("net.blocks.\(layer).down.weight", [16, 24], 10 * layer + 2)
      let hidden = try builder.emit(
        MatMul(transposeB: true, epilogue: Epilogue(activation: .relu)), normed, up)
      x = try builder.emit(
        MatMul(transposeB: true, epilogue: Epilogue(residual: .afterActivation)), hidden, down, x)
    }
    let head = try weight("net.head.weight", [40, 16], 1000)
    builder.output("y", try builder.emit(MatMul(transposeB: true), x, head))
    return model("blocks", builder)
  }

  /// A decoder of `layers` blocks of attention over a cache of `context` rows, with a tied output matrix; `attention`,
  /// if given, changes that of a block, `head` the product that gives the logits.
  static func decoder(
    layers: Int, context: Int = 32, vocabulary: Int = 50,
    attention: (Int, inout Attention) -> Void = { _, _ in },
    head: (ValueID, inout GraphBuilder) throws -> ValueID = { logits, _ in logits }
  ) throws -> Model {
    let tokens = Symbol("T", in: 1...context), wanted = Symbol("L", in: 1...context)
    var builder = GraphBuilder(name: "model", symbols: [tokens, wanted])
    let ids = builder.input("tokens", TensorType(.i32, [.symbol(tokens)]))
    let position = builder.input("position", TensorType(.i32, [1]))
    let table = builder.constant(random("model.embed.weight", [vocabulary, 16], 1))
    var x = try builder.emit(Gather(axis: 0), table, ids, name: "x")
    for layer in 0..<layers {
      func weight(_ name: String, _ sizes: [Int]) -> ValueID {
        builder.constant(random("model.layers.\(layer).\(name).weight", sizes, UInt64(100 + 10 * layer + sizes[0])))
      }
      let qkv = try builder.emit(MatMul(transposeB: true), x, weight("qkv", [32, 16]))
      let q = try builder.emit(Slice(axis: -1, start: 0, size: 16), qkv)
      let k = try builder.emit(Slice(axis: -1, start: 16, size: 8), qkv)
      let v = try builder.emit(Slice(axis: -1, start: 24, size: 8), qkv)
      let cacheType = TensorType(.f32, [context, 8])
      let keys = try builder.emit(CacheUpdate(), builder.state("k\(layer)", cacheType), k, position)
      let values = try builder.emit(CacheUpdate(), builder.state("v\(layer)", cacheType), v, position)
      builder.graph.setUpdate(ofState: 2 * layer, to: keys)
      builder.graph.setUpdate(ofState: 2 * layer + 1, to: values)
      var op = Attention(heads: 2, kvHeads: 1, scale: 0.35)
      attention(layer, &op)
      let attended = try builder.emit(op, q, keys, values, position)
      x = try builder.emit(
        MatMul(transposeB: true, epilogue: Epilogue(residual: .afterActivation)), attended, weight("o", [16, 16]), x)
    }
    let last = try builder.emit(
      Slice(axis: 0, start: .symbol(tokens) - .symbol(wanted), size: .symbol(wanted)), x)
    let logits = try builder.emit(MatMul(transposeB: true), last, table, name: "logits")
    builder.output("logits", try head(logits, &builder))
    return model("decoder", builder)
  }

  /// Two convolutions with a sum between, a pool, and a product over the means of the channels.
  static func images() throws -> Model {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("image", TensorType(.f32, [1, 3, 9, 7]))
    func weight(_ name: String, _ sizes: [Int]) -> ValueID {
      builder.constant(random(name, sizes, UInt64(sizes.reduce(7, *))))
    }
    let same = [1, 1, 1, 1]
    let a = try builder.emit(
      Conv2D(padding: same, epilogue: Epilogue(bias: true, activation: .relu)), x, weight("conv1", [8, 3, 3, 3]),
      weight("bias1", [8]))
    let b = try builder.emit(Conv2D(padding: same, groups: 8), a, weight("conv2", [8, 1, 3, 3]))
    let scaled = try builder.emit(Multiply(), try builder.emit(Add(), a, b), weight("scale", [1, 8, 1, 1]))
    let pooled = try builder.emit(MaxPool2D(kernel: [2, 2], strides: [2, 2]), scaled)
    let means = try builder.emit(Reduce(.mean, axes: [2, 3]), pooled)
    builder.output("scores", try builder.emit(MatMul(transposeB: true), means, weight("fc", [5, 8])))
    return model("images", builder)
  }
  /// A 3 x 3 convolution large enough for fewer products, one of 1 x 1, then on codes a 3 x 3 and a depthwise one.
  static func convolutions() throws -> Model {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("image", TensorType(.f32, [1, 64, 28, 28]))
    let same = [1, 1, 1, 1], relu = Epilogue(activation: .relu)
    func weight(_ name: String, _ sizes: [Int]) -> ValueID {
      builder.constant(random(name, sizes, UInt64(sizes.reduce(7, *))))
    }
    let a = try builder.emit(Conv2D(padding: same, epilogue: relu), x, weight("square", [64, 64, 3, 3]))
    let b = try builder.emit(Conv2D(epilogue: relu), a, weight("point", [128, 64, 1, 1]))
    let code = AffineCode(scale: 0.1)
    var y = try builder.emit(QuantizeLinear(code), b)
    for (name, groups) in [("codes", 1), ("codes_depthwise", 128)] {
      let op = QuantizedConv2D(
        Conv2D(padding: same, groups: groups, epilogue: relu), kernel: [3, 3], input: code, output: code)
      let w = try builder.emit(Quantize(.w8c), weight(name, [128, 128 / groups * 9]))
      y = try builder.emit(op, y, w)
    }
    builder.output("result", try builder.emit(DequantizeLinear(code), y))
    return model("convolutions", builder)
  }
}
