import Base
import IR
import Tensors

/// The search of ``AllocateBits`` on one model.
struct BitSearch {
  /// Rows of a weight whose errors stand for all.
  private static let rows = 256

  /// A weight with what each format costs and loses.
  private struct Unit {
    var name: String
    var weight: ValueID
    /// Rows and columns as stored, rows of all experts together.
    var rows, columns: Int
    var options: [BudgetedChoice.Option] = []
    /// `tr(W H W^T)`.
    var energy = 0.0

    var count: Int { rows * columns }
  }

  private let options: AllocateBits
  private let model: Model
  private let samples: [FunctionInputs]
  private var units: [Unit]
  /// The distance from the original model.
  private let distance: OutputDistance

  init(_ options: AllocateBits, _ model: Model, _ samples: [FunctionInputs]) throws {
    self.options = options
    self.model = model
    self.samples = samples
    var copy = model
    var context = PassContext()
    let found = try QuantizeWeights(options.formats[0]).quantize(&copy, function: 0, &context)
    let graph = model.functions[0]
    var seen: Set<ValueID> = []
    units = found.compactMap { unit in
      let sizes = graph.type(of: unit.weight).shape.maximumSizes
      guard seen.insert(unit.weight).inserted, sizes.count >= 2 else { return nil }
      let isStored = graph.users(of: unit.weight).allSatisfy { (graph[$0].op as? MatMul)?.transposeB ?? true }
      let columns = isStored ? sizes[sizes.count - 1] : sizes[sizes.count - 2]
      return Unit(
        name: unit.name, weight: unit.weight, rows: sizes.reduce(1, *) / max(1, columns), columns: columns)
    }
    guard !units.isEmpty else {
      throw CompileError(.unsupported, "there is no weight that could be rounded", subject: .init(object: graph.name))
    }
    distance = try OutputDistance(model, samples)
  }

  /// The format of each unit.
  mutating func run(_ context: inout PassContext) throws -> [String: QuantizationSpec] {
    let budget = try budget()
    try findLosses(&context)
    let table = units.map(\.options)
    guard var choice = BudgetedChoice.choose(table, budget: budget) else {
      let least = BudgetedChoice.least(table)
      throw CompileError(
        .usage,
        options.bits.map { "the budget of \($0) bits cannot be met" }
          ?? "the budget of \(options.bytes ?? 0) bytes cannot be met",
        notes: [
          "the least that these formats give is \(options.bits == nil ? "\(least + otherBytes) bytes" : "\(Self.hundredths(Double(8 * least) / Double(max(1, weightCount)))) bits")"
        ])
    }
    if options.generations > 0 { try evolve(&choice, budget, &context) }
    var specs: [String: QuantizationSpec] = [:]
    var bytes = 0
    for (unit, index) in zip(units, choice) {
      specs[unit.name] = options.formats[index]
      bytes += unit.options[index].bytes
      context.count("\(options.formats[index].description)")
    }
    context.report("bits", Double(8 * bytes) / Double(max(1, weightCount)))
    context.report("divergence", try divergence(specs))
    return specs
  }

  private static func hundredths(_ value: Double) -> Double { (value * 100).rounded(.up) / 100 }

  // MARK: Budget

  private var weightCount: Int { units.reduce(0) { $0 + $1.count } }

  /// Bytes of the constants that stay as they are.
  private var otherBytes: Int {
    let names = Set(units.map(\.weight))
    let graph = model.functions[0]
    var taken: Set<ConstantID> = []
    var stack = Array(names)
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

  private func budget() throws -> Int {
    if let bits = options.bits { return Int(bits * Double(weightCount) / 8) }
    return (options.bytes ?? 0) - otherBytes
  }

  // MARK: Losses

  /// Fills in what each format costs and loses: as it was kept, else measured. Neither depends on the budget.
  private mutating func findLosses(_ context: inout PassContext) throws {
    var pass = options
    pass.text = ""
    (pass.samples, pass.length, pass.bits, pass.bytes) = (nil, nil, nil, nil)
    (pass.generations, pass.offspring, pass.seed) = (0, 1, 0)
    let key = try context.results.map { try ResultKey(pass, model, [samples], $0.salt).text }
    if let key, let result = context.results?.find(key), let known = losses(in: result.facts) {
      for index in units.indices { units[index].options = known[index] }
      return context.count("losses from the cache", by: units.count)
    }
    try measureErrors(context.progress)
    try weigh(context.progress)
    if let key { context.results?.keep(CachedResult(facts: facts), under: key) }
  }

  /// The losses of all units; numbers by their bits, of which none gets lost in text.
  private var facts: JSON {
    let units = self.units.map { unit -> JSON in
      let options = unit.options.map { option -> JSON in
        ["bytes": .int(option.bytes), "loss": .string("\(option.loss.bitPattern)")]
      }
      return ["name": .string(unit.name), "options": .array(options)]
    }
    return ["units": .array(units)]
  }

  /// What ``facts`` say, if that is of these units.
  private func losses(in facts: JSON) -> [[BudgetedChoice.Option]]? {
    guard let entries = facts["units"]?.array, entries.map({ $0["name"]?.string }) == units.map(\.name) else {
      return nil
    }
    var losses: [[BudgetedChoice.Option]] = []
    for entry in entries {
      let found = (entry["options"]?.array ?? []).compactMap { option -> BudgetedChoice.Option? in
        guard let bytes = option["bytes"]?.int, bytes >= 0,
          let loss = option["loss"]?.string.flatMap({ UInt64($0) }).map({ Double(bitPattern: $0) }), !loss.isNaN
        else { return nil }
        return BudgetedChoice.Option(bytes: bytes, loss: loss)
      }
      guard found.count == options.formats.count else { return nil }
      losses.append(found)
    }
    return losses
  }

  /// Walks through the graph and fills in what each format costs and the error of its rounding.
  private mutating func measureErrors(_ progress: Progress?) throws {
    let graph = model.functions[0]
    var walk = try SampleWalk(model, graph, samples)
    var users: [NodeID: Int] = [:]
    for (index, unit) in units.enumerated() {
      for user in graph.users(of: unit.weight) where graph[user].op is MatMul || graph[user].op is ExpertMatMul {
        users[user] = index
      }
    }
    let isProduct = Set(users.values)
    for index in units.indices where !isProduct.contains(index) { try measure(index, gram: nil, &walk) }
    var done: Set<Int> = []
    while let id = walk.next {
      progress?.update("measuring layers", done: walk.step, of: walk.order.count)
      if let index = users[id], done.insert(index).inserted {
        let rows = try walk.rows(of: graph[id].inputs[0], columns: units[index].columns)
        try measure(index, gram: ProductSums.gram(rows, columns: units[index].columns), &walk)
      }
      if done.count == isProduct.count { break }
      try walk.advance()
    }
  }

  /// Fills in the options of a unit: `tr(D H D^T)` of some rows, for all.
  private mutating func measure(_ index: Int, gram: [Double]?, _ walk: inout SampleWalk) throws {
    let unit = units[index]
    let tensor = try walk.recipe(unit.weight).floats()
    let numbers = tensor.view.elements(as: Float.self)
    // The rows of a weight that is not stored by output column are its columns.
    let (across, along) = tensor.view.sizes.last == unit.columns ? (unit.columns, 1) : (1, unit.rows)
    let picked = Self.spread(unit.rows, Self.rows)
    let hessian = gram?.map { Float($0) }
    let share = Double(unit.rows) / Double(max(1, picked.count))
    var weights = [Float](repeating: 0, count: picked.count * unit.columns)
    for (place, row) in picked.enumerated() {
      for column in 0..<unit.columns { weights[place * unit.columns + column] = numbers[row * across + column * along] }
    }
    units[index].energy = share * Self.form(weights, hessian, unit.columns)
    units[index].options = try options.formats.map { spec in
      var format = spec.weightFormat ?? .w8c
      if spec.weights.isFitted {
        format = try weights.withUnsafeBufferPointer { try format.fitted(to: $0, columns: unit.columns) }
      }
      var changes = weights
      var codes = [UInt8](repeating: 0, count: format.rowBytes(columns: unit.columns))
      var back = [Float](repeating: 0, count: unit.columns)
      for place in picked.indices {
        let first = place * unit.columns
        weights.withUnsafeBufferPointer { source in
          guard let start = source.baseAddress else { return }
          codes.withUnsafeMutableBytes { target in
            if let base = target.baseAddress { format.quantizeRow(start + first, columns: unit.columns, into: base) }
          }
        }
        codes.withUnsafeBytes { source in
          back.withUnsafeMutableBufferPointer { target in
            if let from = source.baseAddress, let to = target.baseAddress {
              format.dequantizeRow(from, columns: unit.columns, into: to)
            }
          }
        }
        for column in 0..<unit.columns { changes[first + column] -= back[column] }
      }
      return .init(
        bytes: unit.rows * format.rowBytes(columns: unit.columns),
        loss: share * Self.form(changes, hessian, unit.columns))
    }
  }

  /// `tr(D H D^T)`; without `H` the sum of squares.
  private static func form(_ d: [Float], _ hessian: [Float]?, _ columns: Int) -> Double {
    guard let hessian else { return d.reduce(0) { $0 + Double($1) * Double($1) } }
    let rows = d.count / max(1, columns)
    var product = [Float](repeating: 0, count: d.count)
    d.withUnsafeBufferPointer { d in
      hessian.withUnsafeBufferPointer { hessian in
        product.withUnsafeMutableBufferPointer { product in
          if let a = d.baseAddress, let b = hessian.baseAddress, let c = product.baseAddress {
            MatrixProduct(rows: rows, columns: columns, depth: columns)(a, b, into: c)
          }
        }
      }
    }
    return zip(d, product).reduce(0) { $0 + Double($1.0) * Double($1.1) }
  }

  /// At most `count` numbers below `all`, spread evenly.
  private static func spread(_ all: Int, _ count: Int) -> [Int] {
    all <= count ? Array(0..<all) : (0..<count).map { $0 * all / count }
  }

  /// Multiplies the losses by the weights of the units.
  private mutating func weigh(_ progress: Progress?) throws {
    for index in units.indices {
      var factor = units[index].energy > 0 ? 1 / units[index].energy : 0
      if options.score == .divergence {
        progress?.update("weighing layers", done: index, of: units.count)
        guard
          let probe = units[index].options.indices.max(by: {
            units[index].options[$0].loss < units[index].options[$1].loss
          }),
          units[index].options[probe].loss > 0
        else { continue }
        let found = try divergence([units[index].name: options.formats[probe]], alone: true)
        factor = found / units[index].options[probe].loss
      }
      for option in units[index].options.indices { units[index].options[option].loss *= factor }
    }
  }

  // MARK: The whole model

  /// The divergence from the original with these formats; `alone` leaves all other weights as they are.
  private func divergence(_ specs: [String: QuantizationSpec], alone: Bool = false) throws -> Double {
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

  // MARK: Evolution

  /// Improves a choice by changes that keep the budget.
  private func evolve(_ choice: inout [Int], _ budget: Int, _ context: inout PassContext) throws {
    func specs(_ choice: [Int]) -> [String: QuantizationSpec] {
      Dictionary(zip(units.map(\.name), choice.map { options.formats[$0] }), uniquingKeysWith: { first, _ in first })
    }
    var generator = SplitMix64(seed: UInt64(truncatingIfNeeded: options.seed))
    var least = try divergence(specs(choice))
    var improved = 0
    for generation in 0..<options.generations {
      context.progress?.update("evolving", done: generation, of: options.generations)
      var best: (choice: [Int], divergence: Double)?
      for _ in 0..<options.offspring {
        let child = mutated(choice, budget, &generator)
        guard child != choice else { continue }
        let found = try divergence(specs(child))
        if found < best?.divergence ?? least { best = (child, found) }
      }
      if let best {
        (choice, least) = (best.choice, best.divergence)
        improved += 1
      }
    }
    context.count("generations that improved", by: improved)
  }

  /// A copy in which one unit has a format of more bytes and others give them up.
  private func mutated(_ choice: [Int], _ budget: Int, _ generator: inout SplitMix64) -> [Int] {
    var child = choice
    func bytes(_ unit: Int, _ option: Int) -> Int { units[unit].options[option].bytes }
    let unit = generator.int(below: units.count)
    let larger = units[unit].options.indices.filter { bytes(unit, $0) > bytes(unit, choice[unit]) }
    guard !larger.isEmpty else { return choice }
    child[unit] = larger[generator.int(below: larger.count)]
    for _ in 0..<(4 * units.count) {
      let total = child.indices.reduce(0) { $0 + bytes($1, child[$1]) }
      if total <= budget { return child }
      let other = generator.int(below: units.count)
      let smaller = units[other].options.indices.filter { bytes(other, $0) < bytes(other, child[other]) }
      if other != unit, !smaller.isEmpty { child[other] = smaller[generator.int(below: smaller.count)] }
    }
    return choice
  }
}
