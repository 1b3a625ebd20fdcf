import Base
import Glibc
import IR
import Tensors

extension Checkpoint {
  /// Reads a checkpoint of llama2.c, with the tokenizer beside it.
  init(llama2C candidate: Candidate, limits: LoadLimits) throws {
    guard let mapped = candidate.file else { throw CompileError(.input, "'\(candidate.path)' is a folder") }
    let file = try Llama2CFile(mapped, limits: limits)
    self.init(name: candidate.modelName, config: Llama2CFormat.config(of: file))
    for tensor in file.tensors { try add(tensor, as: tensor.name) }
    if file.version == 2 { notes.append("quantized weights are written as f32") }
    if let path = try Llama2CFormat.tokenizerPath(candidate, file.vocabulary, LoadOptions()) {
      text = { vocabulary in
        CheckpointText(
          tokenizer: try Tokenizer(llama2c: MappedFile(path: path), vocabulary: vocabulary, limits: limits))
      }
    }
  }

  /// Writes a checkpoint of llama2.c, version 0: seven 32-bit integers, then all numbers in f32, one kind of weight after
  /// the other, rows of Q and K in pairs of neighbours, and the cosines and sines of all positions.
  ///
  /// - Returns: sentences about what could not be represented.
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the hyper-parameter that the format has no place for.
  package func write(llama2C path: String) throws -> [String] {
    var config = ConvertedConfig(config)
    func number(_ key: String, or fallback: Int? = nil) throws -> Int {
      guard let value = config.int(key) ?? fallback, value > 0 else {
        throw CompileError(.unsupported, "missing '\(key)', which llama2.c needs")
      }
      return value
    }
    guard config.value("model_type")?.string == "llama" else {
      throw CompileError(.unsupported, "llama2.c files hold models of type 'llama' alone")
    }
    let width = try number("hidden_size"), hidden = try number("intermediate_size")
    let layers = try number("num_hidden_layers"), heads = try number("num_attention_heads")
    let kvHeads = try number("num_key_value_heads", or: heads), vocabulary = try number("vocab_size")
    let context = try number("max_position_embeddings", or: 2048)
    let headDim = try number("head_dim", or: width / heads)
    let theta = config.value("rope_parameters")?["rope_theta"] ?? config.value("rope_theta")
    let granted: [(String, Bool)] = [
      ("head_dim", headDim * heads == width), ("rope_theta", theta?.double ?? 10000 == 10000),
      ("rope_scaling", config.value("rope_scaling") == nil),
      ("rope_parameters", config.value("rope_parameters")?["rope_type"]?.string ?? "default" == "default"),
      ("rms_norm_eps", config.value("rms_norm_eps")?.double ?? 1e-5 == 1e-5),
      ("hidden_act", ["silu", "swish"].contains(config.value("hidden_act")?.string ?? "silu")),
      ("attention_bias", !(config.bool("attention_bias") ?? false)), ("mlp_bias", !(config.bool("mlp_bias") ?? false)),
    ]
    if let key = granted.first(where: { !$0.1 })?.0 {
      throw CompileError(.unsupported, "llama2.c has no place for '\(key)' = \(self.config[key]?.text() ?? "none")")
    }
    let tied = config.bool("tie_word_embeddings") ?? !contains("lm_head.weight")
    try config.requireAllTaken(architecture: "llama2.c")

    let file = try AtomicFile(path: path)
    for value in [width, hidden, layers, heads, kvHeads, tied ? vocabulary : -vocabulary, context] {
      guard let narrow = Int32(exactly: value) else {
        throw CompileError(.unsupported, "\(value) does not fit into the 32 bits of llama2.c")
      }
      try file.append(withUnsafeBytes(of: narrow.littleEndian) { Array($0) })
    }
    func write(_ name: String, pairs count: Int? = nil) throws {
      var source = self
      try source.rename(name, to: name) { builder, value in
        let wide = try builder.cast(value, to: .f32)
        guard let count else { return wide }
        let rows = builder.type(of: wide).shape.dims.first?.fixedValue ?? 0
        return try builder.reorderRows(wide, parts: [count, 2, rows / count / 2], permutation: [0, 2, 1])
      }
      try source.write(name, to: file)
    }
    func writeLayers(_ part: String, pairs count: Int? = nil) throws {
      for layer in 0..<layers { try write("model.layers.\(layer).\(part).weight", pairs: count) }
    }
    try write("model.embed_tokens.weight")
    try writeLayers("input_layernorm")
    try writeLayers("self_attn.q_proj", pairs: heads)
    try writeLayers("self_attn.k_proj", pairs: kvHeads)
    for part in ["self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj"] {
      try writeLayers(part)
    }
    try writeLayers("mlp.up_proj")
    try write("model.norm.weight")
    let frequencies = RotaryScaling.none.inverseFrequencies(theta: 10000, width: headDim)
    for table in [{ (x: Float) in cosf(x) }, { (x: Float) in sinf(x) }] {
      for position in 0..<context {
        let row = frequencies.map { table(Float(position) * $0) }
        try row.withUnsafeBytes { try file.append($0) }
      }
    }
    if !tied { try write("lm_head.weight") }
    try file.commit()
    return try writeText(besideLlama2C: path)
  }
}
