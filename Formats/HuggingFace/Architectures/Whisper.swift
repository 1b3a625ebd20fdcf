import Base
import IR
import Tensors

/// Whisper (Radford and others, 2023): an encoder over a log-mel spectrogram behind two convolutions, and a decoder that
/// attends to it.
///
/// The function `@cross` takes `features: f32[mels, frames]` and fills the caches of cross attention; `@main` decodes.
struct Whisper: Architecture {
  static let modelType = "whisper"
  static let className = "WhisperForConditionalGeneration"

  let vocabulary: Int
  private let mels, width: Int
  /// Rows of the encoded source, and the longest answer.
  private let sourceRows, longest: Int
  private let encoder, decoder: Side
  private let activation: FeedForwardActivation
  private let tiesHead: Bool

  /// The blocks of one side.
  private struct Side {
    var layers, heads, feedForward: Int
  }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    // Training, other heads, and what the search for an answer may not say.
    for key in [
      "activation_dropout", "apply_spec_augment", "begin_suppress_tokens", "classifier_proj_size",
      "decoder_layerdrop", "decoder_start_token_id", "dropout", "encoder_layerdrop", "forced_decoder_ids", "init_std",
      "mask_feature_length", "mask_feature_min_masks", "mask_feature_prob", "mask_time_length", "mask_time_min_masks",
      "mask_time_prob", "median_filter_width", "num_hidden_layers", "suppress_tokens", "use_weighted_layer_sum",
      "max_length",
    ] { _ = config.field(key) }
    vocabulary = try config.field("vocab_size").int(in: 1...limits.tokens)
    mels = try config.field("num_mel_bins").int(in: 1...65536)
    let width = try config.field("d_model").int(in: 1...limits.width)
    self.width = width
    sourceRows = try config.field("max_source_positions").int(in: 1...1 << 20)
    longest = try config.field("max_target_positions").int(in: 1...limits.context)
    func stack(_ name: String, _ config: inout CheckpointConfig) throws -> Side {
      let heads = config.field("\(name)_attention_heads")
      let stack = Side(
        layers: try config.field("\(name)_layers").int(in: 1...limits.layers), heads: try heads.int(in: 1...65536),
        feedForward: try config.field("\(name)_ffn_dim").int(in: 1...limits.width))
      guard width % stack.heads == 0 else {
        throw heads.failure("\(stack.heads) attention heads do not divide the width \(width)")
      }
      return stack
    }
    encoder = try stack("encoder", &config)
    decoder = try stack("decoder", &config)
    activation = try config.field("activation_function").activation(or: "gelu")
    // Read by no version of the network's code, so that there is no telling what it would mean.
    if try config.field("scale_embedding").bool(or: false) {
      throw CompileError(
        .unsupported, "'scale_embedding' true is not supported", subject: .init(file: config.root.file))
    }
    tiesHead = try config.field("tie_word_embeddings").bool(or: true)
    let both = config.field("is_encoder_decoder")
    guard try both.bool(or: true) else { throw both.failure("'is_encoder_decoder' is false, expected true") }
  }

  // MARK: Graphs

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let rows = try options.rows(longest: longest)
    let element: DType =
      options.cacheType(beside: tensors["model.decoder.embed_tokens.weight"]?.type) == .f32 ? .f32 : .f16
    let source = TensorType(element, [sourceRows, width])
    try encode(&tensors, into: &model, cache: source)
    try decode(&tensors, into: &model, cache: TensorType(element, [rows, width]), source: source)
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model[metadata: "layers"] = "\(encoder.layers + decoder.layers)"
    model[metadata: "context"] = "\(rows)"
    model[metadata: "context.maximum"] = "\(longest)"
    model[metadata: "cache"] = element.rawValue
  }

  private func encode(_ tensors: inout CheckpointTensors, into model: inout Model, cache: TensorType) throws {
    var it = ModuleEmitter(name: "cross", role: "cross", symbols: [], model: model, tensors: tensors)
    let features = it.builder.input("features", TensorType(.f32, [mels, 2 * sourceRows]))
    it.prefix = "model.encoder."
    var x = try it.emit(Reshape([1, .fixed(mels), 1, .fixed(2 * sourceRows)]), features)
    x = try convolve(x, "conv1", mels, stride: 1, &it)
    x = try convolve(x, "conv2", width, stride: 2, &it)
    let columns = try it.emit(Reshape([.fixed(width), .fixed(sourceRows)]), x)
    x = try it.emit(Transpose([1, 0]), columns)
    it.at("embed_positions")
    x = try it.emit(Add(), x, it.wideWeight("embed_positions.weight", [sourceRows, width]))
    for layer in 0..<encoder.layers {
      it.prefix = "model.encoder.layers.\(layer)."
      let n = try norm(x, "self_attn_layer_norm", &it)
      let (q, k, v) = try projections(n, n, "self_attn", &it)
      it.at("self_attn")
      let a = try it.emit(attention(encoder, causal: false), q, k, v)
      x = try it.emit(Add(), x, project(a, "self_attn.out_proj", &it))
      x = try feedForward(x, encoder, &it)
    }
    it.prefix = "model.encoder."
    x = try norm(x, "layer_norm", &it)
    let start = it.builder.constant(.inline("start", .i32, [1], [Int32(0)]))
    for layer in 0..<decoder.layers {
      it.prefix = "model.decoder.layers.\(layer)."
      let rows = [
        try project(x, "encoder_attn.k_proj", bias: false, &it), try project(x, "encoder_attn.v_proj", &it),
      ]
      for (part, name) in ["k", "v"].enumerated() {
        let state = it.builder.state("cross_\(name)\(layer)", cache)
        let updated = try it.emit(CacheUpdate(), state, rows[part], start)
        it.builder.graph.setUpdate(ofState: 2 * layer + part, to: updated)
      }
    }
    it.prefix = ""
    it.builder.output("output", x)
    it.finish(&model, &tensors)
  }

  private func decode(
    _ tensors: inout CheckpointTensors, into model: inout Model, cache: TensorType, source: TensorType
  ) throws {
    let rows = cache.shape[0].fixedValue ?? 1
    let (length, wanted) = (Symbol("T", in: 1...rows), Symbol("L", in: 1...rows))
    var it = ModuleEmitter(name: "main", role: "main", symbols: [length, wanted], model: model, tensors: tensors)
    let tokens = it.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    let position = it.builder.input("position", TensorType(.i32, [1]))
    var states: [[ValueID]] = []
    for layer in 0..<decoder.layers {
      states.append([
        it.builder.state("k\(layer)", cache), it.builder.state("v\(layer)", cache),
        it.builder.state("cross_k\(layer)", source), it.builder.state("cross_v\(layer)", source),
      ])
    }
    it.prefix = "model.decoder."
    it.at("embed_tokens")
    let embedding = try it.weight("embed_tokens.weight", [vocabulary, width])
    var x = try it.emit(Gather(axis: 0, type: .f32), embedding, tokens)
    it.at("embed_positions")
    let table = try it.weight("embed_positions.weight", [longest, width])
    let first = try it.emit(Cast(.i64), position)
    let places = try it.emit(Add(), it.builder.emit(Iota(.symbol(length)), []), first)
    x = try it.emit(Add(), x, it.emit(Gather(axis: 0, type: .f32), table, places))
    for layer in 0..<decoder.layers {
      it.prefix = "model.decoder.layers.\(layer)."
      var n = try norm(x, "self_attn_layer_norm", &it)
      let (own, k, v) = try projections(n, n, "self_attn", &it)
      it.at("self_attn")
      let keys = try it.emit(CacheUpdate(), states[layer][0], k, position)
      let values = try it.emit(CacheUpdate(), states[layer][1], v, position)
      it.builder.graph.setUpdate(ofState: 4 * layer, to: keys)
      it.builder.graph.setUpdate(ofState: 4 * layer + 1, to: values)
      var a = try it.emit(attention(decoder, causal: true), own, keys, values, position)
      x = try it.emit(Add(), x, project(a, "self_attn.out_proj", &it))
      n = try norm(x, "encoder_attn_layer_norm", &it)
      let q = try project(n, "encoder_attn.q_proj", &it)
      it.at("encoder_attn")
      a = try it.emit(attention(decoder, causal: false), q, states[layer][2], states[layer][3])
      x = try it.emit(Add(), x, project(a, "encoder_attn.out_proj", &it))
      x = try feedForward(x, decoder, &it)
    }
    it.prefix = "model.decoder."
    it.at("layer_norm")
    x = try it.emit(Slice(axis: 0, start: .symbol(length) - .symbol(wanted), size: .symbol(wanted)), x)
    x = try norm(x, "layer_norm", &it)
    it.prefix = ""
    it.at("proj_out")
    if tiesHead { it.tensors.ignore("proj_out.weight") }
    let head = tiesHead ? embedding : try it.weight("proj_out.weight", [vocabulary, width])
    it.builder.output("logits", try it.emit(MatMul(transposeB: true), x, head, name: "logits"))
    it.finish(&model, &tensors)
  }

  // MARK: Pieces

  /// A convolution over three frames, as that of an image one pixel high, and the activation.
  private func convolve(
    _ x: ValueID, _ module: String, _ inputs: Int, stride: Int, _ it: inout ModuleEmitter
  ) throws -> ValueID {
    it.at(module)
    let stored = try it.wideWeight(module + ".weight", [width, inputs, 3])
    let filter = try it.emit(Reshape([.fixed(width), .fixed(inputs), 1, 3]), stored)
    var op = Conv2D(strides: [1, stride], padding: [0, 1, 0, 1])
    op.epilogue.bias = true
    return try it.activate(it.emit(op, x, filter, it.wideWeight(module + ".bias", [width])), .gelu)
  }

  private func norm(_ x: ValueID, _ module: String, _ it: inout ModuleEmitter) throws -> ValueID {
    try it.norm(x, NormModule(module, .layer, epsilon: 1e-5, bias: true), width)
  }

  private func project(
    _ x: ValueID, _ module: String, bias: Bool = true, _ it: inout ModuleEmitter
  ) throws -> ValueID {
    try it.linear(x, LinearModule(module, bias: bias), width, width)
  }

  /// Queries from `x`, keys (which have no bias) and values from `y`.
  private func projections(
    _ x: ValueID, _ y: ValueID, _ module: String, _ it: inout ModuleEmitter
  ) throws -> (q: ValueID, k: ValueID, v: ValueID) {
    (
      try project(x, module + ".q_proj", &it), try project(y, module + ".k_proj", bias: false, &it),
      try project(y, module + ".v_proj", &it)
    )
  }

  private func attention(_ stack: Side, causal: Bool) -> Attention {
    let scale = 1 / Float(width / stack.heads).squareRoot()
    return Attention(heads: stack.heads, kvHeads: stack.heads, scale: scale, causal: causal)
  }

  private func feedForward(_ x: ValueID, _ stack: Side, _ it: inout ModuleEmitter) throws -> ValueID {
    let n = try norm(x, "final_layer_norm", &it)
    let up = try it.linear(n, LinearModule("fc1", bias: true), width, stack.feedForward)
    let down = try it.linear(
      it.activate(up, activation), LinearModule("fc2", bias: true), stack.feedForward, width)
    return try it.emit(Add(), x, down)
  }
}
