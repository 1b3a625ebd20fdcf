import Base
import IR
import Tensors

extension Decoder {
  /// The rows of the KV cache for the given options.
  func cacheRows(_ options: LoadOptions) throws -> Int {
    guard let wanted = options.context else { return min(context, LoadOptions.defaultContext) }
    guard wanted >= 1, wanted <= context else {
      throw CompileError(.usage, "a context of \(wanted), but the checkpoint allows 1 to \(context)")
    }
    return wanted
  }

  /// Adds the function to `model`, taking the weights from `tensors`.
  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let rows = try cacheRows(options)
    let cacheType = options.cacheType(beside: tensors[embedding.module + ".weight"]?.type)
    let length = Symbol("T", in: 1...rows)
    let wanted = Symbol("L", in: 1...rows)
    var emitter = ModuleEmitter(
      builder: GraphBuilder(name: "main", role: "main", symbols: [length, wanted], constants: model.constants),
      model: model, tensors: tensors)
    let tokens = emitter.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    let position = emitter.builder.input("position", TensorType(.i32, [1]))
    var shared = DecoderContext(
      width: width, rows: rows, cacheType: cacheType, length: length, position: position, rotaries: rotaries)

    emitter.at(embedding.module)
    let table = try emitter.weight(embedding.module + ".weight", [vocabulary, embedding.width ?? width])
    var x = try embed(tokens, table, shared, in: &emitter)
    emitter.at("rope")
    for rotary in rotaries { shared.tables.append(try emitter.table(of: rotary, shared)) }
    for (layer, block) in blocks.enumerated() {
      shared.layer = layer
      emitter.prefix = block.module + "."
      x = try block.emit(x, &shared, in: &emitter)
    }
    emitter.prefix = ""

    emitter.at(norm?.module ?? head.module.module)
    let last = Slice(axis: 0, start: .symbol(length) - .symbol(wanted), size: .symbol(wanted))
    x = try emitter.builder.emit(last, x)
    if let norm { x = try emitter.norm(x, norm, width) }
    emitter.builder.output("logits", try logits(x, table, in: &emitter))

    tensors = emitter.tensors
    model = emitter.model
    model.constants = emitter.builder.constants
    model.functions.append(emitter.builder.graph)
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model[metadata: "layers"] = "\(blocks.count)"
    model[metadata: "context"] = "\(rows)"
    model[metadata: "cache"] = cacheType.rawValue
    model[metadata: "context.maximum"] = "\(context)"
  }

  /// The numbers of the tokens before the first block.
  private func embed(
    _ tokens: ValueID, _ table: ValueID, _ shared: DecoderContext, in emitter: inout ModuleEmitter
  ) throws -> ValueID {
    var x = try emitter.builder.emit(Gather(axis: 0, type: .f32), table, tokens, name: "x")
    x = try emitter.scaled(x, by: embedding.scale)
    if let projection = embedding.projection {
      x = try emitter.linear(x, projection, embedding.width ?? width, width)
    }
    if let positions = embedding.positions {
      emitter.at(positions.module)
      let all = try emitter.weight(positions.module + ".weight", [positions.rows, width])
      let used = try emitter.builder.emit(
        Slice(axis: 0, start: .fixed(positions.first), size: .fixed(shared.rows)), all)
      let first = try emitter.builder.emit(Cast(.i64), shared.position)
      let places = try emitter.builder.emit(
        Add(), emitter.builder.emit(Iota(.symbol(shared.length)), []), first)
      x = try emitter.builder.emit(Add(), x, emitter.builder.emit(Gather(axis: 0, type: .f32), used, places))
    }
    if let norm = embedding.norm { x = try emitter.norm(x, norm, width) }
    return x
  }

  private func logits(_ x: ValueID, _ table: ValueID, in emitter: inout ModuleEmitter) throws -> ValueID {
    let inner = embedding.width ?? width
    var x = x
    if let projection = head.projection { x = try emitter.linear(x, projection, width, inner) }
    emitter.at(head.module.module)
    let weight = head.isTied ? table : try emitter.rows(head.module, inner, vocabulary)
    let bias = head.module.hasBias ? try emitter.wideWeight(head.module.module + ".bias", [vocabulary]) : nil
    var logits = try emitter.product(x, weight, bias: bias)
    logits = try emitter.scaled(logits, by: head.scale)
    if let softcap = head.softcap { logits = try emitter.softCapped(logits, softcap) }
    emitter.builder.graph.rename(logits, to: "logits")
    return logits
  }
}

extension DecoderBlock {
  /// Emits the block for `x`.
  func emit(_ x: ValueID, _ context: inout DecoderContext, in emitter: inout ModuleEmitter) throws -> ValueID {
    let width = context.width
    if isParallel {
      let n = try attentionNorm.map { try emitter.norm(x, $0, width) } ?? x
      let m = try feedForwardNorm.map { try emitter.norm(x, $0, width) } ?? n
      let a = try result(of: attention, n, attentionOutputNorm, &context, in: &emitter)
      let f = try result(of: feedForward, m, feedForwardOutputNorm, &context, in: &emitter)
      return try emitter.builder.emit(Add(), emitter.builder.emit(Add(), x, a), f)
    }
    let y = try step(x, attentionNorm, attention, attentionOutputNorm, &context, in: &emitter)
    return try step(y, feedForwardNorm, feedForward, feedForwardOutputNorm, &context, in: &emitter)
  }

  /// A part with its norms and its residual.
  private func step(
    _ x: ValueID, _ norm: NormModule?, _ part: any DecoderPart, _ outputNorm: NormModule?,
    _ context: inout DecoderContext, in emitter: inout ModuleEmitter
  ) throws -> ValueID {
    let width = context.width
    switch residual {
    case .input:
      let n = try norm.map { try emitter.norm(x, $0, width) } ?? x
      return try emitter.builder.emit(Add(), x, result(of: part, n, outputNorm, &context, in: &emitter))
    case .normed:
      let n = try norm.map { try emitter.norm(x, $0, width) } ?? x
      return try emitter.builder.emit(Add(), n, result(of: part, n, outputNorm, &context, in: &emitter))
    case .normsSum:
      let sum = try emitter.builder.emit(Add(), x, result(of: part, x, outputNorm, &context, in: &emitter))
      return try norm.map { try emitter.norm(sum, $0, width) } ?? sum
    }
  }

  private func result(
    of part: any DecoderPart, _ x: ValueID, _ norm: NormModule?, _ context: inout DecoderContext,
    in emitter: inout ModuleEmitter
  ) throws -> ValueID {
    var y = try part.emit(x, &context, in: &emitter)
    if let norm { y = try emitter.norm(y, norm, context.width) }
    return try emitter.scaled(y, by: residualScale)
  }
}

extension ModuleEmitter {
  /// Cosines and sines for the tokens of a call.
  fileprivate mutating func table(of rotary: DecoderRotary, _ context: DecoderContext) throws -> ValueID {
    var numbers = rotary.inverseFrequencies
    if let long = rotary.long, context.rows > long.beyond { numbers = long.inverseFrequencies }
    let frequencies = try vector("rope.inverse_frequencies", numbers)
    let table = try builder.emit(
      RopeTable(length: .symbol(context.length)), context.position, frequencies, name: "rope")
    return try scaled(table, by: rotary.factor)
  }
}
