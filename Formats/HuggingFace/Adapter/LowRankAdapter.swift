import Base
import IR
import Tensors

/// A low-rank adapter (LoRA; Hu and others, 2021) as `peft` saves it.
///
/// The weight `W` of a module with an adapter stands for `V = W + s B A`, with `s = alpha / r`, or `alpha / sqrt(r)` (rsLoRA;
/// Kalajdzievski, 2023), by patterns of module names. Where the module has magnitudes `m` (DoRA; Liu and others, 2024), it
/// stands for `m_i V_i / |V_i|`, with the rows `V_i` of the weights of one output each.
struct LowRankAdapter: Adapter {
  static let kind = "LORA"

  /// What is added to the weight of a module.
  private struct Product: Sendable {
    var a, b: CheckpointTensor
    /// The length of the weights of each output; nil for that of the sum.
    var magnitude: CheckpointTensor?
    /// Whether the weight has one row per input: `(B A)^T` is added.
    var isTransposed: Bool
    var scale: Float
  }

  var file: AdapterFile
  private var products: [String: Product] = [:]
  /// Modules with an adapted table of embeddings.
  private var embeddings: Set<String> = []

  var modules: [String] { Array(products.keys) }
  var keepsAll: Bool { products.values.allSatisfy { $0.magnitude == nil } }

  init(_ folder: CheckpointFolder, _ config: JSONField) throws {
    let settings = try Settings(config)
    file = try AdapterFile(folder, marker: "lora_")
    var parts: [String: (a: CheckpointTensor?, b: CheckpointTensor?, m: CheckpointTensor?, isEmbedding: Bool)] = [:]
    let path = file.path
    for (module, words, tensor) in file.parts {
      func unsupported(_ what: String) -> CompileError {
        CompileError(
          .unsupported, what, subject: .init(file: path, object: "tensor '\(tensor.name)'"))
      }
      let isEmbedding = words[0].hasPrefix("lora_embedding_")
      var entry = parts[module] ?? (nil, nil, nil, isEmbedding)
      let isMagnitude = words[0] == "lora_magnitude_vector"
      guard tensor.shape.rank == (isMagnitude ? 1 : 2) else {
        throw unsupported("adapters of convolutions are not supported; the shape is \(tensor.shape)")
      }
      switch words[0] {
      case "lora_A" where words.last == "weight", "lora_embedding_A": entry.a = tensor
      case "lora_B" where words.last == "weight", "lora_embedding_B": entry.b = tensor
      case _ where isMagnitude: entry.m = tensor
      default:
        throw unsupported(
          "'\(words.joined(separator: "."))' is not supported, only lora_A, lora_B and lora_magnitude_vector")
      }
      parts[module] = entry
    }
    for (module, part) in parts { try add(module, part.a, part.b, part.m, isEmbedding: part.isEmbedding, settings) }
  }

  private mutating func add(
    _ module: String, _ a: CheckpointTensor?, _ b: CheckpointTensor?, _ magnitude: CheckpointTensor?,
    isEmbedding: Bool, _ settings: Settings
  ) throws {
    func damage(_ message: String) -> CompileError { CompileError(.input, message, subject: .init(file: file.path)) }
    guard let a, let b else {
      let found = a != nil ? "lora_A" : b != nil ? "lora_B" : "lora_magnitude_vector"
      throw damage("module '\(module)' has '\(found)' alone")
    }
    let rank = a.type.shape[0].fixedValue ?? 0
    let expected = try settings.rank(of: module)
    guard rank == expected, b.type.shape[1] == a.type.shape[0], rank > 0 else {
      throw damage(
        "the adapter of '\(module)' has the shapes \(a.shape) and \(b.shape), expected the rank \(expected)")
    }
    guard settings.hasMagnitudes == (magnitude != nil) else {
      throw damage(
        magnitude == nil
          ? "module '\(module)' has no 'lora_magnitude_vector', though 'use_dora' is true (DoRA)"
          : "module '\(module)' has 'lora_magnitude_vector' (DoRA), though 'use_dora' is not true")
    }
    guard !isEmbedding || magnitude == nil else {
      throw CompileError(
        .unsupported, "a weight-decomposed adapter (DoRA) of the embedding '\(module)' is not supported",
        subject: .init(file: file.path))
    }
    if let magnitude, magnitude.shape[0] != b.type.shape[0] {
      throw damage("'\(magnitude.name)' has shape \(magnitude.shape), expected [\(b.type.shape[0])]")
    }
    products[module] = Product(
      a: a, b: b, magnitude: magnitude, isTransposed: isEmbedding || settings.hasTransposedWeights,
      scale: try settings.scale(of: module, rank: rank))
    if isEmbedding { embeddings.insert(module) }
  }

  /// The weight of a module with what the adapter adds to it, as a recipe.
  mutating func merged(
    _ weight: ValueID, of name: String, hasHead: Bool, into model: inout Model,
    _ builder: inout GraphBuilder
  ) throws -> ValueID {
    guard name.hasSuffix(".weight") else { return weight }
    let module = String(name.dropLast(".weight".count))
    guard let product = products[module] else { return weight }
    file.use(module)
    if embeddings.contains(module), !hasHead {
      throw CompileError(
        .unsupported, "an adapter of the embedding '\(module)', whose rows may be those of the head, is not supported",
        subject: .init(file: file.place))
    }
    let type = builder.type(of: weight)
    let sizes = [product.b.type.shape[0], product.a.type.shape[1]]
    let shape = Shape(product.isTransposed ? [sizes[1], sizes[0]] : sizes)
    guard type.shape == shape else {
      throw CompileError(
        .input, "the adapter of '\(module)' is for a weight of shape \(shape), found \(type.shape)",
        subject: .init(file: file.place))
    }
    let left = AdapterFile.constant(product.b, "\(module).lora_B", into: &model, &builder)
    let right = AdapterFile.constant(product.a, "\(module).lora_A", into: &model, &builder)
    let op = LowRankUpdate(scale: product.scale)
    if let magnitude = product.magnitude {
      let lengths = AdapterFile.constant(magnitude, "\(module).lora_magnitude", into: &model, &builder)
      guard product.isTransposed else { return try builder.emit(op, [weight, left, right, lengths], name: name) }
      // Lengths are those of the weights of one output, which are columns here.
      let rows = try builder.emit(op, [builder.emit(Transpose([1, 0]), weight), left, right, lengths])
      return try builder.emit(Transpose([1, 0]), rows, name: name)
    }
    guard product.isTransposed else { return try builder.emit(op, weight, left, right, name: name) }
    return try builder.emit(
      op, weight, builder.emit(Transpose([1, 0]), right), builder.emit(Transpose([1, 0]), left), name: name)
  }
}

extension LowRankAdapter {
  /// What `adapter_config.json` says.
  private struct Settings {
    let hasTransposedWeights: Bool
    let hasMagnitudes: Bool
    private let rank: Int
    private let alpha: Double
    private let usesRoot: Bool
    private let ranks: [(key: String, value: Int)]
    private let alphas: [(key: String, value: Double)]

    /// Keys that describe training or where things came from, or follow from the tensors.
    private static let withoutEffect: Set<String> = [
      "auto_mapping", "base_model_name_or_path", "bias", "inference_mode", "lora_dropout", "modules_to_save",
      "peft_version", "revision", "target_modules", "task_type", "exclude_modules", "layers_to_transform",
      "layers_pattern", "megatron_core", "runtime_config", "ensure_weight_tying", "init_lora_weights", "eva_config",
      "corda_config", "loftq_config", "megatron_config",
    ]

    init(_ config: JSONField) throws {
      func unsupported(_ key: String, _ value: String) -> CompileError {
        CompileError(
          .unsupported, "'\(key)' \(value) is not supported for an adapter", subject: .init(file: config.file))
      }
      // These change the weights they start from; the adapter alone does not say how.
      let start = config["init_lora_weights"]
      if let name = start.value?.string,
        name.hasPrefix("pissa") || ["olora", "corda", "loftq", "lora_ga"].contains(name)
      {
        throw unsupported("init_lora_weights", "'\(name)'")
      }
      let bias = try config["bias"].string(or: "none")
      guard bias == "none" else { throw unsupported("bias", "'\(bias)'") }
      hasMagnitudes = try config["use_dora"].bool(or: false)
      let read: Set<String> = [
        "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out",
      ]
      for (key, field) in try config.members() where !read.contains(key) && !Self.withoutEffect.contains(key) {
        switch field.value {
        case nil, .bool(false)?: continue
        case .array(let elements)? where elements.isEmpty: continue
        case .object(let members)? where members.isEmpty: continue
        // A size that counts only where `use_qalora` is set.
        case _ where key == "qalora_group_size": continue
        default: throw unsupported(key, "")
        }
      }
      rank = try config["r"].int(in: 1...1 << 20)
      alpha = try config["lora_alpha"].double(or: 8)
      guard alpha.isFinite, abs(alpha) < 1e9 else {
        throw config.failure("'lora_alpha' is \(alpha), expected a number")
      }
      usesRoot = try config["use_rslora"].bool(or: false)
      hasTransposedWeights = try config["fan_in_fan_out"].bool(or: false)
      let rankTable = config["rank_pattern"], alphaTable = config["alpha_pattern"]
      ranks = rankTable.exists ? try rankTable.members().map { ($0.key, try $0.field.int(in: 1...1 << 20)) } : []
      alphas = alphaTable.exists ? try alphaTable.members().map { ($0.key, try $0.field.double()) } : []
      for key in ranks.map(\.key) + alphas.map(\.key) where !Self.isName(key) {
        throw unsupported("rank_pattern", "with the regular expression '\(key)', other than a name,")
      }
    }

    /// Patterns are regular expressions; those that are no more than a name are understood.
    private static func isName(_ key: String) -> Bool {
      let name = key.hasPrefix("^") ? key.dropFirst() : key[...]
      return !name.isEmpty
        && name.utf8.allSatisfy { byte in
          (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
        }
    }

    /// The value of the first key that is the module's name or the end of it behind a dot.
    private func first<Value>(_ table: [(key: String, value: Value)], _ module: String) -> Value? {
      table.first { entry in
        if entry.key.hasPrefix("^") { return module == entry.key.dropFirst() }
        return module == entry.key || module.hasSuffix("." + entry.key)
      }?.value
    }

    func rank(of module: String) throws -> Int { first(ranks, module) ?? rank }

    func scale(of module: String, rank: Int) throws -> Float {
      let alpha = first(alphas, module) ?? self.alpha
      return Float(alpha / (usesRoot ? Double(rank).squareRoot() : Double(rank)))
    }
  }
}
