import Base
import Formats
import IR
import TestSupport
import Testing

/// What `config.json` says is honoured, or refused by name.
@Suite struct HuggingFaceConfigTests {
  private func load(_ changes: [(String, JSON?)]) throws -> Model {
    var checkpoint = TinyCheckpoint()
    for (key, value) in changes { checkpoint.config[key] = value }
    return try checkpoint.write().load()
  }

  private func frequencies(_ changes: [(String, JSON?)]) throws -> [Float] {
    let model = try load(changes)
    let constant = try #require(model.constants.constants.first { $0.name == "rope.inverse_frequencies" })
    guard case .inline(let bytes) = constant.source else { return [] }
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  @Test(
    arguments: [
      ("hidden_size", nil, "missing 'hidden_size'"), ("hidden_size", 8, "has shape [8, 4], expected [8, 8]"),
      ("hidden_size", 5, "'num_attention_heads', 2, does not divide"), ("hidden_size", "4", "is a string"),
      ("hidden_size", 0, "'hidden_size' is 0"), ("hidden_size", -4, "'hidden_size' is -4"),
      ("hidden_size", 4.5, "expected an integer"), ("intermediate_size", 7, "mlp.gate_proj.weight' has shape [6, 4]"),
      ("num_hidden_layers", 2, "'num_hidden_layers' is 2, but the weights have 1"),
      ("num_hidden_layers", 0, "'num_hidden_layers' is 0"), ("num_hidden_layers", 4097, "expected 1 to 4096"),
      ("num_hidden_layers", 9_000_000_000, "expected 1 to 4096"),
      ("num_attention_heads", 0, "'num_attention_heads' is 0"),
      ("num_attention_heads", 4, "heads of 1 numbers"), ("num_key_value_heads", 3, "3, does not divide"),
      ("num_key_value_heads", 2, "k_proj.weight' has shape [2, 4], expected [4, 4]"),
      ("num_key_value_heads", 0, "'num_key_value_heads' is 0"), ("head_dim", 3, "heads of 3 numbers"),
      ("head_dim", 4, "q_proj.weight' has shape [4, 4], expected [8, 4]"), ("vocab_size", 9, "embed_tokens.weight"),
      ("vocab_size", 0, "'vocab_size' is 0"), ("vocab_size", 1_000_000_000_000, "'vocab_size' is 1000000000000"),
      ("max_position_embeddings", 0, "'max_position_embeddings' is 0"), ("rms_norm_eps", -1.0, "'rms_norm_eps'"),
      ("rms_norm_eps", "x", "'rms_norm_eps' is a string"), ("rope_theta", 0, "'rope_theta' is 0"),
      ("rope_theta", -10000, "'rope_theta'"), ("tie_word_embeddings", 1, "is an integer, expected a boolean"),
      ("attention_bias", true, "missing tensor 'model.layers.0.self_attn.q_proj.bias'"),
      ("rope_scaling", "linear", "'rope_scaling' is a string"),
      ("rope_scaling", ["type": "linear"], "missing 'rope_scaling.factor'"),
      ("rope_scaling", ["type": "linear", "factor": 0], "'rope_scaling.factor' is 0"),
      (
        "rope_scaling",
        ["rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4], "less than the high one"
      ),
      ("rope_parameters", ["rope_theta": 500.0], "'rope_theta' is 10000.0, but 'rope_parameters.rope_theta' is 500.0"),
      ("eos_token_id", 8, "'eos_token_id' is 8, expected 0 to 7"), ("bos_token_id", -3, "'bos_token_id' is -3"),
      ("architectures", ["A", 1], "'architectures[1]' is an integer"),
      ("model_type", "mistral", "contradicts 'model_type', which is 'mistral'"),
    ] as [(String, JSON?, String)])
  func refuses(key: String, value: JSON?, message: String) {
    expectFailure(.input, message, "/") { _ = try load([(key, value)]) }
  }

  @Test(
    arguments: [
      ("hidden_act", "prelu", "'hidden_act' 'prelu'"),
      ("rope_scaling", ["type": "proportional", "factor": 2], "'proportional'"),
      ("rope_scaling", ["type": "linear", "factor": 2, "beta": 3], "'rope_scaling.beta'"),
      ("rope_scaling", ["type": "default", "partial_rotary_factor": 0.5], "'rope_scaling.partial_rotary_factor'"),
      ("sliding_window", 128, "'sliding_window'"), ("partial_rotary_factor", 0.5, "'partial_rotary_factor'"),
      ("quantization_config", ["quant_method": "hqq"], "'quantization_config'"), ("qk_norm", true, "'qk_norm'"),
      ("logit_scale", 2.0, "'logit_scale'"),
      ("architectures", ["XLNetLMHeadModel"], "unknown architecture 'XLNetLMHeadModel'"),
      ("architectures", ["A", "B"], "unknown architecture A and B"),
    ] as [(String, JSON, String)])
  func refusesAsUnsupported(key: String, value: JSON, message: String) {
    expectFailure(.unsupported, message, "config.json") { _ = try load([(key, value)]) }
  }

  @Test func unknownArchitectureListsTheKnownOnes() {
    expectFailure(.unsupported, "unknown architecture 'rwkv'", "LlamaForCausalLM ('llama')") {
      _ = try load([("architectures", nil), ("model_type", "rwkv")])
    }
    expectFailure(.input, "missing 'architectures' and 'model_type'") {
      _ = try load([("architectures", nil), ("model_type", nil)])
    }
    #expect(throws: Never.self) { try load([("architectures", nil)]) }
  }

  @Test func valuesThatSayNothingAreAccepted() throws {
    _ = try load([
      ("sliding_window", nil), ("use_qk_norm", false), ("layer_types", []), ("_x", 3), ("pretraining_tp", 2),
    ])
    _ = try load([("rope_scaling", .null), ("head_dim", .null), ("quantization_config", .null)])
  }

  @Test func oldAndNewSpellingsAgree() throws {
    let old = try frequencies([
      ("head_dim", nil), ("rope_theta", 100.0), ("rope_scaling", ["type": "linear", "factor": 4]),
    ])
    let new = try frequencies([
      ("rope_theta", nil), ("rope_parameters", ["rope_type": "linear", "rope_theta": 100.0, "factor": 4.0]),
      ("torch_dtype", nil), ("dtype", "float32"),
    ])
    #expect(old == [0.25])
    #expect(new == old)
  }

  /// The definition of Llama 3.1; the fixture `llama3-rope` compares with transformers.
  @Test func scalesFrequenciesLikeLlama3() throws {
    let scaling = RotaryScaling.llama3(factor: 8, lowFactor: 1, highFactor: 4, originalContext: 64)
    let found = scaling.inverseFrequencies(theta: 500_000, width: 16)
    let plain = RotaryScaling.none.inverseFrequencies(theta: 500_000, width: 16)
    // Wavelength 2 pi < 64 / 4 keeps; above 64 divides by 8; the second, 32.4, is blended.
    #expect(found[0] == plain[0])
    let blend = (64 / (2 * Double.pi / Double(plain[1])) - 1) / 3
    #expect(abs(Double(found[1]) - ((1 - blend) / 8 + blend) * Double(plain[1])) < 1e-7)
    for index in 2..<8 { #expect(found[index] == plain[index] / 8) }
  }

  @Test func generationSettingsAreRead() throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.files["generation_config.json"] =
      "{\"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.9, \"top_k\": 40, \"repetition_penalty\": 1.5, "
      + "\"eos_token_id\": [2, 5], \"transformers_version\": \"5\"}"
    let settings = try #require(try checkpoint.write().load().generation)
    #expect(settings.samples && settings.temperature == 0.6 && settings.topP == 0.9 && settings.topK == 40)
    #expect(settings.repeatPenalty == 1.5 && settings.endIDs == [2, 5] && settings.beginID == 1)
    for (text, message) in [
      ("{\"top_p\": 2}", "'top_p' is 2.0"), ("{\"temperature\": -1}", "'temperature' is -1.0"),
      ("{\"top_k\": 1.5}", "'top_k'"), ("{\"eos_token_id\": [8]}", "'eos_token_id[0]' is 8"),
      ("{\"do_sample\": 1}", "'do_sample' is an integer"), ("[]", "expected an object"),
    ] {
      checkpoint.files["generation_config.json"] = text
      let folder = try checkpoint.write()
      expectFailure(.input, message, "generation_config.json") { _ = try folder.load() }
    }
  }

  @Test func refusesTensors() throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.tensors.append(("model.layers.0.self_attn.q_norm.weight", [2]))
    let extra = try checkpoint.write()
    expectFailure(.unsupported, "'model.layers.0.self_attn.q_norm.weight' has no place", "model.safetensors") {
      _ = try extra.load()
    }
    checkpoint.tensors.removeLast(2)
    let missing = try checkpoint.write()
    expectFailure(.input, "missing tensor 'model.norm.weight'") { _ = try missing.load() }
  }

  @Test func refusesElementTypes() throws {
    let folder = try TinyCheckpoint().write()
    var text = ""
    var data: [UInt8] = []
    for (name, sizes) in TinyCheckpoint().tensors {
      let type = name == "model.norm.weight" ? "I32" : "F32"
      let begin = data.count
      data += [UInt8](repeating: 0, count: sizes.reduce(4, *))
      text +=
        "\(text.isEmpty ? "{" : ",")\"\(name)\":{\"dtype\":\"\(type)\",\"shape\":\(sizes),\"data_offsets\":[\(begin),\(data.count)]}"
    }
    while (text.utf8.count + 1) % 8 != 0 { text += " " }
    try folder.write("model.safetensors", FileBytes.safetensors(text + "}", data))
    expectFailure(.unsupported, "element type i32, expected f32, f16 or bf16", "tensor 'model.norm.weight'") {
      _ = try folder.load()
    }
  }
}
