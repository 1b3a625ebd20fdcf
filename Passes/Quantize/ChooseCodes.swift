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
/// Layers are matmuls whose right factor is such a recipe and the products of experts, each with the tokens that are routed to
/// it; a table that is gathered from as well is chosen for the layer. Samples go through the graph node by node, all at once
/// (``SampleWalk``), so that the statistics of one layer exist at a time.
///
/// `text` is a text, which the model's tokenizer reads, or token ids (.npy, .npz); for networks without tokens an archive of
/// inputs. `samples` windows of `length` tokens are spread evenly over it. `damping`, `order`, `search` and `refinements` are
/// those of ``GPTQ``. `inputs` says whose inputs a layer is chosen for:
///
/// - `sequential`: those that the layers before give with the codes chosen for them, activations rounded as the graph says;
/// - `original`: those of the original model;
/// - `corrected`: as `sequential`, and the layer aims at its original results (as in Zhang and others, "Qronos", 2025);
/// - `stream`: as `corrected`, also for what is added to the results of the layer.
///
/// With `tokenWeight = attention` the tokens that receive more attention count more, `H = sum_t r_t^2 x_t x_t^T` (Sung and others,
/// "RSQ: learning from important tokens leads to better quantized LLMs", 2025): `r_t` grows from `leastWeight` to 1 with the
/// attention that a token receives from all queries and heads in the attention before the layer.
package struct ChooseCodes: TokenSampled {
  package static let name = "gptq"
  package static let summary = "chooses the codes of quantized weights by their effect on samples, as in GPTQ"
  package static let legality =
    "after quantize: where the right factor of a layer is a constant rounded to blocks; for models of one function"
  package static let source =
    "E. Frantar and others, 2023, arXiv:2210.17323; Y.-L. Sung and others, 2025, arXiv:2503.01820"

  /// Whose inputs a layer is chosen for.
  package enum Inputs: String, Codable, Hashable, Sendable, CaseIterable {
    case sequential, original, corrected, stream
  }

  /// What tokens count.
  package enum TokenWeight: String, Codable, Hashable, Sendable, CaseIterable {
    case none, attention
  }

  package var text: String = ""
  /// Windows; nil for 64 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for 512, or the context of the model if that is less.
  package var length: Int?
  package var damping: Double = 0.01
  package var order: GPTQ.Order = .group
  package var search: Bool = true
  package var refinements: Int = 2
  package var inputs: Inputs = .stream
  package var tokenWeight: TokenWeight = .none
  package var leastWeight: Double = 0.1

  package init() {}

  package init(text: String) { self.text = text }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    try check()
    let runs = try windows(for: model, context, "codes are chosen from samples")
    var work = try CodeChoice(self, model, runs)
    let spill = try SpillFile(path: context.spillPath, name: "\(model.name).codes")
    let layers = try work.run(spill, progress: context.progress)
    guard !layers.isEmpty else {
      return context.remark("no layer is quantized, so that there are no codes to choose")
    }
    let archive = model.addArchive(try spill.finish())
    for layer in layers { try replace(layer, &model, archive) }
    _ = model.functions[0].eraseDeadCode()

    context.count("weights chosen", by: layers.count)
    context.count("samples", by: runs.count)
    for layer in layers { context.report(layer.name, layer.relativeError) }
    let damped = layers.filter { $0.damping > damping }
    if let worst = damped.max(by: { $0.damping < $1.damping }) {
      context.remark(
        "the inputs of \(damped.count) layers depend on one another; up to \(worst.damping) of the mean of the diagonal "
          + "was added to it, at '\(worst.name)'")
    }
  }

  private func check() throws {
    func expect(_ holds: Bool, _ option: String, _ found: String, _ wanted: String) throws {
      guard holds else { throw CompileError(.usage, "'\(option)' of the pass 'gptq' is \(found), expected \(wanted)") }
    }
    guard !text.isEmpty else { throw CompileError(.usage, "gptq needs a text: gptq{text=\"FILE\"}") }
    if let samples { try expect(samples > 0, "samples", "\(samples)", "at least 1") }
    if let length { try expect(length > 0, "length", "\(length)", "at least 1") }
    try expect(damping >= 0 && damping <= 1, "damping", "\(damping)", "0 to 1")
    try expect((0...100).contains(refinements), "refinements", "\(refinements)", "0 to 100")
    try expect(leastWeight > 0 && leastWeight <= 1, "leastWeight", "\(leastWeight)", "more than 0, at most 1")
  }

  /// Puts a constant in the place of rounding.
  private func replace(_ layer: CodeChoice.Layer, _ model: inout Model, _ archive: Int) throws {
    let old = layer.codes
    let name = model.functions[0][old].name
    var type = model.functions[0].type(of: old)
    type.encoding = .block(layer.format)
    guard let node = model.functions[0].definingNode(of: old) else { return }
    let constant = model.constants.insert(Constant(name: name, type: type, source: .archive(archive, layer.range)))
    let new = model.functions[0].addConstant(constant, name, type)
    model.functions[0].replaceUses(of: old, with: new)
    model.functions[0].erase(node)
    model.functions[0].rename(new, to: name)
  }
}
