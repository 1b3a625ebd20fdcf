import Tensors

extension Model {
  /// The first thing in which `other` computes something else than this model, as a sentence about `other`; nil if both have
  /// the same functions, operators, attributes and shapes. The numbers of weights do not count, their names and types do;
  /// `place` is what the sentence calls this model.
  package func firstDifference(in other: Model, from place: String) -> String? {
    for function in functions {
      guard let found = other.functions.first(where: { $0.name == function.name }) else {
        return "the function '@\(function.name)' is missing, which is in \(place)"
      }
      var comparison = GraphComparison(model: self, graph: function, other: other, found: found, place: place)
      if let difference = comparison.firstDifference() { return difference }
    }
    let extra = other.functions.first { function in !functions.contains { $0.name == function.name } }
    return extra.map { "the function '@\($0.name)' is not in \(place)" }
  }
}

/// Two functions that are walked side by side.
private struct GraphComparison {
  let model: Model
  let graph: Graph
  let other: Model
  let found: Graph
  let place: String
  /// The value of `graph` that one of `found` stands for.
  private var places: [ValueID: ValueID] = [:]

  init(model: Model, graph: Graph, other: Model, found: Graph, place: String) {
    self.model = model
    self.graph = graph
    self.other = other
    self.found = found
    self.place = place
  }

  mutating func firstDifference() -> String? {
    if let text = ports("input", graph.inputs, found.inputs) { return text }
    if let text = ports("state", graph.states.map(\.value), found.states.map(\.value)) { return text }
    let (nodes, others) = (graph.nodeIDs, found.nodeIDs)
    for (id, otherID) in zip(nodes, others) {
      let (node, foundNode) = (graph[id], found[otherID])
      let position = foundNode.origin.map { " of '\($0.text)'" } ?? ""
      guard node.op.isEqual(to: foundNode.op) else {
        return "the operator\(position) is \(Self.text(foundNode.op)), in \(place) it is \(Self.text(node.op))"
      }
      guard node.inputs.count == foundNode.inputs.count, node.results.count == foundNode.results.count else {
        return "'\(node.op.name)'\(position) has \(foundNode.inputs.count) operands, in \(place) \(node.inputs.count)"
      }
      for (number, pair) in zip(node.inputs, foundNode.inputs).enumerated() {
        if let text = operand(pair.0, pair.1) { return "operand \(number + 1) of '\(node.op.name)'\(position) \(text)" }
      }
      for (value, otherValue) in zip(node.results, foundNode.results) {
        guard graph.type(of: value) == found.type(of: otherValue) else {
          return
            "'\(node.op.name)'\(position) gives \(found.type(of: otherValue)), in \(place) \(graph.type(of: value))"
        }
        places[otherValue] = value
      }
    }
    if nodes.count != others.count {
      return "the function '@\(graph.name)' has \(others.count) operators, in \(place) \(nodes.count)"
    }
    let ends = zip(graph.outputs + graph.states.map(\.update), found.outputs + found.states.map(\.update))
    let isEqual = graph.outputNames == found.outputNames && ends.allSatisfy { operand($0, $1) == nil }
    return isEqual ? nil : "the outputs of the function '@\(graph.name)' are others than in \(place)"
  }

  private mutating func ports(_ kind: String, _ values: [ValueID], _ others: [ValueID]) -> String? {
    for (value, otherValue) in zip(values, others) {
      let (name, type) = (graph[value].name, graph.type(of: value))
      let (foundName, foundType) = (found[otherValue].name, found.type(of: otherValue))
      guard name == foundName, type == foundType else {
        return "the \(kind) '\(foundName)' is \(Self.text(foundType)), in \(place) '\(name)' is \(Self.text(type))"
      }
      places[otherValue] = value
    }
    if values.count == others.count { return nil }
    return "the function '@\(graph.name)' has \(others.count) \(kind)s, in \(place) \(values.count)"
  }

  /// What is different about an operand, or nil.
  private func operand(_ value: ValueID, _ otherValue: ValueID) -> String? {
    switch (graph.constant(of: value), found.constant(of: otherValue)) {
    case (nil, nil): return places[otherValue] == value ? nil : "is another value than in \(place)"
    case (let id?, let otherID?):
      let (constant, foundConstant) = (model.constants[id], other.constants[otherID])
      guard constant.name == foundConstant.name else {
        return "is '\(foundConstant.name)', in \(place) it is '\(constant.name)'"
      }
      guard constant.type == foundConstant.type else {
        return "is \(foundConstant.type), in \(place) it is \(constant.type)"
      }
      switch (constant.source, foundConstant.source) {
      // Weights, whose numbers may be others.
      case (.archive, .archive): return nil
      case (let source, let foundSource):
        return source == foundSource ? nil : "holds other numbers in '\(constant.name)' than in \(place)"
      }
    default: return "is \(found.constant(of: otherValue) == nil ? "computed" : "constant"), unlike in \(place)"
    }
  }

  /// A type with the ranges of its open sizes.
  private static func text(_ type: TensorType) -> String {
    let symbols = type.shape.dims.flatMap(\.symbols).sorted { $0.name < $1.name }
    let ranges = symbols.map { "\($0.name) = \($0.minimum)...\($0.maximum)" }
    return ranges.isEmpty ? "\(type)" : "\(type) with \(ranges.joined(separator: ", "))"
  }

  /// An operator with its attributes.
  private static func text(_ op: some Operator) -> String {
    guard MemoryLayout.size(ofValue: op) > 0, let attributes = try? AttributeCoder.attributes(of: op) else {
      return "'\(op.name)'"
    }
    return attributes.isEmpty ? "'\(op.name)'" : "'\(op.name) \(attributes)'"
  }
}
