import Base
import IR
import Tensors

/// The search of ``AllocateBits`` on one model.
struct BitSearch {
  /// What scores and measurements say of the layers.
  struct Findings {
    /// What each format of each layer costs and loses.
    var units: [[BudgetedChoice.Option]] = []
    var pairs: [BitSteps.Pair] = []
  }

  let options: AllocateBits
  let model: Model
  let samples: [FunctionInputs]
  /// The weights that are stored on their own, and what is known of them.
  let weights: [ValueID]
  var layers: [LayerStatistics]
  /// The distance from the original model; nil without samples.
  private let distance: OutputDistance?

  init(_ options: AllocateBits, _ model: Model, _ samples: [FunctionInputs]) throws {
    self.options = options
    self.model = model
    self.samples = samples
    var copy = model
    var context = PassContext()
    let found = try QuantizeWeights(options.formats[0]).quantize(&copy, function: 0, &context)
    let graph = model.functions[0]
    var seen: Set<ValueID> = []
    var weights: [ValueID] = [], layers: [LayerStatistics] = []
    for unit in found {
      let sizes = graph.type(of: unit.weight).shape.maximumSizes
      guard seen.insert(unit.weight).inserted, sizes.count >= 2 else { continue }
      let isStored = graph.users(of: unit.weight).allSatisfy { (graph[$0].op as? MatMul)?.transposeB ?? true }
      let columns = isStored ? sizes[sizes.count - 1] : sizes[sizes.count - 2]
      weights.append(unit.weight)
      layers.append(
        LayerStatistics(name: unit.name, rows: sizes.reduce(1, *) / max(1, columns), columns: columns))
    }
    guard !layers.isEmpty else {
      throw CompileError(.unsupported, "there is no weight that could be rounded", subject: .init(object: graph.name))
    }
    self.weights = weights
    self.layers = layers
    distance = samples.isEmpty ? nil : try OutputDistance(model, samples)
  }

  /// The format of each layer, by the name of its weight.
  mutating func run(_ context: inout PassContext) throws -> [String: QuantizationSpec] {
    let found = try findings(&context)
    if options.trials > 0 { try judge(found, &context) }
    if options.search == .closedForm {
      let gain = ClosedFormBits(layers, found.units).gain
      context.report("gain", gain)
      context.remark(
        "giving bits to layers is worth a factor of \(Self.rounded(gain, 2)): the arithmetic over the geometric mean of what a weight "
          + "of each would lose at equal bits")
    }
    var choice = try choice(found, &context)
    if options.generations > 0 {
      let first = choice
      try evolve(&choice, found.units, &context)
      // As many bytes may take more room in the program.
      if let size = options.size, choice != first, try programBytes(choice, context) > size { choice = first }
    }
    for index in choice { context.count("\(options.formats[index])") }
    let bytes = self.bytes(choice, found.units)
    context.report("bits", Double(8 * bytes) / Double(max(1, weightCount)))
    let specs = self.specs(choice)
    if distance != nil { context.report("divergence", try divergence(specs)) }
    return specs
  }

  /// Improves a choice by changes that take no more bytes.
  private func evolve(
    _ choice: inout [Int], _ units: [[BudgetedChoice.Option]], _ context: inout PassContext
  ) throws {
    let evolution = BitEvolution(
      generations: options.generations, offspring: options.offspring,
      seed: UInt64(truncatingIfNeeded: options.seed))
    let progress = context.progress
    let losses = try evolution.improve(&choice, units) {
      progress?.update("evolving", done: $0, of: options.generations)
    } measure: {
      try divergence(specs($0))
    }
    context.count("generations that improved", by: zip(losses, losses.dropFirst()).count { $0 > $1 })
  }

  func specs(_ choice: [Int]) -> [String: QuantizationSpec] {
    Dictionary(zip(layers.map(\.name), choice.map { options.formats[$0] }), uniquingKeysWith: { first, _ in first })
  }

  func bytes(_ choice: [Int], _ units: [[BudgetedChoice.Option]]) -> Int {
    zip(choice, units).reduce(0) { $0 + $1.1[$1.0].bytes }
  }

  private static func rounded(_ value: Double, _ digits: Int) -> Double {
    let factor = (0..<digits).reduce(1.0) { factor, _ in factor * 10 }
    return (value * factor).rounded() / factor
  }

  // MARK: Budget

  private var weightCount: Int { layers.reduce(0) { $0 + $1.count } }

  /// Bytes of the constants that stay as they are.
  private var otherBytes: Int {
    let graph = model.functions[0]
    var taken: Set<ConstantID> = []
    var stack = weights
    while let value = stack.popLast() {
      if let constant = graph.constant(of: value) { taken.insert(constant) }
      if let node = graph.definingNode(of: value) { stack += graph[node].inputs }
    }
    var seen: Set<ConstantID> = []
    var sum = 0
    for value in graph.valueIDs {
      guard let constant = graph.constant(of: value), !taken.contains(constant), seen.insert(constant).inserted else {
        continue
      }
      sum += model.constants[constant].type.maximumByteCount
    }
    return sum
  }

  /// The option of each layer.
  private func choice(_ found: Findings, _ context: inout PassContext) throws -> [Int] {
    if let bound = options.accept { return try choice(found, within: bound, &context) }
    if let size = options.size { return try choice(found, size: size, &context) }
    let budget = options.bits.map { Int($0 * Double(weightCount) / 8) } ?? (options.bytes ?? 0) - otherBytes
    if let choice = choose(found, budget) { return choice }
    let least = BudgetedChoice.least(found.units)
    if let bits = options.bits {
      let bytesPerBit = Double(max(1, weightCount)) / 8
      throw Self.tooSmall("\(bits) bits", "\((Double(least) / bytesPerBit * 100).rounded(.up) / 100) bits")
    }
    throw Self.tooSmall("\(options.bytes ?? 0) bytes", "\(least + otherBytes) bytes")
  }

  private static func tooSmall(_ budget: String, _ least: String) -> CompileError {
    CompileError(
      .usage, "the budget of \(budget) cannot be met", notes: ["the least that these formats give is \(least)"])
  }

  /// The best that a search finds within a budget of bytes for the layers; nil if it is below what they need.
  private func choose(_ found: Findings, _ budget: Int) -> [Int]? {
    switch options.search {
    case .dynamic: return BudgetedChoice.choose(found.units, budget: budget)
    case .closedForm: return ClosedFormBits(layers, found.units).choose(layers, found.units, budget: budget)
    case .steps: return BitSteps(found.units, pairs: found.pairs).choice(found.units, budget: budget)
    }
  }

  /// The best whose program takes at most `size` bytes: what it takes beside the bytes of layers is measured, and made
  /// up for.
  private func choice(_ found: Findings, size: Int, _ context: inout PassContext) throws -> [Int] {
    func loss(_ choice: [Int]) -> Double { zip(choice, found.units).reduce(0) { $0 + $1.1[$1.0].loss } }
    var best = found.units.map { options in
      options.indices.min { options[$0].bytes < options[$1].bytes } ?? 0
    }
    var stored = try programBytes(best, context)
    let least = stored
    guard least <= size else { throw Self.tooSmall("\(size) bytes", "\(least) bytes") }
    var other = stored - bytes(best, found.units)
    var tried: Set<Int> = []
    for _ in 0..<Self.trials where tried.insert(other).inserted {
      guard let choice = choose(found, size - other) else {
        other = min(other - 1, size - BudgetedChoice.least(found.units))
        continue
      }
      let taken = try programBytes(choice, context)
      if taken <= size, loss(choice) < loss(best) { (best, stored) = (choice, taken) }
      // Above the size the excess alone counts, as a choice may leave something over.
      other = taken > size ? other + taken - size : taken - bytes(choice, found.units)
    }
    context.report("size", Double(stored))
    context.remark("weights and tokenizer take \(stored) of at most \(size) bytes")
    return best
  }

  /// The bytes that a choice takes in a program.
  private func programBytes(_ choice: [Int], _ context: PassContext) throws -> Int {
    guard let measure = context.programBytes else {
      throw CompileError(
        .usage, "the sizes of programs cannot be measured here", notes: ["name 'bits' or 'bytes' instead"])
    }
    var copy = model
    var own = PassContext()
    try QuantizeWeights(options.formats[0]).quantize(&copy, function: 0, &own, specs: specs(choice))
    return try measure(copy)
  }

  /// How often a size is measured.
  private static let trials = 12

  /// The smallest whose divergence is measured to be within a bound.
  private func choice(_ found: Findings, within bound: Double, _ context: inout PassContext) throws -> [Int] {
    let steps = BitSteps(found.units, pairs: found.pairs)
    var count = 0
    var least = 0.0, reached = 0.0
    let choice = try steps.furthest(within: bound) { choice in
      context.progress?.update("bisecting", done: count, of: max(1, count + 1))
      let distance = try divergence(specs(choice))
      if count == 0 { least = distance }
      if distance <= bound { reached = distance }
      count += 1
      return distance
    }
    guard let choice else {
      throw CompileError(
        .usage, "the divergence cannot be kept within \(bound)",
        notes: ["the best that these formats give is \(least) on the samples, before codes are chosen"])
    }
    context.count("choices measured", by: count)
    context.remark(
      "the smallest choice within a divergence of \(bound) has \(reached) on the samples, of \(count) that were measured"
    )
    return choice
  }

  // MARK: The whole model

  /// The divergence from the original with these formats; `alone` leaves all other weights as they are.
  func divergence(_ specs: [String: QuantizationSpec], alone: Bool = false) throws -> Double {
    guard let distance else { throw CompileError(.internal, "a divergence without samples") }
    var copy = model
    var context = PassContext()
    var pass = QuantizeWeights(options.formats[0])
    if alone {
      pass.spec.activationBits = 32
      pass.spec.weights = .f32
    }
    try pass.quantize(&copy, function: 0, &context, specs: specs)
    return try distance(copy)
  }

  /// The distance from the original with some layers rounded to formats by their index.
  func measure(_ formats: [Int: Int]) throws -> Double {
    var specs: [String: QuantizationSpec] = [:]
    for (layer, format) in formats { specs[layers[layer].name] = options.formats[format] }
    return try divergence(specs, alone: true)
  }

  /// Says how well the losses tell the divergence of random choices.
  private func judge(_ found: Findings, _ context: inout PassContext) throws {
    var generator = SplitMix64(seed: UInt64(truncatingIfNeeded: options.seed))
    var predicted: [Double] = [], measured: [Double] = []
    for trial in 0..<options.trials {
      context.progress?.update("measuring random choices", done: trial, of: options.trials)
      let choice = found.units.map { generator.int(below: $0.count) }
      predicted.append(zip(choice, found.units).reduce(0) { $0 + $1.1[$1.0].loss })
      measured.append(try divergence(specs(choice)))
    }
    let correlation = rankCorrelation(predicted, measured)
    context.report("rank correlation", correlation)
    context.remark(
      "the rank correlation of the score '\(options.score)' with the divergence of \(options.trials) random choices is "
        + "\(Self.rounded(correlation, 3))")
  }
}
