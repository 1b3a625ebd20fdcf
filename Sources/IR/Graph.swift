import Base
import Tensors

/// A tensor in a graph: computed once, never changed.
package struct Value: Sendable {
  /// Unique in its function.
  package fileprivate(set) var name: String
  package fileprivate(set) var type: TensorType
  package fileprivate(set) var definition: Definition
  package fileprivate(set) var uses: [Use]
  // A flag and not an optional slot: reading one property of an optional copies all of them.
  fileprivate var isErased = false
}

/// Where a node was in the imported model, for messages.
package struct Origin: Hashable, Sendable {
  /// The name in the source, such as `model.layers.0.mlp.up_proj`.
  package var text: String

  package init(_ text: String) { self.text = text }
}

/// An operator applied to values.
package struct Node: Sendable {
  package fileprivate(set) var op: any Operator
  package fileprivate(set) var inputs: [ValueID]
  package fileprivate(set) var results: [ValueID]
  package var origin: Origin?
  fileprivate var isErased = false

  fileprivate init(op: any Operator, inputs: [ValueID], results: [ValueID], origin: Origin?) {
    self.op = op
    self.inputs = inputs
    self.results = results
    self.origin = origin
  }
}

/// A tensor that a function keeps from call to call, such as a KV cache: a function takes its value and returns its
/// update.
package struct State: Hashable, Sendable {
  /// The value at the start of a call.
  package fileprivate(set) var value: ValueID
  /// The value at the end of a call; the start value itself if it does not change.
  package fileprivate(set) var update: ValueID
}

/// A single-assignment graph without control flow.
///
/// Nodes and values live in slots that are addressed by index; erased ones leave holes until ``compact()``, so an
/// identifier stays valid through a pass. Every mutation keeps the lists of uses right.
package struct Graph: Sendable {
  package var name: String
  /// What the function is to the program's driver: `main`, `decode`, `prefill`, `encode`; nil for none.
  package var role: String?
  /// The target whose kernels the function calls, where a lowered model has functions for several; nil otherwise.
  package var target: String?
  /// The symbols in the sizes of inputs, in a fixed order: the run-time arguments of the function.
  package private(set) var symbols: [Symbol] = []
  package private(set) var inputs: [ValueID] = []
  package private(set) var states: [State] = []
  package private(set) var outputs: [ValueID] = []
  /// Names under which the outputs leave the function; equal count as `outputs`.
  package private(set) var outputNames: [String] = []
  private var nodes: [Node] = []
  private var values: [Value] = []
  private var names: [String: Int] = [:]

  package init(name: String, role: String? = nil, symbols: [Symbol] = []) {
    self.name = name
    self.role = role
    self.symbols = symbols
  }
}

// MARK: - Looking

extension Graph {
  /// The number of node slots, holes included: what a side table indexed by node needs.
  package var nodeSlots: Int { nodes.count }

  /// The number of value slots, holes included: what a side table indexed by value needs.
  package var valueSlots: Int { values.count }

  /// The number of nodes.
  package var nodeCount: Int { nodes.lazy.filter { !$0.isErased }.count }

  /// All nodes in slot order, which need not be an order of computation.
  package var nodeIDs: [NodeID] { nodes.indices.lazy.filter { !nodes[$0].isErased }.map { NodeID(index: Int32($0)) } }

  /// All values in slot order.
  package var valueIDs: [ValueID] {
    values.indices.lazy.filter { !values[$0].isErased }.map { ValueID(index: Int32($0)) }
  }

  /// Whether the node has not been erased.
  package func isLive(_ id: NodeID) -> Bool { Int(id.index) < nodes.count && !nodes[Int(id.index)].isErased }

  /// Whether the value has not been erased.
  package func isLive(_ id: ValueID) -> Bool { Int(id.index) < values.count && !values[Int(id.index)].isErased }

  package subscript(id: NodeID) -> Node {
    _read {
      precondition(!nodes[Int(id.index)].isErased, "node \(id.index) of '\(name)' is erased")
      yield nodes[Int(id.index)]
    }
  }

  package subscript(id: ValueID) -> Value {
    _read {
      precondition(!values[Int(id.index)].isErased, "value \(id.index) of '\(name)' is erased")
      yield values[Int(id.index)]
    }
  }

  /// The type of a value.
  package func type(of id: ValueID) -> TensorType { self[id].type }

  /// The node that computes a value; nil for inputs, states and constants.
  package func definingNode(of id: ValueID) -> NodeID? {
    if case .result(let node, _) = self[id].definition { return node }
    return nil
  }

  /// The constant a value stands for.
  package func constant(of id: ValueID) -> ConstantID? {
    if case .constant(let constant) = self[id].definition { return constant }
    return nil
  }
}

// MARK: - Building

extension Graph {
  /// Makes room for about so many nodes with one result each, and as many other values as a half of them.
  package mutating func reserve(nodes count: Int) {
    nodes.reserveCapacity(count)
    values.reserveCapacity(count + count / 2)
    names.reserveCapacity(count + count / 2)
  }

  /// Declares a run-time symbol; a symbol with that name must not exist with another range.
  package mutating func declare(_ symbol: Symbol) {
    if !symbols.contains(symbol) {
      precondition(!symbols.contains { $0.name == symbol.name }, "symbol '\(symbol.name)' is declared twice")
      symbols.append(symbol)
    }
  }

  private mutating func uniqueName(_ hint: String) -> String {
    let hint = hint.isEmpty ? "v" : hint
    guard let count = names[hint] else {
      names[hint] = 1
      return hint
    }
    var next = count
    var candidate = "\(hint)_\(next)"
    while names[candidate] != nil {
      next += 1
      candidate = "\(hint)_\(next)"
    }
    names[hint] = next + 1
    names[candidate] = 1
    return candidate
  }

  private mutating func addValue(_ hint: String, _ type: TensorType, _ definition: Definition) -> ValueID {
    values.append(Value(name: uniqueName(hint), type: type, definition: definition, uses: []))
    return ValueID(index: Int32(values.count - 1))
  }

  /// Adds an input; the name is made unique.
  package mutating func addInput(_ name: String, _ type: TensorType) -> ValueID {
    let id = addValue(name, type, .input(inputs.count))
    inputs.append(id)
    return id
  }

  /// Adds a state whose update is its start value until ``setUpdate(ofState:to:)``.
  package mutating func addState(_ name: String, _ type: TensorType) -> ValueID {
    let index = states.count
    let id = addValue(name, type, .state(index))
    states.append(State(value: id, update: id))
    values[Int(id.index)].uses.append(.update(index))
    return id
  }

  /// Makes `value` the new value of a state.
  package mutating func setUpdate(ofState index: Int, to value: ValueID) {
    removeUse(.update(index), of: states[index].update)
    states[index].update = value
    values[Int(value.index)].uses.append(.update(index))
  }

  /// Adds a value that stands for a constant of the model.
  package mutating func addConstant(_ constant: ConstantID, _ name: String, _ type: TensorType) -> ValueID {
    addValue(name, type, .constant(constant))
  }

  /// Adds an output under `name` (made unique among outputs by the caller).
  package mutating func addOutput(_ name: String, _ value: ValueID) {
    values[Int(value.index)].uses.append(.output(outputs.count))
    outputs.append(value)
    outputNames.append(name)
  }

  /// Replaces all outputs.
  package mutating func setOutputs(_ new: [(name: String, value: ValueID)]) {
    for (index, value) in outputs.enumerated() { removeUse(.output(index), of: value) }
    (outputs, outputNames) = ([], [])
    for output in new { addOutput(output.name, output.value) }
  }

  /// Replaces the value of an output.
  package mutating func setOutput(_ index: Int, to value: ValueID) {
    removeUse(.output(index), of: outputs[index])
    outputs[index] = value
    values[Int(value.index)].uses.append(.output(index))
  }

  /// Adds a node; its result types are inferred and must have sizes that can be computed with, results are named after
  /// `names` or the operator.
  package mutating func addNode(
    _ op: any Operator, _ inputs: [ValueID], names hints: [String] = [], origin: Origin? = nil
  ) throws -> NodeID {
    let types: [TensorType]
    do {
      types = try op.inferTypes(inputs.map { type(of: $0) })
      for type in types {
        _ = try TensorType.checkedByteCount(
          sizes: type.shape.maximumSizes, element: type.element, encoding: type.encoding, of: "a result of '\(op.name)'"
        )
      }
    } catch let error as CompileError {
      throw error.located(.init(object: origin.map { "node '\($0.text)'" } ?? "function '@\(name)'"))
    }
    let id = NodeID(index: Int32(nodes.count))
    nodes.append(Node(op: op, inputs: inputs, results: [], origin: origin))
    var results: [ValueID] = []
    results.reserveCapacity(types.count)
    for (index, type) in types.enumerated() {
      results.append(addValue(index < hints.count ? hints[index] : op.name, type, .result(id, index)))
    }
    nodes[Int(id.index)].results = results
    for (operand, input) in inputs.enumerated() { values[Int(input.index)].uses.append(.operand(id, operand)) }
    return id
  }
}

// MARK: - Changing

extension Graph {
  private mutating func removeUse(_ use: Use, of value: ValueID) {
    guard let index = values[Int(value.index)].uses.lastIndex(of: use) else {
      preconditionFailure("the uses of '%\(self[value].name)' are out of step")
    }
    values[Int(value.index)].uses.remove(at: index)
  }

  /// Gives an operand of a node another value of the same type.
  package mutating func setInput(_ operand: Int, of node: NodeID, to value: ValueID) {
    removeUse(.operand(node, operand), of: self[node].inputs[operand])
    nodes[Int(node.index)].inputs[operand] = value
    values[Int(value.index)].uses.append(.operand(node, operand))
  }

  /// Redirects all uses of `old` to `new`.
  package mutating func replaceUses(of old: ValueID, with new: ValueID) {
    precondition(old != new)
    let uses = self[old].uses
    values[Int(old.index)].uses = []
    for use in uses {
      switch use {
      case .operand(let node, let operand): nodes[Int(node.index)].inputs[operand] = new
      case .output(let index): outputs[index] = new
      case .update(let index): states[index].update = new
      }
    }
    values[Int(new.index)].uses.append(contentsOf: uses)
  }

  /// Changes the attributes or the kind of an operator in place; result types must stay equal to the inferred ones,
  /// which ``Verifier`` checks.
  package mutating func setOperator(_ op: any Operator, of node: NodeID) {
    precondition(isLive(node))
    nodes[Int(node.index)].op = op
  }

  /// Notes where a node was in the imported model.
  package mutating func setOrigin(_ origin: Origin?, of node: NodeID) { nodes[Int(node.index)].origin = origin }

  /// Stores another type for a value, such as a specialised one; the caller re-infers what depends on it.
  package mutating func setType(_ type: TensorType, of value: ValueID) { values[Int(value.index)].type = type }

  /// Names a value; the name is made unique.
  package mutating func rename(_ value: ValueID, to hint: String) {
    guard self[value].name != hint else { return }
    names[self[value].name] = nil
    let name = uniqueName(hint)
    values[Int(value.index)].name = name
  }

  /// Erases a node whose results nobody uses.
  package mutating func erase(_ id: NodeID) {
    let node = self[id]
    for result in node.results {
      precondition(self[result].uses.isEmpty, "'%\(self[result].name)' is erased while it is used")
      names[self[result].name] = nil
      values[Int(result.index)].isErased = true
    }
    for (operand, input) in node.inputs.enumerated() { removeUse(.operand(id, operand), of: input) }
    nodes[Int(id.index)].inputs = []
    nodes[Int(id.index)].isErased = true
  }

  /// Erases a constant that nobody uses.
  package mutating func eraseConstant(_ id: ValueID) {
    guard case .constant = self[id].definition else { preconditionFailure("'%\(self[id].name)' is no constant") }
    precondition(self[id].uses.isEmpty, "'%\(self[id].name)' is erased while it is used")
    names[self[id].name] = nil
    values[Int(id.index)].isErased = true
  }

  /// Erases an input that nobody uses.
  package mutating func eraseInput(_ id: ValueID) {
    guard case .input(let index) = self[id].definition else {
      preconditionFailure("'%\(self[id].name)' is no input")
    }
    precondition(self[id].uses.isEmpty, "'%\(self[id].name)' is erased while it is used")
    inputs.remove(at: index)
    for later in index..<inputs.count { values[Int(inputs[later].index)].definition = .input(later) }
    names[self[id].name] = nil
    values[Int(id.index)].isErased = true
  }

  /// Erases a state that nobody reads; its update stays where it has other users.
  package mutating func eraseState(_ index: Int) {
    let state = states[index]
    removeUse(.update(index), of: state.update)
    precondition(self[state.value].uses.isEmpty, "'%\(self[state.value].name)' is erased while it is used")
    states.remove(at: index)
    for later in index..<states.count {
      values[Int(states[later].value.index)].definition = .state(later)
      removeUse(.update(later + 1), of: states[later].update)
      values[Int(states[later].update.index)].uses.append(.update(later))
    }
    names[self[state.value].name] = nil
    values[Int(state.value.index)].isErased = true
  }

  /// A point to go back to.
  package struct Mark: Hashable, Sendable {
    fileprivate var nodes: Int
    fileprivate var values: Int
  }

  /// The present end of the slots, for ``truncate(to:)``.
  package var mark: Mark { Mark(nodes: nodes.count, values: values.count) }

  /// Takes back everything added since `mark`; nothing added since may be used by anything older.
  package mutating func truncate(to mark: Mark) {
    while nodes.count > mark.nodes {
      let id = NodeID(index: Int32(nodes.count - 1))
      if isLive(id) {
        for (operand, input) in self[id].inputs.enumerated() where isLive(input) {
          removeUse(.operand(id, operand), of: input)
        }
      }
      nodes.removeLast()
    }
    for value in values[mark.values...] where !value.isErased { names[value.name] = nil }
    values.removeSubrange(mark.values...)
  }

  /// Replaces every symbol in stored types; operators are not touched.
  package mutating func substituteTypes(_ replacement: (Symbol) -> Dim?) {
    for index in values.indices {
      values[index].type = values[index].type.substituting(replacement)
    }
    symbols = symbols.compactMap { symbol in
      guard let dim = replacement(symbol) else { return symbol }
      if dim.isFixed { return nil }
      return dim.symbols.first
    }
  }
}

// MARK: - Canonical form

extension Graph {
  /// All nodes, each after the nodes it depends on: depth first from the outputs, then from the state updates, then
  /// from nodes that neither needs, operands in order. A cycle ends the walk at the edge that closes it.
  package func topologicalOrder() -> [NodeID] {
    var order: [NodeID] = []
    order.reserveCapacity(nodes.count)
    var seen = [Bool](repeating: false, count: nodes.count)
    var stack: [(node: NodeID, next: Int)] = []
    func visit(_ value: ValueID) {
      guard let root = definingNode(of: value), !seen[Int(root.index)] else { return }
      seen[Int(root.index)] = true
      stack.append((root, 0))
      while let top = stack.last {
        let inputs = self[top.node].inputs
        if top.next == inputs.count {
          order.append(top.node)
          stack.removeLast()
          continue
        }
        stack[stack.count - 1].next += 1
        if let node = definingNode(of: inputs[top.next]), !seen[Int(node.index)] {
          seen[Int(node.index)] = true
          stack.append((node, 0))
        }
      }
    }
    for output in outputs { visit(output) }
    for state in states { visit(state.update) }
    for node in nodes.indices where !seen[node] && !nodes[node].isErased {
      if let result = nodes[node].results.first { visit(result) }
    }
    return order
  }

  /// Renumbers nodes and values in canonical order: inputs, states, then for each node in topological order its
  /// constants (as operands name them) and its results; unused constants go away.
  package mutating func compact() {
    let order = topologicalOrder()
    var valueMap = [ValueID?](repeating: nil, count: values.count)
    var nodeMap = [NodeID?](repeating: nil, count: nodes.count)
    var newValues: [Value] = []
    newValues.reserveCapacity(values.count)
    func move(_ id: ValueID) {
      guard valueMap[Int(id.index)] == nil else { return }
      valueMap[Int(id.index)] = ValueID(index: Int32(newValues.count))
      newValues.append(values[Int(id.index)])
    }
    for input in inputs { move(input) }
    for state in states { move(state.value) }
    for (index, node) in order.enumerated() {
      nodeMap[Int(node.index)] = NodeID(index: Int32(index))
      for input in self[node].inputs { move(input) }
      for result in self[node].results { move(result) }
    }
    for output in outputs { move(output) }
    for state in states { move(state.update) }
    func map(_ id: ValueID) -> ValueID {
      guard let mapped = valueMap[Int(id.index)] else { preconditionFailure("a used value was left out") }
      return mapped
    }
    func map(_ id: NodeID) -> NodeID {
      guard let mapped = nodeMap[Int(id.index)] else { preconditionFailure("a used node was left out") }
      return mapped
    }
    let newNodes: [Node] = order.map { id in
      var node = self[id]
      node.inputs = node.inputs.map { map($0) }
      node.results = node.results.map { map($0) }
      return node
    }
    for index in newValues.indices {
      if case .result(let node, let result) = newValues[index].definition {
        newValues[index].definition = .result(map(node), result)
      }
      newValues[index].uses = []
    }
    inputs = inputs.map { map($0) }
    states = states.map { State(value: map($0.value), update: map($0.update)) }
    outputs = outputs.map { map($0) }
    nodes = newNodes
    values = newValues
    for (index, node) in newNodes.enumerated() {
      for (operand, input) in node.inputs.enumerated() {
        values[Int(input.index)].uses.append(.operand(NodeID(index: Int32(index)), operand))
      }
    }
    for (index, output) in outputs.enumerated() { values[Int(output.index)].uses.append(.output(index)) }
    for (index, state) in states.enumerated() { values[Int(state.update.index)].uses.append(.update(index)) }
    names = [:]
    for value in values { names[value.name] = 1 }
  }

  /// Renumbers the constants that values stand for.
  package mutating func renumberConstants(_ map: (ConstantID) -> ConstantID) {
    for index in values.indices {
      if case .constant(let id) = values[index].definition { values[index].definition = .constant(map(id)) }
    }
  }
}

extension Graph: Equatable {
  /// Whether both graphs have the same slots; compact both first to compare structure. Origins do not count.
  package static func == (left: Graph, right: Graph) -> Bool {
    guard
      left.name == right.name, left.role == right.role, left.target == right.target, left.symbols == right.symbols,
      left.inputs == right.inputs,
      left.states == right.states, left.outputs == right.outputs, left.outputNames == right.outputNames,
      left.nodes.count == right.nodes.count, left.values.count == right.values.count
    else { return false }
    for (a, b) in zip(left.values, right.values) {
      guard a.isErased == b.isErased else { return false }
      guard a.isErased || a.name == b.name && a.type == b.type && a.definition == b.definition else { return false }
    }
    for (a, b) in zip(left.nodes, right.nodes) {
      guard a.isErased == b.isErased else { return false }
      guard a.isErased || a.inputs == b.inputs && a.results == b.results && a.op.isEqual(to: b.op) else { return false }
    }
    return true
  }
}
