import Base
import Glibc
import IR
import Tensors

/// DeepSeek-V2 (DeepSeek-AI, 2024): attention over latent keys and values, and experts beside a part that all tokens
/// use, behind some dense layers.
struct DeepseekV2: Architecture {
  static let modelType = "deepseek_v2"
  static let className = "DeepseekV2ForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    // Losses of training, and how the computation is spread over machines.
    for key in [
      "aux_loss_alpha", "seq_aux", "output_router_logits", "router_aux_loss_coef", "ep_size", "head_dim",
      "qk_head_dim",
    ] { _ = config.field(key) }
    var spelling = DecoderConfig.Spelling()
    // Every head has keys and values of its own, made from the latent ones.
    spelling.headDim = []
    let heads = try config.field("num_attention_heads").int(in: 1...65536)
    let nope = try config.field("qk_nope_head_dim").int(in: 1...65536)
    spelling.defaultHeadDim = nope
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let turning = try config.field("qk_rope_head_dim").int(in: 2...65536)
    guard turning % 2 == 0 else {
      throw config.root.failure("'qk_rope_head_dim' is \(turning), expected an even number")
    }
    let activation = try config.field("hidden_act").activation(or: "silu")
    let bias = try config.field("attention_bias").bool(or: false)
    let feedForwardBias = try config.field("mlp_bias").bool(or: false)
    let rank = config.field("q_lora_rank")
    let rotary = try RotaryConfig(&config, context: shape.context)
    let table = try RotaryConfig.table(&config)

    var attention = LatentAttention(
      heads: heads, nope: nope, turning: turning, valueDim: try config.field("v_head_dim").int(in: 1...65536),
      queryRank: rank.exists ? try rank.int(in: 1...limits.width) : nil,
      rank: try config.field("kv_lora_rank").int(in: 1...limits.width),
      // The norms inside of attention have a constant of their own in the network's code.
      norm: NormModule("", epsilon: 1e-6), hasBias: bias, scale: 1 / Float(nope + turning).squareRoot())
    guard heads * (nope + turning) <= limits.width, heads * attention.valueDim <= limits.width else {
      throw config.root.failure(
        "\(heads) heads of \(nope + turning) numbers, at most \(limits.width) in all are allowed")
    }
    if table.exists, try table[anyOf: "rope_type", "type"].string(or: "default") != "default" {
      let all = try table["mscale_all_dim"].double(or: 0)
      let factor = try table["factor"].double(or: 1)
      if all != 0, factor > 1 {
        let m = 0.1 * all * log(factor) + 1
        attention.scale *= Float(m * m)
      }
    }
    let dense = try config.field("intermediate_size").int(in: 1...limits.width)
    let sparse = try Self.experts(&config, activation, limits: limits)
    let firstSparse = try config.field("first_k_dense_replace").int(or: 0)
    let frequency = try config.field("moe_layer_freq").int(or: 1)
    guard frequency == 1 else {
      throw CompileError(
        .unsupported, "'moe_layer_freq' \(frequency) is not supported, only 1", subject: .init(file: config.root.file))
    }

    var decoder = shape.decoder(norm: norm)
    var turn = try rotary.rotary(headDim: turning)
    turn?.isInterleaved = true
    decoder.rotaries = [turn].compactMap { $0 }
    let part = attention
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "model.layers.\(layer)", attentionNorm: norm.named("input_layernorm"),
        feedForwardNorm: norm.named("post_attention_layernorm"), attention: part,
        feedForward: layer >= firstSparse
          ? sparse : shape.gatedFeedForward(dense, activation, bias: feedForwardBias))
    }
    self.decoder = decoder
  }

  private static func experts(
    _ config: inout CheckpointConfig, _ activation: FeedForwardActivation, limits: LoadLimits
  ) throws -> DecoderExperts {
    let experts = try config.field("n_routed_experts").int(in: 1...limits.experts)
    let width = try config.field("moe_intermediate_size").int(in: 1...limits.width)
    let chosen = try config.field("num_experts_per_tok").int(in: 1...experts)
    let scale = try config.field("routed_scaling_factor").double(or: 1)
    guard scale.isFinite, abs(scale) < 1e9 else {
      throw config.root.failure("'routed_scaling_factor' is \(scale), expected a number")
    }
    func unsupported(_ key: String, _ value: String, _ only: String) -> CompileError {
      CompileError(
        .unsupported, "'\(key)' \(value) is not supported, only \(only)", subject: .init(file: config.root.file))
    }
    // Code of the framework and that of the authors differ here.
    if try config.field("norm_topk_prob").bool(or: false) { throw unsupported("norm_topk_prob", "true", "false") }
    let scoring = try config.field("scoring_func").string(or: "softmax")
    guard scoring == "softmax" else { throw unsupported("scoring_func", "'\(scoring)'", "softmax") }
    var route = Route(count: chosen, normalizes: false, scale: Float(scale))
    let (groups, chosenGroups) = (config.field("n_group"), config.field("topk_group"))
    switch try config.field("topk_method").string(or: "greedy") {
    case "greedy": break
    case "group_limited_greedy":
      route.groups = try groups.int(in: 1...experts)
      route.chosenGroups = try chosenGroups.int(in: 1...route.groups)
      guard experts % route.groups == 0, chosen <= experts / route.groups * route.chosenGroups else {
        throw config.root.failure(
          "\(experts) experts in \(route.groups) groups, of which \(route.chosenGroups) are chosen, do not give \(chosen)"
        )
      }
    case let name: throw unsupported("topk_method", "'\(name)'", "greedy and group_limited_greedy")
    }
    var result = DecoderExperts(experts: experts, width: width, route: route, activation: activation)
    if let shared = try config.field("n_shared_experts").optionalInt(), shared != 0 {
      guard (1...4096).contains(shared), shared * width <= limits.width else {
        throw config.root.failure("'n_shared_experts' is \(shared), expected 0 to 4096")
      }
      result.shared = DecoderFeedForward(
        module: "mlp.shared_experts", width: shared * width,
        projections: .gated(
          gate: LinearModule("mlp.shared_experts.gate_proj"), up: LinearModule("mlp.shared_experts.up_proj")),
        down: LinearModule("mlp.shared_experts.down_proj"), activation: activation)
    }
    return result
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}

/// Multi-head latent attention: queries perhaps, and keys and values always, come from a normalized vector of few numbers;
/// a part of each key, the same for all heads, is turned by position beside it.
///
/// The cache holds keys and values of all heads.
struct LatentAttention: DecoderPart {
  var heads: Int
  /// Numbers of a key that do not turn, those that do, and those of a value.
  var nope, turning, valueDim: Int
  /// Numbers that queries are made from; nil if they are made from the input.
  var queryRank: Int?
  /// Numbers that keys and values are made from.
  var rank: Int
  var norm: NormModule
  /// Whether projections to few numbers and that of the result have biases.
  var hasBias: Bool
  @Exact var scale: Float

  func emit(_ x: ValueID, _ context: inout DecoderContext, in emitter: inout ModuleEmitter) throws -> ValueID {
    let width = context.width
    let (tokens, keyDim) = (Dim.symbol(context.length), nope + turning)
    let turn = Rope(headDim: turning, interleaved: context.rotaries[0].isInterleaved)
    func linear(_ name: String, _ x: ValueID, _ inputs: Int, _ outputs: Int, bias: Bool = false) throws -> ValueID {
      try emitter.linear(x, LinearModule("self_attn.\(name)", bias: bias), inputs, outputs)
    }
    func part(_ x: ValueID, axis: Int, _ start: Int, _ size: Int) throws -> ValueID {
      try emitter.builder.emit(Slice(axis: axis, start: .fixed(start), size: .fixed(size)), x)
    }
    func split(_ x: ValueID, _ size: Int) throws -> ValueID {
      try emitter.builder.emit(Reshape([tokens, .fixed(heads), .fixed(size)]), x)
    }
    func join(_ x: ValueID, _ size: Int) throws -> ValueID {
      try emitter.builder.emit(Reshape([tokens, .fixed(heads * size)]), x)
    }

    var q = x
    if let queryRank {
      q = try linear("q_a_proj", x, width, queryRank, bias: hasBias)
      q = try emitter.norm(q, norm.named("self_attn.q_a_layernorm"), queryRank)
    }
    q = try linear(queryRank == nil ? "q_proj" : "q_b_proj", q, queryRank ?? width, heads * keyDim)
    let latent = try linear("kv_a_proj_with_mqa", x, width, rank + turning, bias: hasBias)
    let compressed = try emitter.norm(part(latent, axis: 1, 0, rank), norm.named("self_attn.kv_a_layernorm"), rank)
    let both = try split(linear("kv_b_proj", compressed, rank, heads * (nope + valueDim)), nope + valueDim)

    emitter.at("self_attn")
    q = try split(q, keyDim)
    let turned = try emitter.builder.emit(
      turn, join(part(q, axis: 2, nope, turning), turning), context.tables[0])
    q = try join(
      emitter.builder.emit(Concat(axis: 2), part(q, axis: 2, 0, nope), split(turned, turning)), keyDim)
    let own = try emitter.builder.emit(turn, part(latent, axis: 1, rank, turning), context.tables[0])
    let one = try emitter.builder.emit(Reshape([tokens, 1, .fixed(turning)]), own)
    let all = try emitter.builder.emit(Expand([tokens, .fixed(heads), .fixed(turning)]), one)
    let k = try join(emitter.builder.emit(Concat(axis: 2), part(both, axis: 2, 0, nope), all), keyDim)
    let v = try join(part(both, axis: 2, nope, valueDim), valueDim)
    let attention = Attention(heads: heads, kvHeads: heads, scale: scale)
    let a = try emitter.cachedAttention(
      attention, q, k, v, bias: nil, headDim: keyDim, valueDim: valueDim, context)
    return try linear("o_proj", a, heads * valueDim, width, bias: hasBias)
  }
}
