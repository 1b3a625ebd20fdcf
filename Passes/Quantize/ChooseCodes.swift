import Base
import IR
import Tensors

/// Chooses the codes of weights that are rounded to blocks from what they do to the results of their layers on samples
/// (``GPTQ``), where ``QuantizeWeights`` alone would round each to the nearest.
///
///     %c = quantize(%w) {format = ...}
///     %d = dequantize(%c)
///     %y = matmul(%x, %d) {transposeB = true}
///     // -> %c = constant of the same format, with codes and scales chosen for the numbers that %x has on the samples
///
/// Layers are matmuls whose right factor is such a recipe, convolutions, group by group with what their windows see,
/// and the products of experts, each with the tokens that are routed to it; a table that is gathered from as well is
/// chosen for the layer, and of one that is gathered from alone (`tables`) each group for the least square error.
/// Samples go through the graph node by node, all at once (``SampleWalk``), so that the statistics of one layer exist
/// at a time. The functions of a model follow one another, with the states that those before leave.
///
/// `text` is a text, which the model's tokenizer reads, or token ids (.npy, .npz); for networks without tokens an
/// archive of inputs. `samples` windows of `length` tokens are spread evenly over it; an encoder reads its lines.
/// `damping`, `order`, `search` and `refinements` are those of ``GPTQ``; `method = adaptive` rounds to the nearest
/// first and moves single codes then, instead of rounding column by column. `inputs` says whose inputs a layer is
/// chosen for:
///
/// - `sequential`: those that the layers before give with the codes chosen for them, activations rounded as the graph says;
/// - `original`: those of the original model;
/// - `corrected`: as `sequential`, and the layer aims at its original results (as in Zhang and others, "Qronos", 2025);
/// - `stream`: as `corrected`, also for what is added to the results of the layer.
///
/// With `bias` a layer with a bias of its own gets one with which its sums have the means that they have in the
/// original model (M. Nagel and others, "Data-free quantization through weight equalization and bias correction",
/// 2019).
///
/// With `means` above 0 the mean `m` of the `n` inputs of a sample counts beside them,
/// `H = sum_t x_t x_t^T + means sum_s n_s m_s m_s^T`: what the codes do to the mean of a layer's results, which models
/// whose embedding is the mean over a text are judged by, where errors of tokens that cancel do no harm.
///
/// With `tokenWeight = attention` the tokens that receive more attention count more, `H = sum_t r_t^2 x_t x_t^T` (Sung
/// and others, "RSQ: learning from important tokens leads to better quantized LLMs", 2025): `r_t` grows from
/// `leastWeight` to 1 with the attention that a token receives from all queries and heads in the attention before the
/// layer.
package struct ChooseCodes: TokenSampled {
  package static let name = "gptq"
  package static let summary = "chooses the codes of quantized weights by their effect on samples, as in GPTQ"
  package static let legality =
    "after quantize: where the right factor of a layer, or a table that rows are taken from, is a constant rounded to blocks"
  package static let source =
    "E. Frantar and others, 2023, arXiv:2210.17323; Y.-L. Sung and others, 2025, arXiv:2503.01820"

  /// Whose inputs a layer is chosen for.
  package enum Inputs: String, Codable, Hashable, Sendable, CaseIterable {
    case sequential, original, corrected, stream
  }

  /// What tokens count.
  package enum TokenWeight: String, Codable, Hashable, Sendable, CaseIterable { case none, attention }

  package var text: String = ""
  /// Windows; nil for 64 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for 512, or the context of the model if that is less.
  package var length: Int?
  package var method: GPTQ.Rounding = .gptq
  package var damping: Double = 0.01
  package var order: GPTQ.Order = .group
  package var search: Bool = true
  package var refinements: Int = 2
  package var inputs: Inputs = .stream
  package var tokenWeight: TokenWeight = .none
  package var leastWeight: Double = 0.1
  /// How much the mean of the rows of a sample counts beside them.
  package var means: Double = 0
  /// Whether biases make up for what the codes change in the means of the results, where the layer has one.
  package var bias: Bool = false
  /// Whether the codes of tables that are no layers are chosen as well.
  package var tables: Bool = true

  package init() {}

  package init(text: String) { self.text = text }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    try check()
    let runs = try windows(for: model, context)
    let key = try context.results.map { try ResultKey(withoutText, model, runs, $0.salt).text }
    var kept = try key.flatMap { try self.kept($0, model, context) }
    if let layers = kept?.layers { context.count("weights from the cache", by: layers.count) }
    if kept == nil {
      kept = try choose(model, runs, context)
      if let kept, let key { context.results?.keep(Self.result(kept), under: key) }
    }
    guard let (layers, file) = kept else {
      return context.remark("no layer is quantized, so that there are no codes to choose")
    }
    let archive = model.addArchive(file)
    for index in model.functions.indices { replace(layers, &model, function: index, archive) }

    context.count("weights chosen", by: layers.count)
    context.count("samples", by: runs.first?.count ?? 0)
    for layer in layers { context.report(layer.name, layer.relativeError) }
    let damped = layers.filter { $0.damping > damping }
    if let worst = damped.max(by: { $0.damping < $1.damping }) {
      context.remark(
        "the inputs of \(damped.count) layers depend on one another; up to \(worst.damping) of the mean of the diagonal "
          + "was added to it, at '\(worst.name)'")
    }
  }

  /// The layers with their codes in a file; nil if there are none.
  private func choose(
    _ model: Model, _ runs: [[FunctionInputs]], _ context: PassContext
  ) throws -> (layers: [CodeChoice.Layer], file: MappedFile)? {
    let spill = try SpillFile(path: context.spillPath, name: "\(model.name).codes")
    var layers: [CodeChoice.Layer] = []
    var taken: Set<RecipeIdentity> = []
    var remains = CodeChoice.Remains()
    for (index, graph) in model.functions.enumerated() {
      let goesOn = index < model.functions.count - 1
      var work = try CodeChoice(self, model, graph, runs[index], from: remains, keepsStates: goesOn)
      layers += try work.run(spill, taken: &taken, keepsStates: goesOn, progress: context.progress)
      if goesOn { remains = try work.remains() }
    }
    return layers.isEmpty ? nil : (layers, try spill.finish())
  }

  private func check() throws {
    func expect(_ holds: Bool, _ option: String, _ found: String, _ wanted: String) throws {
      guard holds else { throw CompileError(.usage, "'\(option)' of the pass 'gptq' is \(found), expected \(wanted)") }
    }
    guard !text.isEmpty else { throw CompileError(.usage, "gptq needs a text: gptq{text=\"FILE\"}") }
    if let samples { try expect(samples > 0, "samples", "\(samples)", "at least 1") }
    if let length { try expect(length > 0, "length", "\(length)", "at least 1") }
    try expect(damping >= 0 && damping <= 1, "damping", "\(damping)", "0 to 1")
    try expect(means >= 0 && means <= 1e6, "means", "\(means)", "0 to 1000000")
    try expect((0...100).contains(refinements), "refinements", "\(refinements)", "0 to 100")
    try expect(leastWeight > 0 && leastWeight <= 1, "leastWeight", "\(leastWeight)", "more than 0, at most 1")
  }

  /// Puts constants in the place of rounding wherever a function rounds what was chosen.
  private func replace(_ layers: [CodeChoice.Layer], _ model: inout Model, function index: Int, _ archive: Int) {
    let places = Dictionary(
      layers.compactMap { layer in layer.identity.map { ($0, layer) } }, uniquingKeysWith: { first, _ in first })
    for node in model.functions[index].topologicalOrder() where model.functions[index][node].op is Quantize {
      let graph = model.functions[index]
      let old = graph[node].results[0]
      guard let layer = RecipeIdentity(old, in: graph).flatMap({ places[$0] }) else { continue }
      let name = graph[old].name
      var type = graph.type(of: old)
      type.encoding = .block(layer.format)
      let constant = model.constants.insert(
        Constant(name: layer.codesName, type: type, source: .archive(archive, layer.range)))
      let new = model.functions[index].addConstant(constant, name, type)
      model.functions[index].replaceUses(of: old, with: new)
      model.functions[index].erase(node)
      model.functions[index].rename(new, to: name)
    }
    for case (let layer, let term?) in layers.map({ ($0, $0.bias) })
    where layer.function == model.functions[index].name {
      guard let old = model.functions[index].value(named: term.name) else { continue }
      let type = model.functions[index].type(of: old)
      let constant = model.constants.insert(
        Constant(name: term.name, type: type, source: .archive(archive, term.range)))
      let new = model.functions[index].addConstant(constant, term.name, type)
      model.functions[index].replaceUses(of: old, with: new)
    }
    _ = model.functions[index].eraseDeadCode()
  }
}
