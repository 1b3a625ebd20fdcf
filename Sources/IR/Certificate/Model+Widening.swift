import Base
import Tensors

extension Model {
  /// The same functions with every floating-point number in f64: inputs, states, constants behind a cast, and all that is
  /// computed of them. Casts between floating-point types become identities, so that the functions are those of real
  /// arithmetic, up to rounding of f64; what rounds to codes still does.
  package func widened() throws -> Model {
    var model = self
    model.functions = try functions.map { try $0.widened() }
    return model
  }
}

extension TensorType {
  /// Whether numbers of the type lie as they are, in a floating-point type other than f64.
  fileprivate var isNarrow: Bool { isDense && element.isFloat && element != .f64 }

  /// The type in f64, where it is one of numbers.
  fileprivate var widened: TensorType { isNarrow ? with(element: .f64) : self }
}

extension Graph {
  fileprivate func widened() throws -> Graph {
    var wide = Graph(name: name, role: role, symbols: symbols)
    wide.target = target
    var places: [ValueID: ValueID] = [:]
    for input in inputs { places[input] = wide.addInput(self[input].name, type(of: input).widened) }
    for state in states { places[state.value] = wide.addState(self[state.value].name, type(of: state.value).widened) }

    func cast(_ value: ValueID, to element: DType, _ name: String) throws -> ValueID {
      let node = try wide.addNode(Cast(element), [value], names: [name])
      return wide[node].results[0]
    }
    func place(_ id: ValueID) throws -> ValueID {
      if let place = places[id] { return place }
      guard let constant = constant(of: id) else {
        throw CompileError(.internal, "'%\(self[id].name)' is used before it is computed")
      }
      let type = type(of: id)
      var value = wide.addConstant(constant, type.isNarrow ? "\(self[id].name)_stored" : self[id].name, type)
      if type.isNarrow { value = try cast(value, to: .f64, self[id].name) }
      places[id] = value
      return value
    }

    for id in topologicalOrder() {
      let node = self[id]
      let operands = try node.inputs.map { try place($0) }
      let names = node.results.map { self[$0].name }
      let op = Self.widened(node.op)
      let added: NodeID
      if (try? op.inferTypes(operands.map { wide.type(of: $0) })) != nil {
        added = try wide.addNode(op, operands, names: names, origin: node.origin)
      } else {
        // Operators that are defined for one type alone, such as those on codes, keep it.
        let narrow = try zip(node.inputs, operands).map { old, new in
          type(of: old).isNarrow ? try cast(new, to: type(of: old).element, self[old].name) : new
        }
        added = try wide.addNode(node.op, narrow, names: names, origin: node.origin)
      }
      for (old, new) in zip(node.results, wide[added].results) {
        places[old] = wide.type(of: new).isNarrow ? try cast(new, to: .f64, self[old].name) : new
      }
    }
    for (name, output) in zip(outputNames, outputs) { wide.addOutput(name, try place(output)) }
    for (index, state) in states.enumerated() { wide.setUpdate(ofState: index, to: try place(state.update)) }
    return wide
  }

  /// An operator that names a floating-point type, with f64 instead.
  private static func widened(_ op: any Operator) -> any Operator {
    if var op = op as? Cast, op.type.isFloat {
      op.type = .f64
      return op
    }
    if var op = op as? Gather, op.type?.isFloat == true {
      op.type = .f64
      return op
    }
    if var op = op as? Dequantize {
      op.type = .f64
      return op
    }
    return op
  }
}
