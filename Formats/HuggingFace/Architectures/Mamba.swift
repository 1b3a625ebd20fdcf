import Base
import IR
import Tensors

/// Mamba (Gu and Dao, 2023): blocks of a causal convolution and a selective state space between two projections, without
/// attention. States are the last rows before the convolution, and those of the scan: their size does not grow with the
/// text.
struct Mamba: Architecture {
  static let modelType = "mamba"
  static let className = "MambaForCausalLM"

  let vocabulary: Int
  private let width, inner, stateSize, rank, taps, layers: Int
  @Exact private var epsilon: Float = 1e-5
  private let hasBias, hasConvBias, tiesEmbedding: Bool
  private let longest: Int

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    // What training begins with, and choices of the framework between equal computations.
    for key in [
      "residual_in_fp32", "rescale_prenorm_residual", "time_step_floor", "time_step_init_scheme", "time_step_max",
      "time_step_min", "time_step_scale", "use_associative_scan", "use_mambapy", "n_layer", "d_model", "rms_norm",
      "fused_add_norm", "ssm_cfg", "pad_vocab_size_multiple", "d_inner",
    ] { _ = config.field(key) }
    vocabulary = try config.field("vocab_size").int(in: 1...limits.tokens)
    width = try config.field("hidden_size").int(in: 1...limits.width)
    let expand = try config.field("expand").double(or: 2)
    guard expand > 0, expand <= 1024 else { throw config.root.failure("'expand' is \(expand), expected 0 to 1024") }
    let field = config.field("intermediate_size")
    inner = field.exists ? try field.int(in: 1...limits.width) : max(1, Int(expand * Double(width)))
    stateSize = try config.field("state_size").int(in: 1...65536)
    let rankField = config.field("time_step_rank")
    let isAutomatic = !rankField.exists || rankField.value?.string == "auto"
    rank = isAutomatic ? (width + 15) / 16 : try rankField.int(in: 1...limits.width)
    taps = try config.field("conv_kernel").int(in: 2...16)
    layers = try config.field("num_hidden_layers").int(in: 1...limits.layers)
    epsilon = try config.epsilon("layer_norm_epsilon", or: 1e-5)
    // Versions of the framework differ in which of the two activations the setting is for.
    let activation = try config.field("hidden_act").activation(or: "silu")
    guard activation == .silu else {
      throw CompileError(
        .unsupported, "'hidden_act' '\(activation.rawValue)' is not supported, only silu",
        subject: .init(file: config.root.file))
    }
    hasBias = try config.field("use_bias").bool(or: false)
    hasConvBias = try config.field("use_conv_bias").bool(or: true)
    tiesEmbedding = try config.field("tie_word_embeddings").bool(or: true)
    longest = limits.context
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    let rows = try options.rows(longest: longest)
    let (length, wanted) = (Symbol("T", in: 1...rows), Symbol("L", in: 1...rows))
    // Old checkpoints call the table `embedding`.
    let table = tensors["backbone.embedding.weight"] == nil ? "backbone.embeddings" : "backbone.embedding"
    var it = ModuleEmitter(name: "main", role: "main", symbols: [length, wanted], model: model, tensors: tensors)
    let tokens = it.builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    let position = it.builder.input("position", TensorType(.i32, [1]))
    let states = (0..<layers).map { layer in
      (
        it.builder.state("conv\(layer)", TensorType(.f32, [taps - 1, inner])),
        it.builder.state("scan\(layer)", TensorType(.f32, [inner, stateSize]))
      )
    }
    it.at(table)
    let embedding = try it.weight(table + ".weight", [vocabulary, width])
    var x = try it.emit(Gather(axis: 0, type: .f32), embedding, tokens, name: "x")
    for layer in 0..<layers {
      let prefix = "backbone.layers.\(layer)"
      let n = try it.norm(x, NormModule("\(prefix).norm", epsilon: epsilon), width)
      let (conv, scan) = states[layer]
      let mixed = try mix(n, "\(prefix).mixer", conv, scan, position, layer, &it)
      x = try it.emit(Add(), x, mixed)
    }
    it.at("backbone.norm_f")
    x = try it.emit(Slice(axis: 0, start: .symbol(length) - .symbol(wanted), size: .symbol(wanted)), x)
    x = try it.norm(x, NormModule("backbone.norm_f", epsilon: epsilon), width)
    it.at("lm_head")
    if tiesEmbedding { it.tensors.ignore("lm_head.weight") }
    let head = tiesEmbedding ? embedding : try it.weight("lm_head.weight", [vocabulary, width])
    it.builder.output("logits", try it.emit(MatMul(transposeB: true), x, head, name: "logits"))
    it.finish(&model, &tensors)
    model[metadata: "vocabulary"] = "\(vocabulary)"
    model[metadata: "layers"] = "\(layers)"
    model[metadata: "context"] = "\(rows)"
  }

  private func mix(
    _ x: ValueID, _ module: String, _ conv: ValueID, _ scan: ValueID, _ position: ValueID, _ layer: Int,
    _ it: inout ModuleEmitter
  ) throws -> ValueID {
    let both = try it.linear(x, LinearModule(module + ".in_proj", bias: hasBias), width, 2 * inner)
    it.at(module + ".conv1d")
    let hidden = try it.emit(Slice(axis: 1, start: 0, size: .fixed(inner)), both)
    let gate = try it.emit(Slice(axis: 1, start: .fixed(inner), size: .fixed(inner)), both)
    let stored = try it.wideWeight(module + ".conv1d.weight", [inner, 1, taps])
    let filter = try it.emit(Transpose([1, 0]), it.emit(Reshape([.fixed(inner), .fixed(taps)]), stored))
    let bias = try hasConvBias ? [it.wideWeight(module + ".conv1d.bias", [inner])] : []
    let convolved = try it.builder.emitAll(
      CausalConv(activation: .silu), [conv, hidden, filter, position] + bias, names: ["conv\(layer)_new", "u"])
    it.builder.graph.setUpdate(ofState: 2 * layer, to: convolved[0])
    let u = convolved[1]

    let parts = try it.linear(u, LinearModule(module + ".x_proj", bias: false), inner, rank + 2 * stateSize)
    let steps = try it.emit(Slice(axis: 1, start: 0, size: .fixed(rank)), parts)
    let b = try it.emit(Slice(axis: 1, start: .fixed(rank), size: .fixed(stateSize)), parts)
    let c = try it.emit(Slice(axis: 1, start: .fixed(rank + stateSize), size: .fixed(stateSize)), parts)
    let dt = try it.emit(Softplus(), it.linear(steps, LinearModule(module + ".dt_proj", bias: true), rank, inner))
    it.at(module)
    let a = try it.emit(Negate(), it.emit(Exp(), it.wideWeight(module + ".A_log", [inner, stateSize])))
    let d = try it.wideWeight(module + ".D", [inner])
    let scanned = try it.builder.emitAll(
      SelectiveScan(), [scan, u, dt, a, b, c, d, position], names: ["scan\(layer)_new", "y"])
    it.builder.graph.setUpdate(ofState: 2 * layer + 1, to: scanned[0])
    let gated = try it.emit(Multiply(), scanned[1], it.emit(SiLU(), gate))
    return try it.linear(gated, LinearModule(module + ".out_proj", bias: hasBias), inner, width)
  }
}
