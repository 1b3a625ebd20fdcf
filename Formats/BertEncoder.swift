import Base
import IR
import Tensors

/// A module of an encoder block.
enum BertPart: CaseIterable {
  case query, key, value, attention, attentionOutput, attentionNorm, intermediate, output, outputNorm
}

/// How a checkpoint calls the modules of a ``BertEncoder``; weights add `.weight` and `.bias`.
protocol BertNames {
  var words: String { get }
  var positions: String { get }
  /// Nil where there are no token types.
  var types: String? { get }
  var norm: String { get }
  func block(_ layer: Int, _ part: BertPart) -> String
}

/// The names of the modules that predict masked tokens from hidden states.
struct BertHeadNames {
  var dense: String
  var norm: String
  /// A product with the rows of the embedding; the name of its own weight in checkpoints that keep a copy.
  var decoder: String
  var bias: String
}

/// The hyper-parameters of a BERT encoder (Devlin and others, 2018) and the graph they describe: the sum of the
/// embeddings of words, positions and token type 0, normalized; then blocks `y = norm(x + attention(x))`,
/// `norm(y + feedForward(y))`, in which every token sees every other.
///
/// One function with the role `encode`, the input `tokens: i32[T]` and the output `output: f32[T, width]`, the hidden
/// states after the last block, or with a head `f32[T, vocabulary]`.
struct BertEncoder: Sendable {
  var vocabulary = 0
  var width = 0
  var feedForward = 0
  var layers = 0
  var heads = 0
  /// Rows of the table of positions.
  var positions = 0
  /// The row of the first token.
  var firstPosition = 0
  /// Rows of the table of token types; those of type 0 are used.
  var types = 0
  @Exact var epsilon: Float = 1e-12
  var activation = UnaryFunction.gelu

  /// The longest text the table of positions has room for.
  var longest: Int { positions - firstPosition }
}

extension BertEncoder {
  /// The most tokens of a text for the given options.
  func tokens(_ options: LoadOptions) throws -> Int {
    guard let wanted = options.context else { return longest }
    guard wanted >= 1, wanted <= longest else {
      throw CompileError(.usage, "a context of \(wanted), but the checkpoint allows 1 to \(longest)")
    }
    return wanted
  }

  /// Adds the function to `model`, taking the weights from `tensors`.
  func build<Names: BertNames>(
    _ tensors: inout CheckpointTensors, names: Names, head: BertHeadNames? = nil, into model: inout Model,
    options: LoadOptions
  ) throws {
    let most = try tokens(options)
    let length = Symbol("T", in: 1...most)
    var emitter = Emitter(
      builder: GraphBuilder(name: "encode", role: "encode", symbols: [length], constants: model.constants),
      model: model, tensors: tensors, epsilon: epsilon)
    let tokens = emitter.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    emitter.at(names.words)
    let embedding = try emitter.weight(names.words + ".weight", [vocabulary, width])
    var x = try emitter.builder.emit(Gather(axis: 0, type: .f32), embedding, tokens)
    let table = try positionTable(&emitter, names, rows: most)
    let rows = try emitter.builder.emit(Slice(axis: 0, start: 0, size: .symbol(length)), table)
    x = try emitter.builder.emit(Add(), x, rows)
    x = try emitter.norm(x, names.norm, width)
    for layer in 0..<layers { x = try block(layer, x, &emitter, names) }
    if let head { x = try predict(x, embedding, &emitter, head) }
    emitter.builder.output("output", x)

    tensors = emitter.tensors
    model = emitter.model
    model.constants = emitter.builder.constants
    model.functions.append(emitter.builder.graph)
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model[metadata: "layers"] = "\(layers)"
    model[metadata: "context"] = "\(most)"
    model[metadata: "context.maximum"] = "\(longest)"
  }

  /// What is added to the embedding of the word at each position: that of the position and that of token type 0.
  private func positionTable<Names: BertNames>(
    _ emitter: inout Emitter, _ names: Names, rows: Int
  ) throws -> ValueID {
    emitter.at(names.positions)
    let all = try emitter.wide(emitter.weight(names.positions + ".weight", [positions, width]))
    let used = Slice(axis: 0, start: .fixed(firstPosition), size: .fixed(rows))
    let table = try emitter.builder.emit(used, all)
    guard let types = names.types else { return table }
    emitter.at(types)
    let kinds = try emitter.wide(emitter.weight(types + ".weight", [self.types, width]))
    let first = try emitter.builder.emit(Slice(axis: 0, start: 0, size: 1), kinds)
    return try emitter.builder.emit(Add(), table, first)
  }

  private func block<Names: BertNames>(
    _ layer: Int, _ x: ValueID, _ emitter: inout Emitter, _ names: Names
  ) throws -> ValueID {
    func name(_ part: BertPart) -> String { names.block(layer, part) }
    let q = try emitter.linear(x, name(.query), width, width)
    let k = try emitter.linear(x, name(.key), width, width)
    let v = try emitter.linear(x, name(.value), width, width)
    emitter.at(name(.attention))
    let scale = 1 / Float(width / heads).squareRoot()
    let a = try emitter.builder.emit(Attention(heads: heads, kvHeads: heads, scale: scale, causal: false), q, k, v)
    let o = try emitter.linear(a, name(.attentionOutput), width, width)
    let sum = try emitter.builder.emit(Add(), o, x)
    let y = try emitter.norm(sum, name(.attentionNorm), width)
    let up = try emitter.linear(y, name(.intermediate), width, feedForward)
    let active = try emitter.activate(up, activation)
    let down = try emitter.linear(active, name(.output), feedForward, width)
    return try emitter.norm(try emitter.builder.emit(Add(), down, y), name(.outputNorm), width)
  }

  /// Logits of every token of the vocabulary at every position.
  private func predict(
    _ x: ValueID, _ embedding: ValueID, _ emitter: inout Emitter, _ head: BertHeadNames
  ) throws -> ValueID {
    let dense = try emitter.linear(x, head.dense, width, width)
    let n = try emitter.norm(try emitter.activate(dense, activation), head.norm, width)
    emitter.at(head.decoder)
    emitter.tensors.ignore(head.decoder + ".weight")
    emitter.tensors.ignore(head.decoder + ".bias")
    let product = try emitter.builder.emit(MatMul(transposeB: true), n, embedding)
    let bias = try emitter.wide(emitter.weight(head.bias, [vocabulary]))
    return try emitter.builder.emit(Add(), product, bias)
  }
}

/// Emits the recurring pieces of an encoder.
private struct Emitter {
  var builder: GraphBuilder
  var model: Model
  var tensors: CheckpointTensors
  let epsilon: Float

  mutating func at(_ module: String) { builder.origin = Origin(module) }

  mutating func weight(_ name: String, _ sizes: [Int]) throws -> ValueID {
    try tensors.take(name, sizes, into: &model, &builder)
  }

  /// The weight in f32.
  mutating func wide(_ weight: ValueID) throws -> ValueID {
    builder.type(of: weight).element == .f32 ? weight : try builder.emit(Cast(.f32), weight)
  }

  /// Layer normalization; old checkpoints call its weight `gamma` and its bias `beta`.
  mutating func norm(_ x: ValueID, _ module: String, _ width: Int) throws -> ValueID {
    at(module)
    let isOld = tensors[module + ".weight"] == nil && tensors[module + ".gamma"] != nil
    let gain = try weight(module + (isOld ? ".gamma" : ".weight"), [width])
    let bias = try weight(module + (isOld ? ".beta" : ".bias"), [width])
    return try builder.emit(LayerNorm(axis: -1, epsilon: epsilon), x, wide(gain), wide(bias))
  }

  /// `x W^T + b`.
  mutating func linear(_ x: ValueID, _ module: String, _ inputs: Int, _ outputs: Int) throws -> ValueID {
    at(module)
    let product = try builder.emit(MatMul(transposeB: true), x, try weight(module + ".weight", [outputs, inputs]))
    return try builder.emit(Add(), product, wide(weight(module + ".bias", [outputs])))
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
