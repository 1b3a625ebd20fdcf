import Base
import IR
import Tensors

extension GGUFSchema {
  /// Writes what BERT and T5 have beside sizes, and takes out of the checkpoint what has no place there.
  mutating func writeEncoder(
    _ config: inout ConvertedConfig, _ writer: inout GGUFWriter, _ checkpoint: inout Checkpoint, className: String?,
    _ notes: inout [String]
  ) throws {
    switch name {
    case "bert": try writeBert(&config, &writer, &checkpoint, className: className, &notes)
    case "t5", "t5encoder": try writeT5(&config, &writer, &checkpoint, className: className)
    default: break
    }
  }

  // MARK: BERT

  private func writeBert(
    _ config: inout ConvertedConfig, _ writer: inout GGUFWriter, _ checkpoint: inout Checkpoint, className: String?,
    _ notes: inout [String]
  ) throws {
    guard className?.hasSuffix("Model") ?? true else {
      throw CompileError(
        .unsupported,
        "the architecture 'bert' of GGUF gives hidden states, and has no place for the head of '\(className ?? "")'")
    }
    guard let types = config.int("type_vocab_size"), types > 0 else {
      throw CompileError(.input, "missing 'type_vocab_size' in the configuration")
    }
    writer["tokenizer.ggml.token_type_count"] = .u32(types)
    let left = checkpoint.names.filter { tensor in
      let own = tensor.hasPrefix("bert.") ? tensor.dropFirst("bert.".count) : tensor[...]
      return own.hasPrefix("pooler.") || own.hasPrefix("cls.")
    }
    for tensor in left { checkpoint.remove(tensor) }
    if let first = left.first {
      notes.append(
        "\(left.count) tensors that do not belong to the encoder are not written, such as '\(first)'")
    }
    let sentences = checkpoint.sentences
    if let sentences {
      guard let number = sentences.pooling.numberInGGUF else {
        throw CompileError(
          .unsupported, "the pooling '\(sentences.pooling.rawValue)' has no number in GGUF")
      }
      writer["\(name).pooling_type"] = .u32(number)
      if !sentences.normalizes { notes.append("readers of GGUF divide embeddings by their length") }
      if let longest = sentences.longest, longest < config.taken("max_position_embeddings") ?? 0 {
        notes.append("GGUF does not say that texts are cut off at \(longest) tokens")
      }
    }
  }

  // MARK: T5

  private mutating func writeT5(
    _ config: inout ConvertedConfig, _ writer: inout GGUFWriter, _ checkpoint: inout Checkpoint, className: String?
  ) throws {
    let isMultilingual = config.value("model_type")?.string == "mt5"
    let said = config.value("feed_forward_proj")?.string ?? (isMultilingual ? "gated-gelu" : "relu")
    // With a gate readers take the approximation of GELU by tanh, without one ReLU.
    let activation = said == "gated-gelu" ? "gelu_new" : "relu"
    guard ["gated-gelu", "relu"].contains(said), config.value("dense_act_fn")?.string ?? activation == activation,
      config.bool("is_gated_act") ?? (said != "relu") == (said != "relu")
    else {
      throw CompileError(
        .unsupported, "'feed_forward_proj' is '\(said)', which the architecture '\(name)' of GGUF does not express")
    }
    let ties = config.bool("tie_word_embeddings") ?? true
    guard name == Self.t5.name else { return }
    let scales = config.bool("scale_decoder_outputs") ?? (ties && !isMultilingual)
    let hasHead = !(ties && scales) && checkpoint.contains("lm_head.weight")
    if scales {
      foldHeadScale(width: config.taken("d_model") ?? 1)
      writer["\(name).\(Self.logitScale)"] = .f32(1)
    }
    if hasHead { return }
    guard scales else {
      throw CompileError(
        .unsupported, "readers of GGUF scale hidden states where the head of T5 is the embedding, which this does not")
    }
    checkpoint.remove("lm_head.weight")
  }
}

extension SentenceTransformer.Pooling {
  /// The number of the pooling in GGUF (`llama_pooling_type`); nil if it has none.
  var numberInGGUF: Int? {
    switch self {
    case .mean: 1
    case .cls: 2
    case .lastToken: 3
    case .max: nil
    }
  }
}

extension SentenceTransformer {
  /// What a GGUF file of BERT says about the vectors of texts, which readers divide by their length; nil if it says
  /// nothing.
  init?(gguf keys: inout GGUFMetadata, of schema: GGUFSchema) throws {
    guard schema.name == GGUFSchema.bert.name else { return nil }
    let key = "\(schema.name).pooling_type"
    guard let number = try keys.optionalInt(key, in: 0...Int(Int32.max)), number != 0 else { return nil }
    guard let pooling = Pooling.allCases.first(where: { $0.numberInGGUF == number }) else {
      throw keys.failure("'\(key)' is \(number), only 0 to 3 are supported", kind: .unsupported)
    }
    self.init()
    self.pooling = pooling
    normalizes = true
  }
}
