import Base
import IR
import Tensors

/// Rounds the weights of layers to formats of their own, so that the whole model loses least within a budget.
///
///     %y = matmul(%x, %w) {transposeB = true}, one for each layer
///     // -> as quantize{spec=...}, with another spec for each
///
/// `bits` bounds the mean bits of a weight of the layers and tables that are rounded, scales included; `bytes` the bytes of all
/// constants of the model. `formats` are the candidates, in the spelling of `quantize`. A unit is a weight that is stored on its own,
/// such as the stacked rows of queries, keys and values; the activations are rounded as the first format says.
///
/// The loss of a unit in a format is `c tr(D H D^T)`, with `D` the change of the weight by rounding to nearest and `H` the sum of
/// `x x^T` over the layer's inputs on the samples; a table that is only gathered from has `H = 1`. The factor `c` is by `score`:
///
/// - `divergence`: the divergence of the next token's distribution (of a network without logits the relative square error of its
///   last output) when this unit alone is rounded to the candidate of fewest bits, over its `tr(D H D^T)`: a second-order model
///   whose curvature is measured;
/// - `error`: the reciprocal of `tr(W H W^T)`, the relative error of the layer's results, without further runs.
///
/// Losses are taken to add up; the best choice is found by ``BudgetedChoice``. With `generations` above 0 it is then improved by
/// evolution: of `offspring` copies, in each of which one unit takes more bytes and others less, the one with the least divergence of the
/// whole model survives if it beats its parent.
package struct AllocateBits: TokenSampled {
  package static let name = "allocate-bits"
  package static let summary = "gives each layer the format with which the whole model loses least within a budget"
  package static let legality = "where quantize may act; for models of one function"
  package static let source =
    "J. Xin and others, BAQ, 2025, arXiv:2506.05664 (losses from Hessians); O. Sieberling and others, EvoPress, 2024, "
    + "arXiv:2410.14649 (evolution)"

  /// How the losses of layers are weighed against each other.
  package enum Score: String, Codable, Hashable, Sendable, CaseIterable {
    case divergence, error
  }

  package var text: String = ""
  /// Windows; nil for 8 or as many as there are.
  package var samples: Int?
  package var length: Int? = 256
  /// The mean bits of a weight.
  package var bits: Double?
  /// The bytes of all constants.
  package var bytes: Int?
  package var formats: [QuantizationSpec] = AllocateBits.usualFormats
  package var score: Score = .divergence
  package var generations: Int = 0
  package var offspring: Int = 8
  package var seed: Int = 0

  private static let usualSamples = 8

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
    var runs = try windows(for: model, context, "bits are allocated")
    if samples == nil, runs.count > Self.usualSamples {
      let all = runs
      runs = (0..<Self.usualSamples).map { all[$0 * all.count / Self.usualSamples] }
    }
    var search = try BitSearch(self, model, runs)
    let specs = try search.run(&context)
    try QuantizeWeights(formats[0]).quantize(&model, function: 0, &context, specs: specs)
    model[metadata: "quantization"] = "mixed"
  }

  private func check() throws {
    func expect(_ holds: Bool, _ text: @autoclosure () -> String) throws {
      guard holds else { throw CompileError(.usage, text()) }
    }
    try expect(!text.isEmpty, "allocate-bits needs a text: allocate-bits{text=\"FILE\"}")
    try expect((bits == nil) != (bytes == nil), "allocate-bits needs 'bits' or 'bytes', one of them")
    if let bits {
      try expect(bits > 0 && bits <= 16, "'bits' of the pass 'allocate-bits' is \(bits), expected up to 16")
    }
    if let bytes { try expect(bytes > 0, "'bytes' of the pass 'allocate-bits' is \(bytes), expected at least 1") }
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
