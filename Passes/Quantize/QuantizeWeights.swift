import Base
import IR
import Tensors

/// Rounds the weights of linear layers to codes with scales, to the nearest code (``QuantizationSpec``).
///
///     %y = matmul(%x, %w) {transposeB = true}
///     // -> %c = quantize(%w) {format = ...}
///     //    %d = dequantize(%c)
///     //    %y = matmul(%x, %d) {transposeB = true}
///     // and, with activations of 8 bits or fewer, %x as dequantize(quantize(%x)), once for all its users
///
/// Linear layers are matmuls whose right factor is a recipe of rank 2, stored with one row per output column, and the
/// products of experts. A weight that is dequantized already, as from GGUF, keeps its codes unless they are floats of
/// eight bits. A table whose rows are gathered gets the format of the weights, unless these only change their type; if
/// it is multiplied by as well (tied embeddings), it is stored once, with at least 8 bits. A weight that would not get
/// smaller stays, and so does that of a router, whose choice of experts a small error may change.
///
/// After ``Calibrate`` activations are bytes with one scale per tensor, measured beforehand, and convolutions take part
/// as well: see ``StaticQuantization``.
///
/// `include` and `exclude` are patterns (`*` any text, `?` one character) that are matched against the origin of the
/// layer and the checkpoint's names of its weights. `embeddings` and `head` override what is done to tables and to the
/// layers whose result is an output: `auto`, `keep`, or weights and group such as `w8g32`. `concats` says whether
/// operands of a concatenation in bytes may have scales of their own (`split`) or share one (`joint`).
///
/// A `spec` with `at8` lets attention compute in bytes as well (``QuantizeAttention`` without samples).
package struct QuantizeWeights: Pass {
  package static let name = "quantize"
  package static let summary =
    "rounds weights to few bits; after calibrate also the activations of convolutions and linear layers"
  package static let legality =
    "where a layer's right factor is a recipe of rank 2 stored by output column, a table is gathered by "
    + "rows, or experts are multiplied; not where the weight would not get smaller"
  package static let source =
    "M. Nagel and others, A white paper on neural network quantization, 2021, arXiv:2106.08295"

  /// What to do with a kind of tensor.
  package enum Choice: Hashable, Sendable {
    case auto, keep
    case format(QuantizationSpec)
  }

  package var spec = QuantizationSpec(weights: .bits8, group: nil, activationBits: 8)
  /// Layers to quantize; empty for all.
  package var include: [String] = []
  /// Layers to leave alone.
  package var exclude: [String] = []
  package var embeddings: Choice = .auto
  package var head: Choice = .auto
  package var concats: Concats = .split

  /// The scales of what is concatenated in bytes.
  package enum Concats: String, Hashable, Codable, Sendable, CaseIterable {
    case split, joint
  }

  package init() {}

  package init(_ spec: QuantizationSpec) { self.spec = spec }

  package var fidelity: Fidelity {
    if spec.attentionBits == 8 { return .lossy }
    return switch spec.weights {
    case .f32: .exact
    case .f16, .bf16: .rounding
    default: .lossy
    }
  }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      if let calibration = context.calibration, calibration.functions[model.functions[index].name] != nil {
        try quantizeStatically(&model, index, calibration, &context)
        continue
      }
      try quantize(&model, function: index, &context)
    }
    var own = spec
    own.attentionBits = nil
    model[metadata: "quantization"] = own.description
    if spec.attentionBits == 8 { try QuantizeAttention().run(&model, &context) }
  }

  /// A weight that is rounded on its own.
  struct Unit: Hashable {
    /// The value in the graph before the pass.
    var weight: ValueID
    var name: String
  }

  /// Rounds the weights of a function, those that `specs` names by their values' names as it says; the weights it has
  /// rounded, in the order of the graph.
  @discardableResult
  func quantize(
    _ model: inout Model, function index: Int, _ context: inout PassContext, specs: [String: QuantizationSpec] = [:]
  ) throws -> [Unit] {
    let evaluator = context.constantEvaluator(for: model.functions[index], in: model)
    var work = Work(options: self, graph: model.functions[index], evaluator, constants: model.constants, specs: specs)
    try work.run()
    model.functions[index] = work.graph
    context.count("weights quantized", by: work.quantized)
    context.count("weights kept", by: work.kept)
    return work.units
  }
}

extension QuantizeWeights {
  /// Whether `include` and `exclude` choose a layer with that weight.
  func isChosen(_ weight: ValueID, _ node: NodeID, in graph: Graph, _ constants: ConstantTable) -> Bool {
    if include.isEmpty && exclude.isEmpty { return true }
    var names = graph[node].origin.map { [$0.text] } ?? []
    var stack = [weight]
    while let id = stack.popLast() {
      if let constant = graph.constant(of: id) { names.append(constants[constant].name) }
      if let node = graph.definingNode(of: id) { stack.append(contentsOf: graph[node].inputs) }
    }
    func matches(_ patterns: [String]) -> Bool {
      patterns.contains { pattern in names.contains { $0.matches(glob: pattern) } }
    }
    return (include.isEmpty || matches(include)) && !matches(exclude)
  }
}

/// The work on one function.
private struct Work {
  let options: QuantizeWeights
  var graph: Graph
  let constants: ConstantTable
  private let recipes: RecipeSet
  private let heads: Set<NodeID>
  /// How weights are to be stored that do not follow the options, by the names of their values.
  private let specs: [String: QuantizationSpec]
  private(set) var units: [QuantizeWeights.Unit] = []
  var quantized = 0
  var kept = 0

  /// How a weight is to be stored.
  private enum Storage: Hashable {
    /// In a format, which may be fitted to the numbers.
    case block(BlockFormat, isFitted: Bool = false)
    case number(DType)
  }

  private struct Key: Hashable {
    var value: ValueID
    var storage: Storage
  }

  /// Codes, or numbers of another type, by what they were made from.
  private var stored: [Key: ValueID] = [:]
  private var dequantized: [ValueID: ValueID] = [:]

  /// Computes weights as they were before the pass.
  private let evaluator: ConstantEvaluator

  init(
    options: QuantizeWeights, graph: Graph, _ evaluator: ConstantEvaluator, constants: ConstantTable,
    specs: [String: QuantizationSpec]
  ) {
    self.evaluator = evaluator
    self.options = options
    self.specs = specs
    self.graph = graph
    self.constants = constants
    recipes = RecipeSet(graph)
    heads = Self.heads(of: graph, recipes)
  }

  mutating func run() throws {
    for id in graph.topologicalOrder() {
      guard graph.isLive(id) else { continue }
      if graph[id].op is MatMul {
        try quantizeMatMul(id)
      } else if graph[id].op is ExpertMatMul {
        try quantizeExperts(id)
      } else if graph[id].op is Gather {
        try quantizeTable(of: id)
      }
    }
    _ = graph.eraseDeadCode()
  }

  // MARK: Choosing

  /// How the right factor of a matmul is to be stored; nil if it stays.
  private func storage(of weight: ValueID, in node: NodeID) -> Storage? {
    guard options.isChosen(weight, node, in: graph, constants) else { return nil }
    if let own = specs[graph[weight].name] { return storage(own, of: graph.type(of: weight)) }
    var spec = options.spec
    let isTied = graph[weight].uses.contains { use in
      if case .operand(let user, 0) = use { return graph[user].op is Gather }
      return false
    }
    if isTied {
      switch options.embeddings {
      case .keep: return nil
      case .format(let other): spec = other
      case .auto: spec = spec.widenedToBytes
      }
    } else if heads.contains(node) {
      switch options.head {
      case .keep: return nil
      case .format(let other): spec = other
      case .auto: break
      }
    }
    return storage(spec, of: graph.type(of: weight))
  }

  /// The storage a specification gives to a tensor; nil if that is no change or no gain.
  private func storage(_ spec: QuantizationSpec, of type: TensorType) -> Storage? {
    guard type.isDense, type.element.isFloat else { return nil }
    if let element = spec.weightType { return element == type.element ? nil : .number(element) }
    guard let format = spec.weightFormat, let bytes = type.byteCount else { return nil }
    let codes = TensorType(.f32, type.shape, encoding: .block(format))
    return (codes.byteCount ?? .max) < bytes ? .block(format, isFitted: spec.weights.isFitted) : nil
  }

  /// The layers whose result becomes an output without another linear layer, sum of two values or norm in between.
  private static func heads(of graph: Graph, _ recipes: RecipeSet) -> Set<NodeID> {
    var heads: Set<NodeID> = []
    for output in graph.outputs {
      var value = output
      while let node = graph.definingNode(of: value) {
        let op = graph[node].op
        if op is MatMul { heads.insert(node) }
        let inputs = graph[node].inputs.filter { !recipes.contains($0) }
        guard inputs.count == 1,
          op is any Elementwise || op is Reshape || op is Slice || op is Cast || op is Softmax || op is LogSoftmax
        else { break }
        value = inputs[0]
      }
    }
    return heads
  }

  // MARK: Changing

  private mutating func quantizeMatMul(_ id: NodeID) throws {
    guard var op = graph[id].op as? MatMul else { return }
    var weight = graph[id].inputs[1]
    guard graph.type(of: weight).rank == 2, graph.type(of: weight).shape.isFixed,
      recipes.contains(weight), !recipes.contains(graph[id].inputs[0])
    else { return }
    if case .block(let format) = graph.storedEncoding(of: weight), format.codes != .float8 {
      kept += 1
      try quantizeInput(of: id, format)
      return
    }
    let routes = graph.users(of: graph[id].results[0]).contains { graph[$0].op is Route }
    guard !routes, let storage = storage(of: weight, in: id) else {
      kept += 1
      return
    }
    let source = weight
    if !op.transposeB {
      weight = try emit(Transpose([1, 0]), weight, "\(graph[weight].name)_transposed", id)
      op.transposeB = true
    }
    let codes = try store(weight, storage, id, of: source)
    if dequantized[codes] == nil {
      if case .block = storage {
        dequantized[codes] = try emit(Dequantize(.f32), codes, graph[source].name, id)
      } else {
        dequantized[codes] = codes
      }
    }
    guard let factor = dequantized[codes] else { return }
    if source == weight { try redirectTables(from: source, to: codes) }
    var inputs = graph[id].inputs
    inputs[1] = factor
    let new = try replace(id, by: op, inputs)
    quantized += 1
    if case .block(let format, _) = storage { try quantizeInput(of: new, format) }
  }

  /// The weights of experts, which are read by nothing else.
  private mutating func quantizeExperts(_ id: NodeID) throws {
    let weight = graph[id].inputs[1]
    guard recipes.contains(weight) else { return }
    if case .block(let format) = graph.storedEncoding(of: weight), format.codes != .float8 {
      kept += 1
      return try quantizeInput(of: id, format)
    }
    guard options.isChosen(weight, id, in: graph, constants),
      let storage = storage(specs[graph[weight].name] ?? options.spec, of: graph.type(of: weight))
    else {
      kept += 1
      return
    }
    let codes = try store(weight, storage, id)
    quantized += 1
    guard case .block(let format, _) = storage else { return graph.setInput(1, of: id, to: codes) }
    graph.setInput(1, of: id, to: try emit(Dequantize(.f32), codes, graph[weight].name, id))
    try quantizeInput(of: id, format)
  }

  /// Makes every gather from `table` read `codes`.
  private mutating func redirectTables(from table: ValueID, to codes: ValueID) throws {
    for user in graph.users(of: table) {
      guard let gather = graph[user].op as? Gather, graph[user].inputs[0] == table else { continue }
      let element = graph.type(of: graph[user].results[0]).element
      let index = graph.type(of: table).shape.normalizedAxis(gather.axis)
      guard index != graph.type(of: table).rank - 1 else { continue }
      _ = try replace(user, by: Gather(axis: gather.axis, type: element), [codes, graph[user].inputs[1]])
    }
  }

  private mutating func quantizeTable(of id: NodeID) throws {
    guard let gather = graph[id].op as? Gather else { return }
    let table = graph[id].inputs[0]
    var spec = options.spec
    if let own = specs[graph[table].name] {
      spec = own
    } else {
      switch options.embeddings {
      case .keep: return
      case .format(let other): spec = other
      case .auto: guard spec.weights.isQuantized else { return }
      }
    }
    let shape = graph.type(of: table).shape
    guard shape.rank == 2, shape.normalizedAxis(gather.axis) == 0, recipes.contains(table),
      !recipes.contains(graph[id].inputs[1]), options.isChosen(table, id, in: graph, constants),
      !graph.users(of: table).contains(where: { graph[$0].op is MatMul }),
      let storage = storage(spec, of: graph.type(of: table))
    else { return }
    try redirectTables(from: table, to: store(table, storage, id))
    quantized += 1
  }

  /// The codes of a value, which holds the weight `source` in the order that is stored (nil: itself).
  private mutating func store(
    _ value: ValueID, _ storage: Storage, _ node: NodeID, of source: ValueID? = nil
  ) throws -> ValueID {
    let key = Key(value: value, storage: storage)
    if let codes = stored[key] { return codes }
    units.append(.init(weight: source ?? value, name: graph[source ?? value].name))
    let name = graph[value].name
    let codes: ValueID
    switch storage {
    case .block(let format, let isFitted):
      let own = try isFitted ? fitted(format, to: source ?? value, along: value) : format
      codes = try emit(Quantize(own), value, "\(name)_codes", node)
    case .number(let element): codes = try emit(Cast(element), value, "\(name)_\(element.rawValue)", node)
    }
    stored[key] = codes
    return codes
  }

  /// The format for the numbers of a weight, whose groups run along the last axis of `value`.
  private func fitted(_ format: BlockFormat, to weight: ValueID, along value: ValueID) throws -> BlockFormat {
    do {
      var numbers = try evaluator.tensor(weight).floats()
      if weight != value {
        let turn = Transpose([1, 0])
        let turned = Tensor(try turn.inferTypes([numbers.type])[0])
        try turn.evaluate([numbers.view], into: [turned.mutableView])
        numbers = turned
      }
      return try withExtendedLifetime(numbers) {
        try format.fitted(to: numbers.view.elements(as: Float.self), columns: numbers.view.sizes.last ?? 1)
      }
    } catch let error as CompileError {
      throw error.located(.init(object: "the weight '\(graph[weight].name)'"))
    }
  }

  /// Rounds the left factor of a matmul, if the specification asks for it, in groups that fit the weight's.
  private mutating func quantizeInput(of id: NodeID, _ weight: BlockFormat) throws {
    let group = weight.group.flatMap { [16, 32, 64, 128].contains($0) ? $0 : nil } ?? 32
    guard let rounding = options.spec.activationRounding(group: group), weight.codes != .float8 else { return }
    let input = graph[id].inputs[0]
    if let node = graph.definingNode(of: input), graph[node].op is Dequantize { return }
    let key = Key(value: input, storage: .block(.a8(group)))
    if stored[key] == nil {
      let codes = try emit(rounding, input, "\(graph[input].name)_codes", id)
      stored[key] = try emit(Dequantize(graph.type(of: input).element), codes, "\(graph[input].name)_rounded", id)
    }
    if let rounded = stored[key] { graph.setInput(0, of: id, to: rounded) }
  }

  private mutating func emit(_ op: any Operator, _ input: ValueID, _ name: String, _ node: NodeID) throws -> ValueID {
    let new = try graph.addNode(op, [input], names: [name], origin: graph[node].origin)
    return graph[new].results[0]
  }

  private mutating func replace(_ id: NodeID, by op: any Operator, _ inputs: [ValueID]) throws -> NodeID {
    let old = graph[id].results[0]
    let name = graph[old].name
    let new = try graph.addNode(op, inputs, names: [name], origin: graph[id].origin)
    graph.replaceUses(of: old, with: graph[new].results[0])
    graph.erase(id)
    graph.rename(graph[new].results[0], to: name)
    return new
  }
}

extension QuantizeWeights.Choice: Codable {
  package init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    switch text {
    case "auto": self = .auto
    case "keep": self = .keep
    default: self = .format(try QuantizationSpec(parsing: text))
    }
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .auto: try container.encode("auto")
    case .keep: try container.encode("keep")
    case .format(let spec): try container.encode(spec.description)
    }
  }
}

extension String {
  /// Whether a pattern with `*` for any text and `?` for one character matches the whole text.
  func matches(glob pattern: String) -> Bool {
    let text = Array(utf8), pattern = Array(pattern.utf8)
    var (t, p) = (0, 0)
    var star: (text: Int, pattern: Int)?
    while t < text.count {
      if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
        star = (t, p + 1)
        p += 1
      } else if p < pattern.count, pattern[p] == UInt8(ascii: "?") || pattern[p] == text[t] {
        t += 1
        p += 1
      } else if let (start, next) = star {
        star = (start + 1, next)
        t = start + 1
        p = next
      } else {
        return false
      }
    }
    return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
  }
}
