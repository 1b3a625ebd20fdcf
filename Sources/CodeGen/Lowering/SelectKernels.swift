import Base
import IR
import Tensors

/// Replaces operators by calls of the target's kernels and packs constants into the layouts these demand.
///
///     %d = dequantize(%q)                             (%q a recipe on a constant)
///     %y = matmul(%x, %d) {transposeB = true}
///     ->
///     %p = pack(%q) {layout = ...}
///     %y = kernel_call(%x, %p) {kernel = mcc_matmul_w4g32_..., operation = {matmul = {...}}, operands = [...]}
///
/// Every kernel is asked for its candidates; the cheapest is taken. Dequantization of operands and columns cut out of a
/// wider buffer are left to the kernel where it can, and so are the rounding of activations and the norm before that
/// (``Chained``). A constant gets one layout in all functions of all targets: the one with the least sum of costs.
/// Reshapes and contiguous parts stay as they are: they cost nothing. An operator without kernel that is
/// ``Decomposable`` is decomposed first.
package struct SelectKernels: Pass {
  package static let name = "select-kernels"
  package static let summary = "replace operators by calls of the target's kernels, and pack their constants"
  package static let legality =
    "always: an operator without a kernel is an error; constants get the layout that their kernels read"
  package static let source = "mcc"

  /// The names of the targets.
  package var target: String = "native"
  /// What was measured on the machine, by target; estimates hold for the others. No option: a text does not carry it.
  package var records: [String: MachineRecord] = [:]

  private enum CodingKeys: CodingKey {
    case target
  }

  package init() {}

  package init(target: String, records: [String: MachineRecord] = [:]) {
    self.target = target
    self.records = records
  }

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    let targets = try TargetRegistry.targets(named: target)
    try KernelSelection(KernelLevels(targets, records)).apply(to: &model)
    model[metadata: "target"] = TargetRegistry.name(of: targets)
    for function in model.functions {
      for node in function.nodeIDs {
        if let call = function[node].op as? KernelCall { context.count(call.operation.op.name) }
      }
    }
  }
}

/// Chooses kernels of the targets and puts calls of them into the graphs of a model.
struct KernelSelection {
  private let levels: KernelLevels

  init(_ levels: KernelLevels) { self.levels = levels }

  /// A node with the ways to compute it.
  private struct Site {
    var function: Int
    var node: NodeID
    /// The inputs after dequantizations and slices are left to the kernel.
    var inputs: [ValueID]
    var operands: [KernelOperand]
    var choices: [KernelChoice]
    /// The recipe number of inputs that depend on constants alone.
    var recipes: [Int?]
    var query: KernelQuery
  }

  /// Lowers every function of the model.
  func apply(to model: inout Model) throws {
    let sites = try sites(of: &model)
    let layouts = chooseLayouts(sites)
    for index in model.functions.indices {
      try rewrite(&model.functions[index], sites.filter { $0.function == index }, layouts)
    }
    model.stage = .lower
    model.compact()
  }

  /// What is asked of the kernels for a model, with all answers and the choice among them.
  func survey(_ model: Model) throws -> KernelSurvey {
    var model = model
    let sites = try sites(of: &model)
    let layouts = chooseLayouts(sites)
    var survey = KernelSurvey()
    for site in sites {
      guard let choice = pick(site, layouts) else { continue }
      let graph = model.functions[site.function]
      let node = graph[site.node]
      survey.add(
        role: graph.role ?? graph.name, level: levels.level(of: graph), query: site.query,
        stored: site.inputs.map { graph.type(of: $0) },
        results: node.results.map { graph.type(of: $0) }, choices: site.choices, pick: choice,
        constants: zip(site.inputs, site.recipes).map { $1 })
    }
    return survey
  }

  /// The nodes that need a kernel, after decomposition.
  private func sites(of model: inout Model) throws -> [Site] {
    try decompose(&model)
    for index in model.functions.indices {
      try chain(&model.functions[index])
      try separateOutputs(of: &model.functions[index])
    }
    var recipes = RecipeTable()
    var sites: [Site] = []
    for function in model.functions.indices {
      let graph = model.functions[function]
      let isRecipe = graph.recipeFlags()
      // The block format of values whose kernel gives them a layout of its own.
      for id in graph.topologicalOrder() {
        let node = graph[id]
        guard needsKernel(node, in: graph, isRecipe) else { continue }
        sites.append(try site(id, in: graph, function: function, isRecipe, &recipes))
      }
    }
    return sites
  }

  // MARK: What needs a kernel

  private func needsKernel(_ node: Node, in graph: Graph, _ isRecipe: [Bool]) -> Bool {
    if node.results.allSatisfy({ isRecipe[Int($0.index)] }) { return false }
    if node.op is KernelCall || graph.isView(node) { return false }
    if node.op is Dequantize || node.op is Slice {
      return !node.results.allSatisfy { canBeAbsorbed($0, in: graph) }
    }
    return true
  }

  /// Whether all users of a dequantized or cut value can have it as part of their own kernel.
  private func canBeAbsorbed(_ value: ValueID, in graph: Graph) -> Bool {
    for use in graph[value].uses {
      guard case .operand(let user, _) = use else { return false }
      guard let found = try? absorbing(user, in: graph, forced: value), !found.choices.isEmpty else { return false }
    }
    return !graph[value].uses.isEmpty
  }

  // MARK: Asking

  private func origin(of node: Node, in graph: Graph) -> CompileError.Subject {
    let place = node.origin.map { "node '\($0.text)'" } ?? "'%\(node.results.first.map { graph[$0].name } ?? "")'"
    return .init(object: place)
  }

  private struct Absorbed {
    var inputs: [ValueID]
    var operands: [KernelOperand]
    var choices: [KernelChoice]
    var query: KernelQuery
  }

  /// The query of a node whose inputs come as `forms` says, with what it needs to be written down.
  private func ask(
    _ node: Node, in graph: Graph, dequantize: Bool, slices: Bool, _ isRecipe: [Bool]?
  ) throws -> (Absorbed, changed: Bool) {
    var inputs = node.inputs
    var forms: [KernelOperand] = []
    var operands: [KernelQuery.Operand] = []
    var changed = false
    for index in inputs.indices {
      var element: DType?
      if dequantize, let op = graph.op(of: inputs[index], as: Dequantize.self),
        let source = graph.definingNode(of: inputs[index]).map({ graph[$0].inputs[0] })
      {
        element = op.type
        inputs[index] = source
        changed = true
      }
      var type = graph.type(of: inputs[index])
      var operand = KernelQuery.Operand(type, dequantized: element)
      var columns: ColumnSlice?
      if slices, element == nil, let slice = columnSlice(inputs[index], in: graph) {
        inputs[index] = slice.source
        columns = slice.columns
        operand.rowStride = slice.width
        type = operand.type
        changed = true
      }
      operand.isConstant =
        isRecipe.map { $0[Int(inputs[index].index)] } ?? ConstantEvaluator.isRecipe(inputs[index], in: graph)
      operands.append(operand)
      if element != nil || columns != nil || operand.isConstant {
        var format: BlockFormat?
        if case .block(let block) = type.encoding { format = block }
        forms.append(
          KernelOperand(index: index, element: type.element, format: format, dequantized: element, columns: columns))
      }
    }
    let query = KernelQuery(node.op, operands)
    let choices = try levels[graph].choices(for: query)
    return (Absorbed(inputs: inputs, operands: forms, choices: choices, query: query), changed)
  }

  /// The columns of a wider matrix that a value is, unless they are contiguous anyhow.
  private func columnSlice(
    _ value: ValueID, in graph: Graph
  ) -> (source: ValueID, columns: ColumnSlice, width: Int)? {
    guard let id = graph.definingNode(of: value), let op = graph[id].op as? Slice, !graph.isView(graph[id]) else {
      return nil
    }
    let source = graph[id].inputs[0]
    let type = graph.type(of: source)
    guard type.isDense, type.rank >= 2, type.shape.normalizedAxis(op.axis) == type.rank - 1, op.step == 1,
      let start = op.start.fixedValue, let count = op.size.fixedValue, let width = type.shape.last.fixedValue
    else { return nil }
    return (source, ColumnSlice(start: start, count: count), width)
  }

  /// The best way to ask for a node: with as much left to the kernel as it can do.
  private func absorbing(
    _ id: NodeID, in graph: Graph, forced: ValueID? = nil, isRecipe: [Bool]? = nil
  ) throws -> Absorbed {
    let node = graph[id]
    var last = Absorbed(inputs: node.inputs, operands: [], choices: [], query: KernelQuery(node.op, []))
    for (dequantize, slices) in [(true, true), (true, false), (false, true), (false, false)] {
      let (absorbed, changed) = try ask(node, in: graph, dequantize: dequantize, slices: slices, isRecipe)
      if let forced, absorbed.inputs.contains(forced) { continue }
      if !absorbed.choices.isEmpty { return absorbed }
      last = absorbed
      if !changed { break }
    }
    return last
  }

  /// Whether a kernel computes a node.
  func hasKernel(_ id: NodeID, in graph: Graph) throws -> Bool {
    !(try absorbing(id, in: graph).choices.isEmpty)
  }

  private func site(
    _ id: NodeID, in graph: Graph, function: Int, _ isRecipe: [Bool], _ recipes: inout RecipeTable
  ) throws -> Site {
    let node = graph[id]
    let found = try absorbing(id, in: graph, isRecipe: isRecipe)
    guard !found.choices.isEmpty else {
      let types = node.inputs.map { graph.type(of: $0).description }.joined(separator: ", ")
      throw CompileError(
        .unsupported, "no kernel computes \(node.op.name) of (\(types))", subject: origin(of: node, in: graph))
    }
    var numbers: [Int?] = []
    for input in found.inputs {
      let constant = isRecipe[Int(input.index)]
      numbers.append(constant ? recipes.number(of: input, in: graph, function: function) : nil)
    }
    return Site(
      function: function, node: id, inputs: found.inputs, operands: found.operands, choices: found.choices,
      recipes: numbers, query: found.query)
  }

  // MARK: Layouts

  /// For each recipe the layout with the least sum of costs over all its uses.
  private func chooseLayouts(_ sites: [Site]) -> [Int: PackedLayout?] {
    var costs: [Int: [PackedLayout?: (uses: Int, cost: Double)]] = [:]
    var order: [Int: [PackedLayout?]] = [:]
    for site in sites {
      for (input, recipe) in site.recipes.enumerated() {
        guard let recipe else { continue }
        var best: [PackedLayout?: Double] = [:]
        for choice in site.choices {
          let layout = choice.layouts[input]
          if best[layout] == nil, !order[recipe, default: []].contains(layout) {
            order[recipe, default: []].append(layout)
          }
          best[layout] = min(best[layout] ?? .infinity, choice.cost)
        }
        for (layout, cost) in best {
          let old = costs[recipe, default: [:]][layout] ?? (0, 0)
          costs[recipe, default: [:]][layout] = (old.uses + 1, old.cost + cost)
        }
      }
    }
    return costs.mapValues { byLayout in byLayout }.reduce(into: [:]) { result, entry in
      let layouts = order[entry.key] ?? []
      let best = layouts.min { a, b in
        let left = entry.value[a] ?? (0, .infinity), right = entry.value[b] ?? (0, .infinity)
        return (-left.uses, left.cost) < (-right.uses, right.cost)
      }
      result[entry.key] = .some(best ?? nil)
    }
  }

  /// The cheapest choice among those that take every constant in its layout, else the cheapest of all.
  private func pick(_ site: Site, _ layouts: [Int: PackedLayout?]) -> KernelChoice? {
    let fitting = site.choices.filter { choice in
      site.recipes.enumerated().allSatisfy { input, recipe in
        recipe.map { (layouts[$0] ?? nil) == choice.layouts[input] } ?? true
      }
    }
    return (fitting.isEmpty ? site.choices : fitting).min { $0.cost < $1.cost }
  }

  // MARK: Rewriting

  private struct PackKey: Hashable {
    var value: ValueID
    var layout: PackedLayout
  }

  private func rewrite(_ graph: inout Graph, _ sites: [Site], _ layouts: [Int: PackedLayout?]) throws {
    var packs: [PackKey: ValueID] = [:]
    for site in sites {
      guard let choice = pick(site, layouts) else { continue }
      let node = graph[site.node]
      var forms = site.operands
      for (index, input) in site.inputs.enumerated() {
        var value = input
        if let layout = choice.layouts[index], site.recipes[index] != nil {
          let key = PackKey(value: input, layout: layout)
          if let packed = packs[key] {
            value = packed
          } else {
            let pack = try graph.addNode(Pack(layout), [input], names: [graph[input].name], origin: node.origin)
            value = graph[pack].results[0]
            packs[key] = value
          }
        } else if let form = forms.firstIndex(where: { $0.index == index }),
          forms[form].columns == nil, forms[form].dequantized == nil, graph.type(of: value).isDense
        {
          forms.remove(at: form)
        }
        if graph[site.node].inputs[index] != value { graph.setInput(index, of: site.node, to: value) }
      }
      let call = KernelCall(
        kernel: choice.name, operation: node.op, operands: forms, result: choice.result)
      graph.setOperator(call, of: site.node)
      if let layout = choice.result, let result = node.results.first {
        var type = graph.type(of: result)
        type.encoding = .packed(layout)
        graph.setType(type, of: result)
      }
    }
    graph.eraseDeadNodes()
  }

  /// Gives every output a value of its own that a kernel computes.
  private func separateOutputs(of graph: inout Graph) throws {
    let isRecipe = graph.recipeFlags()
    var seen: Set<ValueID> = []
    for index in graph.outputs.indices {
      let output = graph.outputs[index]
      let root = graph.viewRoot(of: output)
      let computed = graph.definingNode(of: root) != nil && !isRecipe[Int(root.index)]
      let isUpdate = graph.states.contains { graph.viewRoot(of: $0.update) == root }
      if computed, !isUpdate, seen.insert(root).inserted,
        graph.type(of: root).maximumByteCount == graph.type(of: output).maximumByteCount
      {
        continue
      }
      let copy = try graph.addNode(FusedElementwise(.input(0)), [output], names: [graph[output].name])
      graph.setOutput(index, to: graph[copy].results[0])
    }
  }

  // MARK: Decomposing

  /// Replaces operators that have no kernel by simpler ones, as far as they say how, or by those in f32.
  ///
  /// - Returns: how many were replaced, and how many of them are in f32 instead of f64.
  @discardableResult
  func decompose(_ model: inout Model) throws -> (count: Int, doubles: Int) {
    var count = 0
    for function in model.functions.indices {
      var builder = GraphBuilder(graph: model.functions[function], constants: model.constants)
      var pending = builder.graph.topologicalOrder()
      while !pending.isEmpty {
        let id = pending.removeFirst()
        guard builder.graph.isLive(id), let op = builder.graph[id].op as? any Decomposable else { continue }
        let node = builder.graph[id]
        let isRecipe = builder.graph.recipeFlags()
        if node.results.allSatisfy({ isRecipe[Int($0.index)] }) { continue }
        if !(try absorbing(id, in: builder.graph, isRecipe: isRecipe).choices.isEmpty) { continue }
        let slots = builder.graph.nodeSlots
        builder.origin = node.origin
        let results = try op.decompose(node.inputs, in: &builder)
        for (old, new) in zip(node.results, results) { builder.graph.replaceUses(of: old, with: new) }
        builder.graph.erase(id)
        count += 1
        pending += (slots..<builder.graph.nodeSlots).map { NodeID(index: Int32($0)) }
      }
      model.functions[function] = builder.graph
      model.constants = builder.constants
    }
    let single = try computeInSingle(&model)
    return (count + single.count, single.doubles)
  }
}
