import Base
import IR
import Tensors

/// T5 (Raffel and others, 2020) and mT5 (Xue and others, 2021): an encoder and a decoder with RMS norms, attention without
/// scale, and biases of attention by distance, which all blocks share.
///
/// The function `@cross` encodes the source and fills the caches of cross attention; `@main` decodes. `T5EncoderModel`
/// has the function `@encode` alone, which gives hidden states.
struct T5: Architecture {
  static let modelType = "t5"
  static let className = "T5ForConditionalGeneration"
  static let otherModelTypes = ["mt5"]
  static let otherClassNames = [
    "T5EncoderModel", "T5WithLMHeadModel", "MT5ForConditionalGeneration", "MT5EncoderModel",
  ]

  let vocabulary: Int
  private let width, headDim, feedForward, heads: Int
  private let layers, decoderLayers: Int
  private let buckets, distance: Int
  @Exact private var epsilon: Float = 1e-6
  private let activation: FeedForwardActivation
  private let isGated: Bool
  /// Whether hidden states are multiplied by `width^-1/2` before the head.
  private let scalesOutputs: Bool
  /// Whether the head is the embedding, whatever else the checkpoint holds.
  private let tiesHead: Bool
  private let isEncoder: Bool
  private let longest: Int

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    for key in [
      "dropout_rate", "initializer_factor", "n_positions", "output_past", "decoder_start_token_id", "num_hidden_layers",
      "hidden_size", "num_attention_heads",
    ] { _ = config.field(key) }
    vocabulary = try config.field("vocab_size").int(in: 1...limits.tokens)
    width = try config.field("d_model").int(in: 1...limits.width)
    headDim = try config.field("d_kv").int(in: 1...65536)
    feedForward = try config.field("d_ff").int(in: 1...limits.width)
    heads = try config.field("num_heads").int(in: 1...65536)
    let layers = try config.field("num_layers").int(in: 1...limits.layers)
    let decoderLayers = config.field("num_decoder_layers")
    self.layers = layers
    self.decoderLayers = decoderLayers.exists ? try decoderLayers.int(in: 1...limits.layers) : layers
    buckets = try config.field("relative_attention_num_buckets").int(or: 32)
    distance = try config.field("relative_attention_max_distance").int(or: 128)
    guard (4...1 << 16).contains(buckets), buckets / 2 < distance, distance <= 1 << 26 else {
      throw config.root.failure("\(buckets) buckets of relative attention do not reach to a distance of \(distance)")
    }
    epsilon = try config.epsilon("layer_norm_epsilon", or: 1e-6)
    (isGated, activation) = try Self.feedForward(&config)
    let ties = try config.field("tie_word_embeddings").bool(or: true)
    // mT5 never scales, whether the configuration says that weights are tied or not.
    let isMultilingual = config.root["model_type"].value?.string == "mt5"
    scalesOutputs = try config.field("scale_decoder_outputs").bool(or: ties && !isMultilingual)
    tiesHead = ties && scalesOutputs
    isEncoder = try (config.root["architectures"].optionalElements() ?? []).contains {
      try $0.string().hasSuffix("EncoderModel")
    }
    // An encoder alone is saved with either value.
    let both = config.field("is_encoder_decoder")
    guard try isEncoder || both.bool(or: true) else {
      throw both.failure("'is_encoder_decoder' is false, expected true")
    }
    longest = limits.context
  }

  /// `feed_forward_proj` is the name of an activation, perhaps behind `gated-`; newer configurations repeat its parts.
  private static func feedForward(_ config: inout CheckpointConfig) throws -> (Bool, FeedForwardActivation) {
    let field = config.field("feed_forward_proj")
    let said = try field.string(or: config.root["model_type"].value?.string == "mt5" ? "gated-gelu" : "relu")
    let isGated = said.hasPrefix("gated-")
    var name = isGated ? String(said.dropFirst("gated-".count)) : said
    if said == "gated-gelu" { name = "gelu_new" }
    let gate = config.field("is_gated_act")
    guard try gate.bool(or: isGated) == isGated else {
      throw gate.failure("'is_gated_act' contradicts 'feed_forward_proj', which is '\(said)'")
    }
    let own = config.field("dense_act_fn")
    if own.exists { return (isGated, try own.activation(or: name)) }
    guard let activation = FeedForwardActivation.names[name] else {
      throw CompileError(
        .unsupported, "'feed_forward_proj' '\(said)' is not supported", subject: .init(file: field.file))
    }
    return (isGated, activation)
  }

  // MARK: Graphs

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    for name in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] { tensors.ignore(name) }
    // Old checkpoints hold biases of cross attention that nothing reads.
    tensors.ignore("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")
    let rows = try options.rows(longest: longest, fallback: 512)
    if isEncoder {
      try encode(&tensors, into: &model, rows: rows, cache: nil)
    } else {
      let cache = TensorType(
        options.cacheType(beside: tensors["shared.weight"]?.type) == .f32 ? .f32 : .f16, [rows, heads * headDim])
      try encode(&tensors, into: &model, rows: rows, cache: cache)
      try decode(&tensors, into: &model, rows: rows, cache: cache)
      model[metadata: "cache"] = cache.element.rawValue
    }
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model[metadata: "layers"] = "\(isEncoder ? layers : layers + decoderLayers)"
    model[metadata: "context"] = "\(rows)"
  }

  /// The encoder; with caches it fills those of the decoder's cross attention.
  private func encode(
    _ tensors: inout CheckpointTensors, into model: inout Model, rows: Int, cache: TensorType?
  ) throws {
    let length = Symbol(cache == nil ? "T" : "S", in: 1...rows)
    let role = cache == nil ? "encode" : "cross"
    var it = ModuleEmitter(name: role, role: role, symbols: [length], model: model, tensors: tensors)
    let tokens = it.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    var x = try embed(tokens, &it)
    let bias = try self.bias(
      "encoder.block.0.layer.0.SelfAttention", &it, rows: rows, after: rows - 1, queries: .symbol(length),
      keys: .symbol(length), position: nil)
    for layer in 0..<layers {
      let prefix = "encoder.block.\(layer).layer"
      let n = try norm(x, "\(prefix).0.layer_norm", &it)
      let module = "\(prefix).0.SelfAttention"
      let (q, k, v) = (
        try project(n, module + ".q", &it), try project(n, module + ".k", &it), try project(n, module + ".v", &it)
      )
      it.at(module)
      let attention = Attention(heads: heads, kvHeads: heads, scale: 1, causal: false)
      let a = try it.emit(attention, q, k, v, bias)
      x = try it.emit(Add(), x, it.linear(a, LinearModule(module + ".o"), heads * headDim, width))
      x = try feedForward(x, "\(prefix).1", &it)
    }
    x = try norm(x, "encoder.final_layer_norm", &it)
    if let cache {
      let start = it.builder.constant(.inline("start", .i32, [1], [Int32(0)]))
      for layer in 0..<decoderLayers {
        for (part, name) in ["k", "v"].enumerated() {
          let state = it.builder.state("cross_\(name)\(layer)", cache)
          let projected = try project(x, "decoder.block.\(layer).layer.1.EncDecAttention.\(name)", &it)
          it.builder.graph.setUpdate(
            ofState: 2 * layer + part, to: try it.emit(CacheUpdate(), state, projected, start))
        }
      }
    }
    it.builder.output("output", x)
    it.finish(&model, &tensors)
  }

  /// The decoder: as other language models, with keys and values of the source in further states.
  private func decode(
    _ tensors: inout CheckpointTensors, into model: inout Model, rows: Int, cache: TensorType
  ) throws {
    let (length, wanted) = (Symbol("T", in: 1...rows), Symbol("L", in: 1...rows))
    let source = Symbol("S", in: 1...rows)
    var it = ModuleEmitter(
      name: "main", role: "main", symbols: [length, wanted, source], model: model, tensors: tensors)
    let tokens = it.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    let position = it.builder.input("position", TensorType(.i32, [1]))
    let names = ["k", "v", "cross_k", "cross_v"]
    let states = (0..<decoderLayers).map { layer in names.map { it.builder.state("\($0)\(layer)", cache) } }
    let embedding = try it.weight("shared.weight", [vocabulary, width])
    var x = try embed(tokens, &it)
    let bias = try self.bias(
      "decoder.block.0.layer.0.SelfAttention", &it, rows: rows, after: 0, queries: .symbol(length), keys: .fixed(rows),
      position: position)
    for layer in 0..<decoderLayers {
      let prefix = "decoder.block.\(layer).layer"
      var n = try norm(x, "\(prefix).0.layer_norm", &it)
      var module = "\(prefix).0.SelfAttention"
      var q = try project(n, module + ".q", &it)
      let (k, v) = (try project(n, module + ".k", &it), try project(n, module + ".v", &it))
      it.at(module)
      let keys = try it.emit(CacheUpdate(), states[layer][0], k, position)
      let values = try it.emit(CacheUpdate(), states[layer][1], v, position)
      it.builder.graph.setUpdate(ofState: 4 * layer, to: keys)
      it.builder.graph.setUpdate(ofState: 4 * layer + 1, to: values)
      var a = try it.emit(Attention(heads: heads, kvHeads: heads, scale: 1), q, keys, values, position, bias)
      x = try it.emit(Add(), x, it.linear(a, LinearModule(module + ".o"), heads * headDim, width))

      n = try norm(x, "\(prefix).1.layer_norm", &it)
      module = "\(prefix).1.EncDecAttention"
      q = try project(n, module + ".q", &it)
      it.at(module)
      let part = Slice(axis: 0, start: 0, size: .symbol(source))
      a = try it.emit(
        Attention(heads: heads, kvHeads: heads, scale: 1, causal: false), q, it.emit(part, states[layer][2]),
        it.emit(part, states[layer][3]))
      x = try it.emit(Add(), x, it.linear(a, LinearModule(module + ".o"), heads * headDim, width))
      x = try feedForward(x, "\(prefix).2", &it)
    }
    it.at("decoder.final_layer_norm")
    x = try it.emit(Slice(axis: 0, start: .symbol(length) - .symbol(wanted), size: .symbol(wanted)), x)
    x = try norm(x, "decoder.final_layer_norm", &it)
    it.at("lm_head")
    if scalesOutputs { x = try it.scaled(x, by: 1 / Float(width).squareRoot()) }
    if tiesHead { it.tensors.ignore("lm_head.weight") }
    let hasHead = !tiesHead && it.tensors["lm_head.weight"] != nil
    let head = hasHead ? try it.weight("lm_head.weight", [vocabulary, width]) : embedding
    it.builder.output("logits", try it.emit(MatMul(transposeB: true), x, head, name: "logits"))
    it.finish(&model, &tensors)
  }

  // MARK: Pieces

  private func embed(_ tokens: ValueID, _ it: inout ModuleEmitter) throws -> ValueID {
    it.at("shared")
    return try it.emit(Gather(axis: 0, type: .f32), it.weight("shared.weight", [vocabulary, width]), tokens)
  }

  private func project(_ x: ValueID, _ module: String, _ it: inout ModuleEmitter) throws -> ValueID {
    try it.linear(x, LinearModule(module), width, heads * headDim)
  }

  /// The biases of attention of `queries` over `keys`, at most `rows` of either. With `after` 0 a key behind the query
  /// counts as one at its place; causal attention does not see it.
  private func bias(
    _ module: String, _ it: inout ModuleEmitter, rows: Int, after: Int, queries: Dim, keys: Dim, position: ValueID?
  ) throws -> ValueID {
    it.at(module)
    let table = try it.wideWeight(module + ".relative_attention_bias.weight", [buckets, heads])
    let distances = DistanceBias(
      before: rows - 1, after: after, bidirectional: position == nil, maximum: distance)
    let strip = try it.emit(distances, table)
    let layout = RelativeBias(rows: queries, columns: keys, before: rows - 1)
    return try it.builder.emit(layout, [strip] + (position.map { [$0] } ?? []))
  }

  private func norm(_ x: ValueID, _ module: String, _ it: inout ModuleEmitter) throws -> ValueID {
    try it.norm(x, NormModule(module, epsilon: epsilon), width)
  }

  private func feedForward(_ x: ValueID, _ prefix: String, _ it: inout ModuleEmitter) throws -> ValueID {
    let n = try norm(x, "\(prefix).layer_norm", &it)
    let module = "\(prefix).DenseReluDense"
    let hidden: ValueID
    if isGated {
      let gate = try it.linear(n, LinearModule(module + ".wi_0"), width, feedForward)
      let up = try it.linear(n, LinearModule(module + ".wi_1"), width, feedForward)
      hidden = try it.emit(Multiply(), it.activate(gate, activation), up)
    } else {
      hidden = try it.activate(it.linear(n, LinearModule(module + ".wi"), width, feedForward), activation)
    }
    return try it.emit(Add(), x, it.linear(hidden, LinearModule(module + ".wo"), feedForward, width))
  }
}
