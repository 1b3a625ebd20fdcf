import Base
import Formats
import IR
import TestSupport
import Testing

/// What configurations of decoders say is honoured, or refused by name.
@Suite struct DecoderConfigTests {
  /// The configuration of a small network of that kind, without weights.
  private static func config(_ architecture: String, _ modelType: String) -> [(String, JSON?)] {
    [("architectures", [.string(architecture)]), ("model_type", .string(modelType))]
  }

  /// A case: class, model type, further keys, part of the message.
  struct Refusal: Sendable, CustomTestStringConvertible {
    var architecture: String
    var modelType: String
    var keys: [(String, JSON?)]
    var kind: CompileError.Kind
    var message: String

    init(_ architecture: String, _ modelType: String, _ keys: [(String, JSON?)], _ message: String) {
      self.init(architecture, modelType, keys, .unsupported, message)
    }

    init(
      _ architecture: String, _ modelType: String, _ keys: [(String, JSON?)], _ kind: CompileError.Kind,
      _ message: String
    ) {
      self.architecture = architecture
      self.modelType = modelType
      self.keys = keys
      self.kind = kind
      self.message = message
    }

    var testDescription: String { "\(modelType): \(message)" }
  }

  static let gpt2: [(String, JSON?)] = [("n_embd", 4), ("n_layer", 1), ("n_head", 2), ("n_positions", 16)]

  @Test(arguments: [
    Refusal("GPT2LMHeadModel", "gpt2", gpt2 + [("n_ctx", 8)], .input, "'n_positions' and 'n_ctx' contradict"),
    Refusal("GPT2LMHeadModel", "gpt2", gpt2 + [("add_cross_attention", true)], "'add_cross_attention'"),
    Refusal("GPT2LMHeadModel", "gpt2", gpt2 + [("activation_function", "prelu")], "'activation_function' 'prelu'"),
    Refusal("Gemma2ForCausalLM", "gemma2", [("use_bidirectional_attention", true)], "'use_bidirectional_attention'"),
    Refusal("Gemma2ForCausalLM", "gemma2", [("final_logit_softcapping", -3.0)], .input, "expected a positive number"),
    Refusal(
      "Gemma2ForCausalLM", "gemma2", [("layer_types", ["full_attention", "full_attention"])], .input, "2 entries"),
    Refusal("Gemma2ForCausalLM", "gemma2", [("layer_types", ["chunked_attention"])], "'chunked_attention'"),
    Refusal(
      "Gemma3ForCausalLM", "gemma3_text", [("sliding_window_pattern", 0)], .input, "'sliding_window_pattern' is 0"),
    Refusal(
      "Qwen2ForCausalLM", "qwen2", [("layer_types", ["sliding_attention"])], .input, "'sliding_window' is missing"),
    Refusal("Qwen3ForCausalLM", "qwen3", [("head_dim", 3)], .input, "heads of 3 numbers"),
    Refusal("MistralForCausalLM", "mistral", [("layer_types", ["full_attention"])], "'layer_types'"),
    Refusal("SmolLM3ForCausalLM", "smollm3", [("no_rope_layers", [1, 0])], .input, "2 entries for 1 layers"),
    Refusal("Starcoder2ForCausalLM", "starcoder2", [("mlp_type", "gated")], "'mlp_type' 'gated'"),
    Refusal(
      "FalconForCausalLM", "falcon", [("new_decoder_architecture", true), ("parallel_attn", false)],
      "no Falcon that is known"),
    Refusal("FalconForCausalLM", "falcon", [("ffn_hidden_size", 6), ("ff_factor", 4)], .input, "'ff_factor'"),
    Refusal("CohereForCausalLM", "cohere", [("logit_scale", 0.0)], .input, "'logit_scale' is 0.0"),
    Refusal("GraniteForCausalLM", "granite", [("shared_intermediate_size", 8)], "'shared_intermediate_size'"),
    Refusal(
      "OPTForCausalLM", "opt",
      [("ffn_dim", 6), ("intermediate_size", nil), ("num_key_value_heads", nil), ("rotary", 0.5)], "'rotary'"),
    Refusal(
      "Phi3ForCausalLM", "phi3",
      [("rope_scaling", ["type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [1.0]])], .input,
      "2 factors for rotary embedding of 1 pairs"),
    Refusal("PhiForCausalLM", "phi", [("partial_rotary_factor", 1.5)], .input, "'partial_rotary_factor' is 1.5"),
  ])
  func refuses(_ refusal: Refusal) {
    expectFailure(refusal.kind, refusal.message, "config.json") {
      var checkpoint = TinyCheckpoint()
      for (key, value) in Self.removed + Self.config(refusal.architecture, refusal.modelType) + refusal.keys {
        checkpoint.config[key] = value
      }
      _ = try checkpoint.write().load()
    }
  }

  /// Keys of ``TinyCheckpoint`` that other networks have no use for.
  private static let removed: [(String, JSON?)] = [("rms_norm_eps", nil), ("rope_theta", nil), ("hidden_act", nil)]

  /// Numbers of transformers 5.23 for heads of 10 numbers. Powers and quotients are in f32 on both sides: two units in the
  /// last place.
  @Test func yarnFollowsTransformers() {
    let original = RotaryScaling.yarn(factor: 4, fast: 32, slow: 1, originalContext: 24, truncates: true)
    let wider = RotaryScaling.yarn(factor: 4, fast: 3, slow: 0.5, originalContext: 24, truncates: false)
    for (scaling, expected) in [
      (original, [1, 0.03962232917547226, 0.0062797158025205135, 0.0009952676482498646, 0.00015773932682350278]),
      (wider, [1, 0.05231042206287384, 0.0062797158025205135, 0.0009952676482498646, 0.00015773932682350278]),
    ] {
      let found = scaling.inverseFrequencies(theta: 10000, width: 10).map { Double($0) }
      #expect(found.count == expected.count)
      for (a, b) in zip(found, expected) { #expect(abs(a - b) <= 2.4e-7 * b, "\(a) \(b)") }
    }
  }

  /// The long factors are for caches of more rows than the original context.
  @Test(arguments: [(8, [0.5] as [Float]), (9, [0.25])])
  func longRopeFollowsTheContext(rows: Int, expected: [Float]) throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.config["rope_scaling"] = [
      "rope_type": "longrope", "short_factor": [2.0], "long_factor": [4.0], "original_max_position_embeddings": 8,
    ]
    let model = try checkpoint.write().load(LoadOptions(context: rows))
    let constant = try #require(model.constants.constants.first { $0.name == "rope.inverse_frequencies" })
    guard case .inline(let bytes) = constant.source else { return }
    #expect(bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } == expected)
    // sqrt(1 + log(16 / 8) / log(8)) for the cosines and sines.
    let factor = try #require(model.constants.constants.first { $0.name == "number" })
    #expect(factor.source == .splat(Double(Float((4.0 / 3).squareRoot()))))
  }
}
