import Base

/// A `config.json` that knows which of its keys an architecture has read.
///
/// Every key must be read, or be known to have no effect on what the network computes, or hold a value that says
/// nothing (null, false, or an empty list); any other is an error, so that no hyper-parameter is passed over.
struct CheckpointConfig: Sendable {
  let root: JSONField
  private var readKeys: Set<String> = []

  init(_ root: JSONField) { self.root = root }

  /// Keys that describe training, files or the framework, but not the function of a decoder.
  private static let withoutEffect: Set<String> = [
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range",
    "pretraining_tp", "attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop",
    "classifier_dropout", "output_attentions", "output_hidden_states", "return_dict", "gradient_checkpointing",
    "attn_implementation", "torchscript", "auto_map", "name_or_path", "tokenizer_class", "unsloth_version",
    "unsloth_fixed", "finetuning_task", "id2label", "label2id", "problem_type", "task_specific_params", "max_length",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "rope_theta_original",
    "max_sequence_length", "model_max_length", "tokenizer_model_max_length", "chunk_size_feed_forward",
    "router_aux_loss_coef", "temperature", "top_k", "top_p", "do_sample",
    "repetition_penalty", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
    "summary_first_dropout", "residual_dropout", "embedding_dropout", "dropout", "activation_dropout", "layerdrop",
    "init_std", "cache_implementation", "prefix", "transformers.js_config", "base_model_name_or_path",
    "vocab_size_original", "neftune_noise_alpha",
  ]

  /// Keys of this or that model code that say nothing with these values.
  private static let neutralValues: [String: JSON] = [
    "interpolate_factor": .integer(1), "full_attn_mod": .integer(1), "rotary_scaling_factor": .number(1),
    "is_llama_config": .bool(true), "is_decoder": .bool(false),
  ]

  /// The field under the first of `keys` that exists; all of them count as read.
  mutating func field(_ keys: String...) -> JSONField { field(anyOf: keys) }

  /// The field under the first of `keys` that exists; all of them count as read.
  mutating func field(anyOf keys: [String]) -> JSONField {
    readKeys.formUnion(keys)
    let fields = keys.map { root[$0] }
    return fields.first { $0.exists } ?? root[keys.first ?? ""]
  }

  /// The same where the keys are spellings of one thing: those that exist must agree.
  mutating func agreed(_ keys: [String]) throws -> JSONField {
    let found = field(anyOf: keys)
    for key in keys where root[key].exists && root[key].value != found.value {
      throw root.failure("'\(found.path)' and '\(key)' contradict each other")
    }
    return found
  }

  /// Whether there is anything under `key`, null included.
  func says(_ key: String) -> Bool { root.value?.object?[key] != nil }

  /// Notes that what these keys say has no effect on this architecture.
  mutating func ignore(_ keys: String...) { readKeys.formUnion(keys) }

  /// Throws if a key that may matter has not been read.
  func requireAllRead(architecture: String) throws {
    for (key, field) in try root.members() {
      if readKeys.contains(key) || Self.isNeutral(key, field.value) { continue }
      throw CompileError(
        .unsupported, "'\(key)' is not supported for the architecture '\(architecture)'",
        subject: .init(file: root.file))
    }
  }

  /// Whether a key does not matter for what a network computes, or holds a value that says nothing.
  static func isNeutral(_ key: String, _ value: JSON?) -> Bool {
    if withoutEffect.contains(key) || key.hasPrefix("_") { return true }
    if let value, let neutral = neutralValues[key], value.isEqualNumber(neutral) { return true }
    switch value {
    case nil, .null?, .bool(false)?: return true
    case .array(let elements)?: return elements.isEmpty
    case .object(let members)?: return members.isEmpty
    default: return false
    }
  }
}

extension JSON {
  /// Whether both are equal, whole numbers and others alike.
  fileprivate func isEqualNumber(_ other: JSON) -> Bool {
    self == other || (double != nil && double == other.double)
  }
}
