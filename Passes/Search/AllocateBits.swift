import Base
import IR
import Tensors

/// Rounds the weights of layers to formats of their own, so that the whole model loses least within a budget.
///
///     %y = matmul(%x, %w) {transposeB = true}, one for each layer
///     // -> as quantize{spec=...}, with another spec for each
///
/// `bits` bounds the mean bits of a weight of the layers and tables that are rounded, scales included; `bytes` the
/// bytes of all constants of the model; `size` what weights and tokenizer take in the program; with `accept` the choice
/// is the smallest whose divergence on the samples is at most that. `formats` are the candidates, in the spelling of
/// `quantize`. A unit is a weight that is stored on its own, such as the stacked rows of queries, keys and values, or
/// all experts of a layer; the activations are rounded as the first format says.
///
/// What a unit loses in a format is by `score`, from the change `D` of its weight `W` by rounding to nearest and the
/// sum `H` of `x x^T` over the layer's inputs on the samples, of an expert over what is routed to it; a table that is
/// only gathered from has `H = 1`:
///
/// - `divergence`: `c tr(D H D^T)`, with `c` the divergence of the next token's distribution (of a network without
///   logits the relative square error of its last output) when this unit alone is rounded to the candidate of most
///   error, over its `tr(D H D^T)`: a second-order model whose curvature is measured;
/// - `error`: `tr(D H D^T) / tr(W H W^T)`, the relative error of the layer's results, without further runs;
/// - `lim`, `entropy`: the same times how far the block turns what it adds to, or the entropy of the inputs;
/// - `zd`: `tr(D D^T) / tr(W W^T)` over the share of weights far above the mean, which needs no text;
/// - a formula over such figures (``ScoreExpression``), such as `"error / energy * range^2"`.
///
/// Losses are taken to add up. `search` says how a choice is found: `dynamic` is the best for the losses
/// (``BudgetedChoice``), `closedForm` rounds the bits that equalize losses (``ClosedFormBits``), `steps` goes down from
/// the best formats (``BitSteps``), which `accept` does as well. With `pairs` the divergence of each unit together with
/// so many next ones is measured and counts in `steps`. `trials` says how the losses of so many random choices agree in
/// order with the divergence that is measured of them. With `generations` above 0 the choice is then improved by
/// evolution: of `offspring` copies, in each of which one unit takes more bytes and others less, the one with the least
/// divergence of the whole model survives if it beats its parent.
package struct AllocateBits: TokenSampled {
  package static let name = "allocate-bits"
  package static let summary = "gives each layer the format with which the whole model loses least within a budget"
  package static let legality = "where quantize may act; for models of one function"
  package static let source =
    "J. Xin and others, BAQ, 2025, arXiv:2506.05664 (closed form); O. Sieberling and others, EvoPress, 2024, "
    + "arXiv:2410.14649 (evolution); R.-G. Dumitru and others, 2024, arXiv:2406.17415 (lim, zd)"

  /// How a choice is found.
  package enum Search: String, Codable, Hashable, Sendable, CaseIterable {
    case dynamic, closedForm, steps
  }

  package var text: String = ""
  /// Windows; nil for 8 or as many as there are.
  package var samples: Int?
  package var length: Int? = 256
  /// The mean bits of a weight.
  package var bits: Double?
  /// The bytes of all constants.
  package var bytes: Int?
  /// The bytes of weights and tokenizer in the program.
  package var size: Int?
  /// The divergence from the original that is not to be exceeded.
  package var accept: Double?
  package var formats: [QuantizationSpec] = AllocateBits.usualFormats
  package var score: Score = .divergence
  package var search: Search = .dynamic
  /// With how many of the next units each is measured together.
  package var pairs: Int = 0
  /// Random choices that the losses are held against.
  package var trials: Int = 0
  package var generations: Int = 0
  package var offspring: Int = 8
  package var seed: Int = 0

  /// The least samples that are usual, and the tokens that they hold at least where there are so many.
  private static let usualSamples = 8
  private static let usualTokens = 2048

  /// Two to eight bits, with zero points where they help, in groups that trade scales for codes.
  package static let usualFormats: [QuantizationSpec] =
    [2, 3, 4, 5, 6].flatMap { bits in
      [32, 64, 128].map { group in
        var spec = QuantizationSpec(weights: .init(rawValue: "\(bits)") ?? .bits4, group: group, activationBits: 8)
        spec.hasZeroPoints = bits < 6
        return spec
      }
    } + [QuantizationSpec(weights: .bits8, group: 32, activationBits: 8)]

  package init() {}

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    try check()
    var runs: [FunctionInputs] = []
    if !text.isEmpty {
      runs = try windows(for: model, context, "bits are allocated")
    } else if model.functions.count != 1 {
      throw CompileError(.unsupported, "bits are allocated for models of one function, found \(model.functions.count)")
    }
    if samples == nil { runs = Self.some(of: runs) }
    var search = try BitSearch(self, model, runs)
    let specs = try search.run(&context)
    try QuantizeWeights(formats[0]).quantize(&model, function: 0, &context, specs: specs)
    model[metadata: "quantization"] = Self.description(of: specs)
  }

  /// As many samples as are usual, spread evenly: of short lines more than of windows.
  private static func some(of all: [FunctionInputs]) -> [FunctionInputs] {
    let tokens = all.reduce(0) { sum, run in
      guard let first = run.inputs.first, first.type.element.isInteger, first.view.sizes.count == 1 else { return sum }
      return sum + first.view.sizes[0]
    }
    let each = max(1, tokens / max(1, all.count))
    let count = tokens > 0 ? max(usualSamples, usualTokens / each) : usualSamples
    return all.spread(count)
  }

  /// The formats with how many weights have them, the most used first: `14 w5g64za8, 4 w6g64a8`.
  static func description(of specs: [String: QuantizationSpec]) -> String {
    var counts: [QuantizationSpec: Int] = [:]
    for spec in specs.values { counts[spec, default: 0] += 1 }
    let order = counts.sorted { ($1.value, $0.key.description) < ($0.value, $1.key.description) }
    return order.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
  }

  private func check() throws {
    func expect(_ holds: Bool, _ text: @autoclosure () -> String) throws {
      guard holds else { throw CompileError(.usage, text()) }
    }
    let measures = accept != nil || pairs > 0 || trials > 0 || generations > 0
    try expect(
      !text.isEmpty || score.needsNoSamples && !measures, "allocate-bits needs a text: allocate-bits{text=\"FILE\"}")
    let bounds = [bits != nil, bytes != nil, size != nil, accept != nil]
    try expect(
      bounds.count { $0 } == 1, "allocate-bits needs 'bits', 'bytes', 'size' or 'accept', one of them")
    if let bits {
      try expect(bits > 0 && bits <= 16, "'bits' of the pass 'allocate-bits' is \(bits), expected up to 16")
    }
    for (name, value) in [("bytes", bytes), ("size", size)] {
      try expect(value ?? 1 > 0, "'\(name)' of the pass 'allocate-bits' is \(value ?? 0), expected at least 1")
    }
    if let accept {
      try expect(
        accept >= 0 && accept.isFinite,
        "'accept' of the pass 'allocate-bits' is \(accept), expected a divergence from 0 on")
    }
    try expect(
      (0...1000).contains(pairs) && (0...10_000).contains(trials),
      "'pairs' and 'trials' of the pass 'allocate-bits' are \(pairs) and \(trials), expected 0 to 1000 and 0 to 10000")
    try expect(
      pairs == 0 || score == .divergence && (search == .steps || accept != nil),
      "'pairs' of the pass 'allocate-bits' are for the score 'divergence' with search=steps or 'accept'")
    try expect(!formats.isEmpty, "'formats' of the pass 'allocate-bits' names no format")
    for spec in formats {
      try expect(
        spec.weights.isQuantized, "'formats' of the pass 'allocate-bits' names \(spec), which does not quantize")
    }
    try expect(
      (0...10_000).contains(generations) && (1...1000).contains(offspring),
      "'generations' and 'offspring' of the pass 'allocate-bits' are \(generations) and \(offspring), expected up to 10000 and 1 to 1000"
    )
  }
}
