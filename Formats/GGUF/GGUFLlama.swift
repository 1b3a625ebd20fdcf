import Base
import IR
import Tensors

/// The architecture `llama` of GGUF, with rows of Q and K ordered so that rotary embedding turns pairs of neighbours.
struct GGUFLlama: Sendable {
  static let name = "llama"

  private(set) var decoder = Decoder()
  private var layers = 0
  private var heads = 0
  private var kvHeads = 0
  private var headDim = 0

  /// Keys under `llama.` that say nothing about the function.
  private static let withoutEffect: Set<String> = [
    "llama.tensor_data_layout", "llama.rope.scaling.finetuned", "llama.pooling_type", "llama.use_parallel_residual",
  ]

  init(_ file: inout GGUFFile, limits: LoadLimits) throws {
    var keys = file.metadata
    let width = 1...limits.width
    decoder.width = try keys.int("llama.embedding_length", in: width)
    let feedForward = try keys.int("llama.feed_forward_length", in: width)
    layers = try keys.int("llama.block_count", in: 1...limits.layers)
    heads = try keys.int("llama.attention.head_count", in: 1...65536)
    kvHeads = try keys.optionalInt("llama.attention.head_count_kv", in: 1...65536) ?? heads
    guard heads % kvHeads == 0 else {
      throw keys.failure(
        "'llama.attention.head_count' is \(heads), which 'llama.attention.head_count_kv', \(kvHeads), does not divide")
    }
    decoder.context = try keys.int("llama.context_length", in: 1...limits.context)
    try readHeads(&keys)
    let epsilon = try keys.optionalDouble("llama.attention.layer_norm_rms_epsilon") ?? 1e-5
    guard epsilon >= 0, epsilon < 1 else {
      throw keys.failure("'llama.attention.layer_norm_rms_epsilon' is \(epsilon), expected 0 to 1")
    }
    for key in ["llama.expert_count", "llama.expert_used_count"]
    where try keys.optionalInt(key, in: 0...65536) ?? 0 != 0 {
      throw keys.failure("'\(key)' is not supported for the architecture 'llama'", kind: .unsupported)
    }
    try readVocabulary(&keys, file.tensors, limits)
    let frequencies = try Self.scaling(&keys, file.tensors, headDim).inverseFrequencies(
      theta: try Self.theta(&keys), width: headDim)
    decoder.rotaries = [DecoderRotary(inverseFrequencies: frequencies, isInterleaved: true)]
    for key in keys.keys
    where key.hasPrefix("llama.") && !keys.readKeys.contains(key) && !Self.withoutEffect.contains(key) {
      throw keys.failure("'\(key)' is not supported for the architecture 'llama'", kind: .unsupported)
    }
    addBlocks(epsilon: Float(epsilon), feedForward: feedForward, names: Set(file.tensors.map(\.name)))
    file.metadata = keys
  }

  private mutating func addBlocks(epsilon: Float, feedForward: Int, names: Set<String>) {
    func linear(_ module: String, biasAs other: String? = nil) -> LinearModule {
      LinearModule(module, bias: names.contains("blk.0.\(other ?? module).bias"))
    }
    decoder.embedding.module = "token_embd"
    decoder.norm = NormModule("output_norm", epsilon: epsilon)
    decoder.head.module = LinearModule("output")
    decoder.head.isTied = !names.contains("output.weight")
    let attention = DecoderAttention(
      module: "attn", heads: heads, kvHeads: kvHeads, headDim: headDim, scale: 1 / Float(headDim).squareRoot(),
      projections: .separate(
        linear("attn_q"), linear("attn_k", biasAs: "attn_q"), linear("attn_v", biasAs: "attn_q")),
      output: linear("attn_output"), rotary: 0)
    let feedForward = DecoderFeedForward(
      module: "ffn", width: feedForward,
      projections: .gated(gate: linear("ffn_gate"), up: linear("ffn_up", biasAs: "ffn_gate")),
      down: linear("ffn_down", biasAs: "ffn_gate"))
    decoder.blocks = (0..<layers).map { layer in
      DecoderBlock(
        module: "blk.\(layer)", attentionNorm: NormModule("attn_norm", epsilon: epsilon),
        feedForwardNorm: NormModule("ffn_norm", epsilon: epsilon), attention: attention, feedForward: feedForward)
    }
  }

  private mutating func readHeads(_ keys: inout GGUFMetadata) throws {
    if let length = try keys.optionalInt("llama.attention.key_length", in: 2...65536) {
      headDim = length
    } else {
      guard decoder.width % heads == 0 else {
        throw keys.failure(
          "'llama.embedding_length' is \(decoder.width), which 'llama.attention.head_count', \(heads), does not "
            + "divide")
      }
      headDim = decoder.width / heads
    }
    guard headDim % 2 == 0 else { throw keys.failure("heads of \(headDim) numbers, expected an even number") }
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
      if let other = try keys.optionalInt(key, in: 0...65536), other != headDim {
        throw keys.failure(
          "'\(key)' is \(other), only \(headDim), the width of a head, is supported", kind: .unsupported)
      }
    }
  }

  private mutating func readVocabulary(
    _ keys: inout GGUFMetadata, _ tensors: [CheckpointTensor], _ limits: LoadLimits
  ) throws {
    guard let embedding = tensors.first(where: { $0.name == "token_embd.weight" }) else {
      throw keys.failure("missing tensor 'token_embd.weight'")
    }
    guard let sizes = embedding.shape.fixedSizes, sizes.count == 2, sizes[0] <= limits.tokens else {
      throw keys.failure("tensor 'token_embd.weight' has shape \(embedding.shape), expected [tokens, width]")
    }
    decoder.vocabulary = sizes[0]
    if let count = try keys.optionalInt("llama.vocab_size", in: 1...limits.tokens), count != sizes[0] {
      throw keys.failure("'llama.vocab_size' is \(count), but 'token_embd.weight' has \(sizes[0]) rows")
    }
  }

  private static func theta(_ keys: inout GGUFMetadata) throws -> Double {
    let theta = try keys.optionalDouble("llama.rope.freq_base") ?? 10000
    guard theta > 1, theta <= 1e15 else { throw keys.failure("'llama.rope.freq_base' is \(theta), expected 1 to 1e15") }
    return theta
  }

  private static func scaling(
    _ keys: inout GGUFMetadata, _ tensors: [CheckpointTensor], _ headDim: Int
  ) throws -> RotaryScaling {
    let old = try keys.optionalDouble("llama.rope.scale_linear")
    let kind = try keys.optionalString("llama.rope.scaling.type") ?? (old == nil ? "none" : "linear")
    let stated = try keys.optionalDouble("llama.rope.scaling.factor")
    _ = try keys.optionalInt("llama.rope.scaling.original_context_length", in: 0...Int(UInt32.max))
    let attention = try keys.optionalDouble("llama.rope.scaling.attn_factor") ?? 1
    guard attention == 1 else {
      throw keys.failure("'llama.rope.scaling.attn_factor' is not supported", kind: .unsupported)
    }
    if let factors = tensors.first(where: { $0.name == "rope_freqs.weight" }) {
      guard kind == "none" else {
        throw keys.failure(
          "'llama.rope.scaling.type' together with 'rope_freqs.weight' is not supported", kind: .unsupported)
      }
      return .factors(try readFactors(factors, headDim))
    }
    switch kind {
    case "none": return .none
    case "linear":
      guard let factor = stated ?? old else { throw keys.failure("missing 'llama.rope.scaling.factor'") }
      guard factor > 0, factor <= 1e9 else {
        throw keys.failure("'llama.rope.scaling.factor' is \(factor), expected a positive number")
      }
      return .linear(factor: factor)
    default:
      throw keys.failure(
        "'llama.rope.scaling.type' '\(kind)' is not supported, only none and linear", kind: .unsupported)
    }
  }

  private static func readFactors(_ tensor: CheckpointTensor, _ headDim: Int) throws -> [Float] {
    guard tensor.type == TensorType(.f32, [headDim / 2]) else {
      throw CompileError(
        .input, "tensor 'rope_freqs.weight' is \(tensor.type), expected f32[\(headDim / 2)]",
        subject: .init(file: tensor.file.path))
    }
    var reader = ByteReader(try tensor.file.slice(tensor.range), file: tensor.file.path, base: tensor.range.lowerBound)
    return try (0..<headDim / 2).map { _ in
      let factor = try reader.f32()
      guard factor > 0, factor.isFinite else { throw reader.failure("a factor of \(factor) in 'rope_freqs.weight'") }
      return factor
    }
  }

  /// Adds the function to `model`.
  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let prefix = "blk."
    var layers = 0
    for tensor in tensors.all where tensor.name.hasPrefix(prefix) {
      if let number = Int(tensor.name.dropFirst(prefix.count).prefix { $0 != "." }), number >= 0, number < Int.max {
        layers = max(layers, number + 1)
      }
    }
    guard layers == decoder.blocks.count else {
      throw CompileError(
        .input, "'llama.block_count' is \(decoder.blocks.count), but the tensors have \(layers) blocks",
        subject: .init(file: tensors.place))
    }
    tensors.ignore("rope_freqs.weight")
    try decoder.build(&tensors, into: &model, options: options)
  }
}
