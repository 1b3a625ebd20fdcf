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
  /// The activation between; nil for that of the encoder.
  var activation: FeedForwardActivation?
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
  var activation = FeedForwardActivation.gelu

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
    var emitter = ModuleEmitter(
      name: "encode", role: "encode", symbols: [length], model: model, tensors: tensors)
    let tokens = emitter.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    emitter.at(names.words)
    let embedding = try emitter.weight(names.words + ".weight", [vocabulary, width])
    var x = try emitter.builder.emit(Gather(axis: 0, type: .f32), embedding, tokens)
    let table = try positionTable(&emitter, names, rows: most)
    let rows = try emitter.builder.emit(Slice(axis: 0, start: 0, size: .symbol(length)), table)
    x = try emitter.builder.emit(Add(), x, rows)
    x = try norm(x, names.norm, &emitter)
    for layer in 0..<layers { x = try block(layer, x, &emitter, names) }
    if let head { x = try predict(x, embedding, &emitter, head) }
    emitter.builder.output("output", x)

    emitter.finish(&model, &tensors)
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model[metadata: "layers"] = "\(layers)"
    model[metadata: "context"] = "\(most)"
    model[metadata: "context.maximum"] = "\(longest)"
  }

  /// What is added to the embedding of the word at each position: that of the position and that of token type 0.
  private func positionTable<Names: BertNames>(
    _ emitter: inout ModuleEmitter, _ names: Names, rows: Int
  ) throws -> ValueID {
    emitter.at(names.positions)
    let all = try emitter.wideWeight(names.positions + ".weight", [positions, width])
    let used = Slice(axis: 0, start: .fixed(firstPosition), size: .fixed(rows))
    let table = try emitter.builder.emit(used, all)
    guard let types = names.types else { return table }
    emitter.at(types)
    let kinds = try emitter.wideWeight(types + ".weight", [self.types, width])
    let first = try emitter.builder.emit(Slice(axis: 0, start: 0, size: 1), kinds)
    return try emitter.builder.emit(Add(), table, first)
  }

  private func block<Names: BertNames>(
    _ layer: Int, _ x: ValueID, _ emitter: inout ModuleEmitter, _ names: Names
  ) throws -> ValueID {
    func name(_ part: BertPart) -> String { names.block(layer, part) }
    let q = try emitter.linear(x, LinearModule(name(.query), bias: true), width, width)
    let k = try emitter.linear(x, LinearModule(name(.key), bias: true), width, width)
    let v = try emitter.linear(x, LinearModule(name(.value), bias: true), width, width)
    emitter.at(name(.attention))
    let scale = 1 / Float(width / heads).squareRoot()
    let a = try emitter.builder.emit(Attention(heads: heads, kvHeads: heads, scale: scale, causal: false), q, k, v)
    let o = try emitter.linear(a, LinearModule(name(.attentionOutput), bias: true), width, width)
    let sum = try emitter.builder.emit(Add(), o, x)
    let y = try norm(sum, name(.attentionNorm), &emitter)
    let up = try emitter.linear(y, LinearModule(name(.intermediate), bias: true), width, feedForward)
    let active = try emitter.activate(up, activation)
    let down = try emitter.linear(active, LinearModule(name(.output), bias: true), feedForward, width)
    return try norm(try emitter.builder.emit(Add(), down, y), name(.outputNorm), &emitter)
  }

  /// Logits of every token of the vocabulary at every position.
  private func predict(
    _ x: ValueID, _ embedding: ValueID, _ emitter: inout ModuleEmitter, _ head: BertHeadNames
  ) throws -> ValueID {
    let dense = try emitter.linear(x, LinearModule(head.dense, bias: true), width, width)
    let n = try norm(try emitter.activate(dense, head.activation ?? activation), head.norm, &emitter)
    emitter.at(head.decoder)
    emitter.tensors.ignore(head.decoder + ".weight")
    emitter.tensors.ignore(head.decoder + ".bias")
    let product = try emitter.builder.emit(MatMul(transposeB: true), n, embedding)
    let bias = try emitter.wideWeight(head.bias, [vocabulary])
    return try emitter.builder.emit(Add(), product, bias)
  }

  /// Layer normalization; old checkpoints call its weight `gamma` and its bias `beta`.
  private func norm(_ x: ValueID, _ module: String, _ emitter: inout ModuleEmitter) throws -> ValueID {
    emitter.at(module)
    let isOld = !emitter.contains(module + ".weight") && emitter.contains(module + ".gamma")
    let gain = try emitter.wideWeight(module + (isOld ? ".gamma" : ".weight"), [width])
    let bias = try emitter.wideWeight(module + (isOld ? ".beta" : ".bias"), [width])
    return try emitter.builder.emit(LayerNorm(axis: -1, epsilon: epsilon), x, gain, bias)
  }
}
