import Base
import IR
import Tensors

/// A low-rank adapter (LoRA; Hu and others, 2021) as `peft` saves it: `adapter_config.json` beside
/// `adapter_model.safetensors`.
///
/// The weight `W` of a module with an adapter stands for `W + s B A`, with `s = alpha / r`, or `alpha / sqrt(r)` (rsLoRA;
/// Kalajdzievski, 2023), by patterns of module names. A module that was trained as a whole takes the place of the
/// checkpoint's.
package struct LowRankAdapter: Sendable {
  /// What is added to the weight of a module.
  private struct Product: Sendable {
    var a, b: CheckpointTensor
    /// Whether the weight has one row per input: `(B A)^T` is added.
    var isTransposed: Bool
    var rank: Int
    var scale: Float
  }

  private let place: String
  private var products: [String: Product] = [:]
  private var replacements: [String: CheckpointTensor] = [:]
  private var used: Set<String> = []
  /// Modules with an adapted table of embeddings.
  private var embeddings: Set<String> = []

  private static let prefix = "base_model.model."

  /// Reads the adapter in the folder at `path`.
  ///
  /// - Throws: `CompileError` of kind `.input` for damage, `.unsupported` for an adapter of another kind, by name.
  package init(path: String, limits: LoadLimits) throws {
    place = path
    let folder = CheckpointFolder(path: path, limits: limits)
    let settings = try Settings(folder.json("adapter_config.json", limit: limits.configBytes))
    guard folder.contains("adapter_model.safetensors") else {
      let notes = folder.contains("adapter_model.bin") ? ["'adapter_model.bin' is not read"] : []
      throw CompileError(.input, "'adapter_model.safetensors' is not in '\(path)'", notes: notes)
    }
    let mapped = try MappedFile(path: "\(path)/adapter_model.safetensors")
    let file = try SafetensorsFile(mapped, limits: limits)
    var parts: [String: (a: CheckpointTensor?, b: CheckpointTensor?, isEmbedding: Bool)] = [:]
    for tensor in file.tensors {
      let subject = CompileError.Subject(file: mapped.path, object: "tensor '\(tensor.name)'")
      func unsupported(_ what: String) -> CompileError { CompileError(.unsupported, what, subject: subject) }
      guard tensor.name.hasPrefix(Self.prefix) else {
        throw unsupported("a tensor of an adapter begins with '\(Self.prefix)'")
      }
      guard [.f32, .f16, .bf16].contains(tensor.type.element), tensor.blocks == nil else {
        throw unsupported("element type \(tensor.type.element.rawValue), expected f32, f16 or bf16")
      }
      let name = String(tensor.name.dropFirst(Self.prefix.count))
      if name.contains("lora_magnitude_vector") {
        throw unsupported("weight-decomposed adapters (DoRA) are not supported")
      }
      let words = name.split(separator: ".").map(String.init)
      guard let index = words.firstIndex(where: { $0.hasPrefix("lora_") }) else {
        let own = words.filter { $0 != "modules_to_save" && $0 != "default" }.joined(separator: ".")
        guard replacements.updateValue(tensor, forKey: own) == nil else { throw unsupported("the tensor occurs twice") }
        continue
      }
      let module = words[..<index].joined(separator: ".")
      let isEmbedding = words[index].hasPrefix("lora_embedding_")
      guard tensor.shape.rank == 2 else {
        throw unsupported("adapters of convolutions are not supported; the shape is \(tensor.shape)")
      }
      var entry = parts[module] ?? (nil, nil, isEmbedding)
      switch words[index] {
      case "lora_A" where words.last == "weight", "lora_embedding_A": entry.a = tensor
      case "lora_B" where words.last == "weight", "lora_embedding_B": entry.b = tensor
      default: throw unsupported("'\(words[index...].joined(separator: "."))' is not supported, only lora_A and lora_B")
      }
      parts[module] = entry
    }
    for (module, part) in parts {
      guard let a = part.a, let b = part.b else {
        throw CompileError(
          .input, "module '\(module)' has '\(part.a == nil ? "lora_B" : "lora_A")' alone",
          subject: .init(file: mapped.path))
      }
      let rank = a.type.shape[0].fixedValue ?? 0
      let expected = try settings.rank(of: module)
      guard rank == expected, b.type.shape[1] == a.type.shape[0], rank > 0 else {
        throw CompileError(
          .input,
          "the adapter of '\(module)' has the shapes \(a.shape) and \(b.shape), expected the rank \(expected)",
          subject: .init(file: mapped.path))
      }
      products[module] = Product(
        a: a, b: b, isTransposed: part.isEmbedding || settings.hasTransposedWeights, rank: rank,
        scale: try settings.scale(of: module, rank: rank))
      if part.isEmbedding { embeddings.insert(module) }
    }
  }

  /// The tensor that stands in for the checkpoint's of that name.
  mutating func replacement(of name: String) -> CheckpointTensor? {
    guard let tensor = replacements[name] else { return nil }
    used.insert(name)
    return tensor
  }

  /// The weight of a module with what the adapter adds to it, as a recipe.
  mutating func merged(
    _ weight: ValueID, of name: String, hasHead: Bool, into model: inout Model,
    _ builder: inout GraphBuilder
  ) throws -> ValueID {
    guard name.hasSuffix(".weight") else { return weight }
    let module = String(name.dropLast(".weight".count))
    guard let product = products[module] else { return weight }
    used.insert(module)
    if embeddings.contains(module), !hasHead {
      throw CompileError(
        .unsupported, "an adapter of the embedding '\(module)', whose rows may be those of the head, is not supported",
        subject: .init(file: place))
    }
    let type = builder.type(of: weight)
    let sizes = [product.b.type.shape[0], product.a.type.shape[1]]
    let shape = Shape(product.isTransposed ? [sizes[1], sizes[0]] : sizes)
    guard type.shape == shape else {
      throw CompileError(
        .input, "the adapter of '\(module)' is for a weight of shape \(shape), found \(type.shape)",
        subject: .init(file: place))
    }
    var left = Self.constant(product.b, "\(module).lora_B", into: &model, &builder)
    var right = Self.constant(product.a, "\(module).lora_A", into: &model, &builder)
    if product.isTransposed {
      (left, right) = (try builder.emit(Transpose([1, 0]), right), try builder.emit(Transpose([1, 0]), left))
    }
    return try builder.emit(LowRankUpdate(scale: product.scale), weight, left, right, name: name)
  }

  private static func constant(
    _ tensor: CheckpointTensor, _ name: String, into model: inout Model, _ builder: inout GraphBuilder
  ) -> ValueID {
    builder.constant(
      Constant(name: name, type: tensor.type, source: .archive(model.addArchive(tensor.file), tensor.range)))
  }

  /// Throws if a part of the adapter found no place.
  func requireAllUsed() throws {
    let rest = (Array(products.keys) + replacements.keys).filter { !used.contains($0) }.sorted()
    guard let first = rest.first else { return }
    let others = rest.count > 1 ? ["\(rest.count) such modules, among them '\(rest[rest.count - 1])'"] : []
    throw CompileError(
      .input, "the adapter is for '\(first)', which the checkpoint does not have", subject: .init(file: place),
      notes: others)
  }
}

extension LowRankAdapter {
  /// What `adapter_config.json` says.
  private struct Settings {
    let hasTransposedWeights: Bool
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
      let kind = try config["peft_type"].string()
      guard kind == "LORA" else { throw unsupported("peft_type", "'\(kind)'") }
      // These change the weights they start from; the adapter alone does not say how.
      let start = config["init_lora_weights"]
      if let name = start.value?.string,
        name.hasPrefix("pissa") || ["olora", "corda", "loftq", "lora_ga"].contains(name)
      {
        throw unsupported("init_lora_weights", "'\(name)'")
      }
      let bias = try config["bias"].string(or: "none")
      guard bias == "none" else { throw unsupported("bias", "'\(bias)'") }
      if try config["use_dora"].bool(or: false) { throw unsupported("use_dora", "true (DoRA)") }
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
