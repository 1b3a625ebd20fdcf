import Base
import IR
import Tensors

/// The inputs, states and outputs of an exported graph.
extension ONNXExporter {
  /// Whether the function reads one text as tokens.
  private var isText: Bool {
    function.inputs.contains { function[$0].name == "tokens" && type($0).rank == 1 }
  }

  /// The update of the state `index` that writes rows at a position; nil if it is another one.
  private func cacheUpdate(_ index: Int) -> NodeID? {
    let state = function.states[index]
    guard let node = function.definingNode(of: state.update), function[node].op is CacheUpdate,
      function[node].inputs[0] == state.value, function.users(of: state.value) == [node]
    else { return nil }
    return node
  }

  /// The parts of the state `index` that nothing changes, as many rows as the source has: the cache of cross attention, which
  /// the encoder filled; nil if it is another one.
  private func sourceRows(_ index: Int) -> [NodeID]? {
    let state = function.states[index]
    let users = function.users(of: state.value)
    let isRows = users.allSatisfy { user in
      guard let slice = function[user].op as? Slice else { return false }
      return slice.axis == 0 && slice.start == 0 && slice.step == 1 && !slice.size.isFixed
    }
    return state.update == state.value && isRows && !users.isEmpty ? Array(users) : nil
  }

  /// Whether an update puts rows at the beginning of a cache, whatever that held.
  private func fills(_ node: NodeID) -> Bool {
    guard let id = function.constant(of: function[node].inputs[2]),
      case .inline(let bytes) = model.constants[id].source
    else { return false }
    return bytes.allSatisfy { $0 == 0 }
  }

  /// The heads of the attention that reads a state, in this function or in another one; 1 if none does.
  private func heads(ofState value: ValueID) -> Int {
    let name = function[value].name
    for graph in [function] + model.functions {
      guard let state = graph.states.first(where: { graph[$0.value].name == name }) else { continue }
      var values = [state.value, state.update]
      for user in graph.users(of: state.value) where graph[user].op is Slice { values += graph[user].results }
      for user in values.flatMap({ graph.users(of: $0) }) {
        if let attention = graph[user].op as? Attention { return attention.kvHeads }
      }
    }
    return 1
  }

  /// Whether an input is the position of the first token, and follows from the states.
  private func isPosition(_ input: ValueID) -> Bool {
    guard function[input].name == "position" else { return false }
    return function.states.indices.contains { cacheUpdate($0) != nil } || isUnused(position: input)
  }

  /// Whether a position only says when a text begins, which states of zeros say.
  private func isUnused(position: ValueID) -> Bool {
    function.users(of: position).allSatisfy { function[$0].op is CausalConv || function[$0].op is SelectiveScan }
  }

  mutating func declareInputs() throws {
    for input in function.inputs {
      let type = type(input)
      let name = function[input].name
      if isPosition(input) { continue }
      if isText, name == "tokens" {
        let outer = writer.fresh("input_ids")
        writer.input(outer, .i64, [.fixed(1), .open("sequence")])
        // Its only open size is left to ONNX.
        names[input] = writer.node("Reshape", [outer, writer.integers([-1])])
        bind(type.shape, of: names[input] ?? outer)
        tokenSymbol = type.shape.dims[0].onlySymbol
        continue
      }
      let outer = writer.fresh(name)
      writer.input(outer, type.element, type.shape.dims.map { ONNXSize($0) })
      names[input] = outer
      bind(type.shape, of: outer)
    }
    for index in function.states.indices {
      let state = function.states[index].value
      let type = type(state)
      if let node = cacheUpdate(index) {
        if fills(node) { continue }
        let heads = heads(ofState: state)
        let width = (type.shape[1].fixedValue ?? heads) / heads
        let outer = writer.fresh("past_key_values." + cacheName(function[state].name))
        writer.input(
          outer, .f32, [.fixed(1), .fixed(heads), .open("past_sequence"), .fixed(width)])
        caches[state] = outer
        if pastRows == nil {
          pastRows = writer.node(
            "Gather", [writer.node("Shape", [outer]), writer.integers([2])], [("axis", .int(0))])
        }
      } else if let slices = sourceRows(index) {
        let heads = heads(ofState: state)
        let width = (type.shape[1].fixedValue ?? heads) / heads
        let outer = writer.fresh("past_key_values." + cacheName(function[state].name))
        writer.input(outer, .f32, [.fixed(1), .fixed(heads), .open("encoder_sequence"), .fixed(width)])
        for slice in slices { caches[function[slice].results[0]] = outer }
        if let slice = slices.first, let op = function[slice].op as? Slice, let symbol = op.size.onlySymbol {
          bind(symbol, to: outer, axis: 2)
        }
      } else {
        let outer = writer.fresh("past." + function[state].name)
        writer.input(outer, type.element, type.shape.dims.map { ONNXSize($0) })
        names[state] = outer
      }
    }
    for input in function.inputs where names[input] == nil && !isUnused(position: input) {
      names[input] = cast(pastRows ?? writer.integers([0]), to: .i32)
    }
  }

  /// `N.key` for the state `kN`, `N.value` for `vN`; with an encoder `N.decoder.key` for it and `N.encoder.key` for `cross_kN`.
  private func cacheName(_ name: String) -> String {
    let cross = "cross_"
    let isCross = name.hasPrefix(cross)
    let own = isCross ? name.dropFirst(cross.count) : name[...]
    guard let number = Int(own.dropFirst()), let kind = own.first, kind == "k" || kind == "v" else { return name }
    let hasEncoder = function.states.contains { function[$0.value].name.hasPrefix(cross) }
    return "\(number)." + (hasEncoder ? isCross ? "encoder." : "decoder." : "") + (kind == "k" ? "key" : "value")
  }

  private mutating func bind(_ shape: Shape, of name: String) {
    for (axis, dim) in shape.dims.enumerated() {
      if let symbol = dim.onlySymbol { bind(symbol, to: name, axis: axis) }
    }
  }

  /// Lets a symbol be a size of a value, if it has none yet.
  private mutating func bind(_ symbol: Symbol, to name: String, axis: Int) {
    guard symbols[symbol] == nil else { return }
    symbols[symbol] = writer.node(
      "Gather", [writer.node("Shape", [name]), writer.integers([axis])], [("axis", .int(0))])
  }

  mutating func declareOutputs() throws {
    for (value, name) in zip(function.outputs, function.outputNames) {
      let type = type(value)
      let outer = writer.fresh(name == "input_ids" ? "output" : name)
      if isText {
        writer.nodes("Reshape", [try self.name(value), try shape([1] + type.shape.dims)], [outer])
        let sizes = type.shape.dims.map { $0.isFixed ? ONNXSize($0) : .open("sequence") }
        writer.output(outer, type.element, [.fixed(1)] + sizes)
      } else {
        writer.nodes("Identity", [try self.name(value)], [outer])
        writer.output(outer, type.element, type.shape.dims.map { ONNXSize($0) })
      }
    }
    for (index, state) in function.states.enumerated() {
      let type = type(state.value)
      let name = function[state.value].name
      if sourceRows(index) != nil { continue }
      if let node = cacheUpdate(index), let cache = caches[state.update] {
        let outer = writer.fresh("present." + cacheName(name))
        writer.nodes("Identity", [cache], [outer])
        let heads = heads(ofState: state.value)
        let width = (type.shape[1].fixedValue ?? heads) / heads
        let rows = fills(node) ? "sequence" : "total_sequence"
        writer.output(outer, .f32, [.fixed(1), .fixed(heads), .open(rows), .fixed(width)])
      } else {
        let outer = writer.fresh("present." + name)
        writer.nodes("Identity", [try self.name(state.update)], [outer])
        writer.output(outer, type.element, type.shape.dims.map { ONNXSize($0) })
      }
    }
  }

  /// Appends rows to a cache, `[1, heads, rows, width]`.
  mutating func append(_ id: NodeID) throws {
    let node = function[id]
    let rows = type(node.inputs[1])
    let past = caches[node.inputs[0]]
    guard past != nil || fills(id) else {
      throw failure(node, "on something that is no state is not written as ONNX")
    }
    let heads = heads(ofState: node.inputs[0])
    let width = (rows.shape[1].fixedValue ?? heads) / heads
    let parted = try reshape(try wide(node.inputs[1]), [1, rows.shape[0], .fixed(heads), .fixed(width)])
    let new = transpose(parted, [0, 2, 1, 3])
    caches[node.results[0]] = past.map { writer.node("Concat", [$0, new], [("axis", .int(2))]) } ?? new
  }

  /// Keys or values as `[batch, heads, rows, width]`.
  mutating func byHead(_ value: ValueID, heads: Int) throws -> String {
    if let cache = caches[value] { return cache }
    let type = type(value)
    let columns = try type.shape.last.fixedValue ?? { throw CompileError(.unsupported, "open columns of attention") }()
    let batch: Dim = type.rank == 3 ? type.shape[0] : 1
    let parted = try reshape(
      try wide(value), [batch, type.shape[type.rank - 2], .fixed(heads), .fixed(columns / heads)])
    return transpose(parted, [0, 2, 1, 3])
  }

  /// A cache as the rows that the IR knows, `[rows, heads * width]`.
  mutating func flattened(_ cache: String, _ value: ValueID) throws -> String {
    let columns = type(value).shape.last
    let name = writer.node("Reshape", [transpose(cache, [0, 2, 1, 3]), try shape([.fixed(-1), columns])])
    names[value] = name
    return name
  }
}

extension Dim {
  /// The symbol that the size is, if it is one and no more.
  fileprivate var onlySymbol: Symbol? {
    guard terms.count == 1, offset == 0, terms[0].coefficient == 1, case .symbol(let symbol) = terms[0].atom else {
      return nil
    }
    return symbol
  }
}
