import Base
import Glibc
import IR

/// Llama 1 to 3 (Touvron and others, 2023): a decoder with RMS norms, rotary embedding, grouped key and value heads
/// and a gated feed-forward layer. The graph is that of ``LlamaDecoder``.
struct Llama: Architecture {
  static let modelType = "llama"
  static let className = "LlamaForCausalLM"

  let decoder: LlamaDecoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    let width = 1...limits.width
    let hidden = config.field("hidden_size")
    let heads = try config.field("num_attention_heads").int(in: 1...65536)
    let kvHeadsField = config.field("num_key_value_heads")
    let headDimField = config.field("head_dim")
    let context = try config.field("max_position_embeddings").int(or: 2048)
    let epsilon = try config.field("rms_norm_eps").double(or: 1e-6)
    let file = config.root

    var decoder = LlamaDecoder()
    decoder.vocabulary = try config.field("vocab_size").int(in: 1...limits.tokens)
    decoder.width = try hidden.int(in: width)
    decoder.feedForward = try config.field("intermediate_size").int(in: width)
    decoder.layers = try config.field("num_hidden_layers").int(in: 1...limits.layers)
    decoder.heads = heads
    decoder.kvHeads = kvHeadsField.exists ? try kvHeadsField.int(in: 1...65536) : heads
    guard heads % decoder.kvHeads == 0 else {
      throw file.failure(
        "'num_attention_heads' is \(heads), which 'num_key_value_heads', \(decoder.kvHeads), does not divide")
    }
    if headDimField.exists {
      decoder.headDim = try headDimField.int(in: 2...65536)
    } else {
      guard decoder.width % heads == 0 else {
        throw file.failure("'hidden_size' is \(decoder.width), which 'num_attention_heads', \(heads), does not divide")
      }
      decoder.headDim = decoder.width / heads
    }
    guard decoder.headDim % 2 == 0 else {
      throw file.failure("\(heads) heads of \(decoder.headDim) numbers, expected an even number")
    }
    guard decoder.headDim * heads <= limits.width else {
      throw file.failure("\(heads) heads of \(decoder.headDim) numbers, at most \(limits.width) in all are allowed")
    }
    guard context >= 1, context <= limits.context else {
      throw file.failure("'max_position_embeddings' is \(context), expected 1 to \(limits.context)")
    }
    guard epsilon >= 0, epsilon < 1 else { throw file.failure("'rms_norm_eps' is \(epsilon), expected 0 to 1") }
    decoder.context = context
    decoder.epsilon = Float(epsilon)
    decoder.tiesEmbedding = try config.field("tie_word_embeddings").bool(or: false)
    decoder.attentionBias = try config.field("attention_bias").bool(or: false)
    decoder.outputBias = decoder.attentionBias
    decoder.feedForwardBias = try config.field("mlp_bias").bool(or: false)
    decoder.activation = try Self.activation(config.field("hidden_act"))
    let rotary = try RotaryConfig(&config, context: context)
    decoder.inverseFrequencies = rotary.scaling.inverseFrequencies(theta: rotary.theta, width: decoder.headDim)
    self.decoder = decoder
  }

  private static func activation(_ field: JSONField) throws -> UnaryFunction {
    let name = try field.string(or: "silu")
    switch name {
    case "silu", "swish": return .silu
    case "gelu": return .gelu
    case "gelu_new", "gelu_pytorch_tanh", "gelu_fast": return .geluTanh
    case "relu": return .relu
    default:
      throw CompileError(
        .unsupported, "'hidden_act' '\(name)' is not supported, only silu, gelu, gelu_new, gelu_pytorch_tanh and relu",
        subject: .init(file: field.file))
    }
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let layers = Self.layerCount(tensors)
    guard layers == decoder.layers else {
      throw CompileError(
        .input, "'num_hidden_layers' is \(decoder.layers), but the weights have \(layers) layers",
        subject: .init(file: "\(tensors.place)/config.json"))
    }
    if decoder.tiesEmbedding { tensors.ignore("lm_head.weight") }
    // Saved by old versions of transformers; computed from the configuration.
    for layer in 0..<layers { tensors.ignore("model.layers.\(layer).self_attn.rotary_emb.inv_freq") }
    try decoder.build(&tensors, names: Names(), into: &model, options: options)
  }

  /// One more than the largest block number among the names of tensors.
  private static func layerCount(_ tensors: CheckpointTensors) -> Int {
    let prefix = "model.layers."
    var count = 0
    for tensor in tensors.all where tensor.name.hasPrefix(prefix) {
      let digits = tensor.name.dropFirst(prefix.count).prefix { $0 != "." }
      if let number = Int(digits), number >= 0, number < Int.max { count = max(count, number + 1) }
    }
    return count
  }

  /// The names of modules in Hugging Face checkpoints.
  struct Names: LlamaNames {
    var embedding: String { "model.embed_tokens" }
    var norm: String { "model.norm" }
    var head: String { "lm_head" }

    func block(_ layer: Int, _ part: LlamaPart) -> String {
      let name =
        switch part {
        case .attentionNorm: "input_layernorm"
        case .query: "self_attn.q_proj"
        case .key: "self_attn.k_proj"
        case .value: "self_attn.v_proj"
        case .attention: "self_attn"
        case .attentionOutput: "self_attn.o_proj"
        case .feedForwardNorm: "post_attention_layernorm"
        case .gate: "mlp.gate_proj"
        case .up: "mlp.up_proj"
        case .feedForward: "mlp"
        case .down: "mlp.down_proj"
        }
      return "model.layers.\(layer).\(name)"
    }
  }
}
