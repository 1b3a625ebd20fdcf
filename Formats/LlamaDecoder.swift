import Base
import Glibc
import IR
import Tensors

/// A module of a block.
enum LlamaPart: CaseIterable {
  case attentionNorm, query, key, value, attention, attentionOutput, feedForwardNorm, gate, up, feedForward, down
}

/// How a checkpoint calls the modules of a ``LlamaDecoder``; weights add `.weight` and `.bias`.
protocol LlamaNames {
  var embedding: String { get }
  var norm: String { get }
  var head: String { get }
  func block(_ layer: Int, _ part: LlamaPart) -> String
}

/// The hyper-parameters of a Llama decoder and the graph they describe, whatever file they came from.
///
/// One function `main` with the inputs `tokens: i32[T]` and `position: i32[1]` (rows already in the cache), the states
/// `k0`, `v0`, `k1`, ... of shape `[C, kvHeads * headDim]`, and the output `logits: f32[L, V]` for the last `L` tokens.
struct LlamaDecoder: Sendable {
  var vocabulary = 0
  var width = 0
  var feedForward = 0
  var layers = 0
  var heads = 0
  var kvHeads = 0
  var headDim = 0
  var context = 0
  var epsilon: Float = 1e-6
  /// Whether the rows of the embedding are the output weights.
  var tiesEmbedding = false
  /// Whether queries, keys and values have biases.
  var attentionBias = false
  /// Whether the output of the attention has a bias.
  var outputBias = false
  var feedForwardBias = false
  var activation = UnaryFunction.silu
  var inverseFrequencies: [Float] = []
  /// Whether rotary embedding turns pairs of neighbours (GGUF) instead of halves of a head.
  var interleavesRotary = false
}

extension LlamaDecoder {
  /// The rows of the KV cache for the given options.
  func cacheRows(_ options: LoadOptions) throws -> Int {
    guard let wanted = options.context else { return min(context, LoadOptions.defaultContext) }
    guard wanted >= 1, wanted <= context else {
      throw CompileError(.usage, "a context of \(wanted), but the checkpoint allows 1 to \(context)")
    }
    return wanted
  }

  /// Adds the function to `model`, taking the weights from `tensors`.
  func build<Names: LlamaNames>(
    _ tensors: inout CheckpointTensors, names: Names, into model: inout Model, options: LoadOptions
  ) throws {
    let rows = try cacheRows(options)
    let cacheType = options.cacheType ?? defaultCacheType(tensors[names.embedding + ".weight"]?.type)
    let length = Symbol("T", in: 1...rows)
    let wanted = Symbol("L", in: 1...rows)
    var emitter = Emitter(
      builder: GraphBuilder(name: "main", role: "main", symbols: [length, wanted], constants: model.constants),
      model: model, tensors: tensors)

    let tokens = emitter.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    let position = emitter.builder.input("position", TensorType(.i32, [1]))
    let cache = try TensorType(cacheType, rows: rows, heads: kvHeads, headDim: headDim)
    var states: [(k: ValueID, v: ValueID)] = []
    for layer in 0..<layers {
      states.append((emitter.builder.state("k\(layer)", cache), emitter.builder.state("v\(layer)", cache)))
    }

    emitter.at(names.embedding)
    let embedding = try emitter.weight(names.embedding + ".weight", [vocabulary, width])
    var x = try emitter.builder.emit(Gather(axis: 0, type: .f32), embedding, tokens, name: "x")
    emitter.at("rope")
    let frequencies = emitter.builder.constant(
      .inline("rope.inverse_frequencies", .f32, [inverseFrequencies.count], inverseFrequencies))
    let table = try emitter.builder.emit(RopeTable(length: .symbol(length)), position, frequencies, name: "rope")

    for layer in 0..<layers {
      func name(_ part: LlamaPart) -> String { names.block(layer, part) }
      var n = try emitter.norm(x, name(.attentionNorm), width, epsilon)
      var q = try emitter.linear(n, name(.query), width, heads * headDim, bias: attentionBias)
      var k = try emitter.linear(n, name(.key), width, kvHeads * headDim, bias: attentionBias)
      let v = try emitter.linear(n, name(.value), width, kvHeads * headDim, bias: attentionBias)
      emitter.at(name(.attention))
      let rope = Rope(headDim: headDim, interleaved: interleavesRotary)
      q = try emitter.builder.emit(rope, q, table)
      k = try emitter.builder.emit(rope, k, table)
      let keys = try emitter.builder.emit(CacheUpdate(), states[layer].k, k, position)
      let values = try emitter.builder.emit(CacheUpdate(), states[layer].v, v, position)
      emitter.builder.graph.setUpdate(ofState: 2 * layer, to: keys)
      emitter.builder.graph.setUpdate(ofState: 2 * layer + 1, to: values)
      let attention = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(headDim).squareRoot())
      let a = try emitter.builder.emit(attention, q, keys, values, position)
      let o = try emitter.linear(a, name(.attentionOutput), heads * headDim, width, bias: outputBias)
      x = try emitter.builder.emit(Add(), x, o)

      n = try emitter.norm(x, name(.feedForwardNorm), width, epsilon)
      let gate = try emitter.linear(n, name(.gate), width, feedForward, bias: feedForwardBias)
      let up = try emitter.linear(n, name(.up), width, feedForward, bias: feedForwardBias)
      emitter.at(name(.feedForward))
      let active = try emitter.activate(gate, activation)
      let product = try emitter.builder.emit(Multiply(), active, up)
      let down = try emitter.linear(product, name(.down), feedForward, width, bias: feedForwardBias)
      x = try emitter.builder.emit(Add(), x, down)
    }

    emitter.at(names.norm)
    let last = Slice(axis: 0, start: .symbol(length) - .symbol(wanted), size: .symbol(wanted))
    x = try emitter.builder.emit(last, x)
    let n = try emitter.norm(x, names.norm, width, epsilon)
    emitter.at(names.head)
    let head = tiesEmbedding ? embedding : try emitter.weight(names.head + ".weight", [vocabulary, width])
    let logits = try emitter.builder.emit(MatMul(transposeB: true), n, head, name: "logits")
    emitter.builder.output("logits", logits)

    tensors = emitter.tensors
    model = emitter.model
    model.constants = emitter.builder.constants
    model.functions.append(emitter.builder.graph)
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model[metadata: "layers"] = "\(layers)"
    model[metadata: "context"] = "\(rows)"
    model[metadata: "cache"] = cacheType.rawValue
    model[metadata: "context.maximum"] = "\(context)"
  }

  private func defaultCacheType(_ embedding: TensorType?) -> DType {
    embedding.map { $0.isDense && $0.element == .f32 } ?? false ? .f32 : .f16
  }
}

/// Emits the recurring pieces of a decoder.
private struct Emitter {
  var builder: GraphBuilder
  var model: Model
  var tensors: CheckpointTensors

  mutating func at(_ module: String) { builder.origin = Origin(module) }

  /// A weight as a dense value: quantized ones through `dequantize`.
  mutating func weight(_ name: String, _ sizes: [Int]) throws -> ValueID {
    try tensors.take(name, sizes, into: &model, &builder)
  }

  mutating func norm(_ x: ValueID, _ module: String, _ width: Int, _ epsilon: Float) throws -> ValueID {
    at(module)
    return try builder.emit(RMSNorm(axis: -1, epsilon: epsilon), x, try weight(module + ".weight", [width]))
  }

  /// `x W^T`, plus a bias.
  mutating func linear(
    _ x: ValueID, _ module: String, _ inputs: Int, _ outputs: Int, bias: Bool
  ) throws -> ValueID {
    at(module)
    let product = try builder.emit(MatMul(transposeB: true), x, try weight(module + ".weight", [outputs, inputs]))
    guard bias else { return product }
    var term = try weight(module + ".bias", [outputs])
    if builder.type(of: term).element != .f32 { term = try builder.emit(Cast(.f32), term) }
    return try builder.emit(Add(), product, term)
  }

  mutating func activate(_ x: ValueID, _ function: UnaryFunction) throws -> ValueID {
    switch function {
    case .gelu: try builder.emit(GELU(), x)
    case .geluTanh: try builder.emit(GELUTanh(), x)
    case .relu: try builder.emit(ReLU(), x)
    default: try builder.emit(SiLU(), x)
    }
  }
}
