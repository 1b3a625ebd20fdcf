import Base
import IR
import Tensors

/// ViT (Dosovitskiy and others, 2021): an encoder over patches of an image behind a token for the whole, whose blocks
/// normalize what goes into their parts.
///
/// The function `@main` takes `pixel_values: f32[1, C, H, W]` and gives `logits: f32[1, labels]`, or for a checkpoint without
/// classifier `last_hidden_state: f32[1, N, width]` and, where there is a pooler, `pooler_output: f32[1, P]`.
struct ViT: Architecture {
  static let modelType = "vit"
  static let className = "ViTForImageClassification"
  static let otherClassNames = ["ViTModel"]

  /// Images have no tokens.
  let vocabulary = 0
  private let width, feedForward, layers, heads: Int
  private let channels: Int
  /// Height and width of the image and of a patch.
  private let image, patch: [Int]
  @Exact private var epsilon: Float = 1e-12
  private let activation, poolerActivation: FeedForwardActivation
  private let hasBias: Bool
  private let poolerWidth: Int
  private let classifies: Bool

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    for key in ["attention_probs_dropout_prob", "hidden_dropout_prob", "encoder_stride", "num_labels"] {
      _ = config.field(key)
    }
    width = try config.field("hidden_size").int(in: 1...limits.width)
    feedForward = try config.field("intermediate_size").int(in: 1...limits.width)
    layers = try config.field("num_hidden_layers").int(in: 1...limits.layers)
    heads = try config.field("num_attention_heads").int(in: 1...65536)
    guard width % heads == 0 else {
      throw config.root.failure("\(heads) attention heads do not divide the width \(width)")
    }
    channels = try config.field("num_channels").int(or: 3)
    image = try Self.pair(config.field("image_size"), 224)
    patch = try Self.pair(config.field("patch_size"), 16)
    guard (1...1 << 16).contains(channels), patch[0] <= image[0], patch[1] <= image[1] else {
      throw config.root.failure("patches of \(patch) do not fit into images of \(image) with \(channels) channels")
    }
    epsilon = try config.epsilon("layer_norm_eps", or: 1e-12)
    activation = try config.field("hidden_act").activation(or: "gelu")
    poolerActivation = try config.field("pooler_act").activation(or: "tanh")
    hasBias = try config.field("qkv_bias").bool(or: true)
    let pooler = config.field("pooler_output_size")
    poolerWidth = pooler.exists ? try pooler.int(in: 1...limits.width) : width
    classifies = try (config.root["architectures"].optionalElements() ?? []).contains {
      try $0.string() == "ViTForImageClassification"
    }
  }

  /// Height and width: one number for both, or two.
  private static func pair(_ field: JSONField, _ fallback: Int) throws -> [Int] {
    guard field.exists else { return [fallback, fallback] }
    guard field.value?.array != nil else {
      let size = try field.int(in: 1...1 << 16)
      return [size, size]
    }
    let sizes = try field.elements().map { try $0.int(in: 1...1 << 16) }
    guard sizes.count == 2 else { throw field.failure("'\(field.path)' has \(sizes.count) sizes, expected 2") }
    return sizes
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let prefix = tensors["vit.embeddings.cls_token"] == nil ? "" : "vit."
    // Used to learn from masked images alone.
    tensors.ignore(prefix + "embeddings.mask_token")
    var it = ModuleEmitter(name: "main", role: "main", symbols: [], model: model, tensors: tensors)
    it.prefix = prefix
    let pixels = it.builder.input("pixel_values", TensorType(.f32, [1, channels, image[0], image[1]]))
    var x = try embed(pixels, &it)
    for layer in 0..<layers { x = try block(x, layer, &it) }
    x = try it.norm(x, norm("layernorm"), width)
    if classifies {
      it.prefix = ""
      try classify(x, &it)
    } else {
      let rows = patches + 1
      it.builder.output(
        "last_hidden_state", try it.emit(Reshape([1, .fixed(rows), .fixed(width)]), x))
      if it.contains("pooler.dense.weight") {
        let first = try it.emit(Slice(axis: 0, start: 0, size: 1), x)
        let pooled = try it.linear(first, LinearModule("pooler.dense", bias: true), width, poolerWidth)
        it.builder.output("pooler_output", try it.activate(pooled, poolerActivation))
      }
    }
    it.finish(&model, &tensors)
    if classifies {
      for name in ["weight", "bias"] { tensors.ignore("\(prefix)pooler.dense.\(name)") }
    }
    model[metadata: "layers"] = "\(layers)"
  }

  /// Patches of an image; rows and columns that fill none are left out.
  private var patches: Int { image[0] / patch[0] * (image[1] / patch[1]) }

  private func norm(_ module: String) -> NormModule {
    NormModule(module, .layer, epsilon: epsilon, bias: true)
  }

  private func embed(_ pixels: ValueID, _ it: inout ModuleEmitter) throws -> ValueID {
    let module = "embeddings.patch_embeddings.projection"
    it.at(module)
    var convolution = Conv2D(strides: patch)
    convolution.epilogue.bias = true
    let images = try it.emit(
      convolution, pixels, it.wideWeight(module + ".weight", [width, channels, patch[0], patch[1]]),
      it.wideWeight(module + ".bias", [width]))
    let columns = try it.emit(Reshape([.fixed(width), .fixed(patches)]), images)
    let rows = try it.emit(Transpose([1, 0]), columns)
    it.at("embeddings")
    let whole = try it.emit(
      Reshape([1, .fixed(width)]), it.wideWeight("embeddings.cls_token", [1, 1, width]))
    let places = try it.wideWeight("embeddings.position_embeddings", [1, patches + 1, width])
    let table = try it.emit(Reshape([.fixed(patches + 1), .fixed(width)]), places)
    // The row of the whole is the same for every image.
    let first = try it.emit(Add(), whole, it.emit(Slice(axis: 0, start: 0, size: 1), table))
    let others = try it.emit(Add(), rows, it.emit(Slice(axis: 0, start: 1, size: .fixed(patches)), table))
    return try it.emit(Concat(axis: 0), first, others)
  }

  private func block(_ x: ValueID, _ layer: Int, _ it: inout ModuleEmitter) throws -> ValueID {
    // Newer versions of transformers call the modules otherwise.
    let isNew = it.contains("layers.\(layer).layernorm_before.weight")
    let outer = it.prefix
    it.prefix += isNew ? "layers.\(layer)." : "encoder.layer.\(layer)."
    defer { it.prefix = outer }
    let inner = isNew ? "attention" : "attention.attention"
    let names = isNew ? ["q_proj", "k_proj", "v_proj"] : ["query", "key", "value"]
    var n = try it.norm(x, norm("layernorm_before"), width)
    var parts: [ValueID] = []
    for name in names {
      parts.append(try it.linear(n, LinearModule("\(inner).\(name)", bias: hasBias), width, width))
    }
    it.at("attention")
    let scale = 1 / Float(width / heads).squareRoot()
    let attention = Attention(heads: heads, kvHeads: heads, scale: scale, causal: false)
    let a = try it.emit(attention, parts[0], parts[1], parts[2])
    let output = isNew ? "attention.o_proj" : "attention.output.dense"
    let y = try it.emit(Add(), x, it.linear(a, LinearModule(output, bias: true), width, width))
    n = try it.norm(y, norm("layernorm_after"), width)
    let up = try it.linear(
      n, LinearModule(isNew ? "mlp.fc1" : "intermediate.dense", bias: true), width, feedForward)
    let down = try it.linear(
      it.activate(up, activation), LinearModule(isNew ? "mlp.fc2" : "output.dense", bias: true), feedForward, width)
    return try it.emit(Add(), y, down)
  }

  private func classify(_ x: ValueID, _ it: inout ModuleEmitter) throws {
    guard let head = it.tensors["classifier.weight"], let labels = head.shape[0].fixedValue, labels > 0 else {
      throw CompileError(.input, "missing tensor 'classifier.weight'", subject: .init(file: it.tensors.place))
    }
    let first = try it.emit(Slice(axis: 0, start: 0, size: 1), x)
    it.builder.output("logits", try it.linear(first, LinearModule("classifier", bias: true), width, labels))
  }
}
