import Base
import IR
import Tensors

/// Arithmetic on shapes is carried out while a graph is imported: what nodes compute from constants and sizes alone
/// becomes a constant, or, where sizes have symbols, an expression of them.
extension ONNXImporter {
  /// The bytes of constants that the computation of a folded value may read.
  private static let foldingBytes = 1 << 16
  /// The nodes that the computation of a folded value may have.
  private static let foldingNodes = 64

  /// The value itself, or what stands for it where it is known: a constant, or sizes with symbols.
  mutating func folded(_ value: ValueID) throws -> ValueID {
    guard let node = builder.graph.definingNode(of: value) else { return value }
    let type = builder.type(of: value)
    guard let count = type.shape.fixedSizes?.reduce(1, *), count <= Constant.inlineLimit, type.isDense else {
      return value
    }
    let result: ValueID
    if let constant = computed(value) {
      result = builder.constant(constant)
    } else if type.element == .i64, type.rank <= 1, !(builder.graph[node].op is Sizes), let sizes = sizes(of: value) {
      // The name goes over to the last node.
      let vector = try builder.emit(Sizes(sizes))
      result = type.rank == 1 ? vector : try builder.emit(Reshape([]), vector)
      knownSizes[result] = sizes
    } else {
      return value
    }
    erase(node)
    return result
  }

  /// The value of a computation on constants, as a constant; nil if it is none, is long, or has no result.
  private func computed(_ value: ValueID) -> Constant? {
    var bytes = 0
    var nodes = 0
    var stack = [value]
    var seen: Set<ValueID> = []
    while let next = stack.popLast() {
      guard seen.insert(next).inserted else { continue }
      if builder.graph.constant(of: next) != nil {
        bytes += builder.type(of: next).byteCount ?? Self.foldingBytes
      } else if let node = builder.graph.definingNode(of: next), !builder.graph[node].op.namesSymbols {
        nodes += 1
        stack += builder.graph[node].inputs
      } else {
        return nil
      }
      guard bytes <= Self.foldingBytes, nodes <= Self.foldingNodes else { return nil }
    }
    var model = model
    model.constants = builder.constants
    // What has no value, such as an index outside, stays in the graph: it fails when it runs.
    guard let tensor = try? ConstantEvaluator(model, builder.graph).tensor(value) else { return nil }
    return Constant(
      name: builder.graph[value].name, type: tensor.type, source: .inline(Array(tensor.view.bytes)))
  }

  /// Erases a node whose results nobody uses, and those before it that it alone used.
  private mutating func erase(_ node: NodeID) {
    let results = builder.graph[node].results
    guard results.allSatisfy({ builder.graph[$0].uses.isEmpty && !isBound($0) }) else { return }
    let inputs = builder.graph[node].inputs
    builder.graph.erase(node)
    for input in Set(inputs) {
      if let next = builder.graph.definingNode(of: input) { erase(next) }
    }
  }

  /// The elements of a list of whole numbers as sizes, which may have symbols; nil if they are not known.
  mutating func sizes(of value: ValueID) -> [Dim]? {
    if let known = knownSizes[value] { return known }
    let sizes = derivedSizes(of: value)
    knownSizes[value] = .some(sizes)
    return sizes
  }

  private mutating func derivedSizes(of value: ValueID) -> [Dim]? {
    if builder.graph.constant(of: value) != nil {
      let element = builder.type(of: value).element
      guard element == .i64 || element == .i32, let numbers = try? integers(of: value) else { return nil }
      return numbers.map { .fixed($0) }
    }
    guard let id = builder.graph.definingNode(of: value) else { return nil }
    let node = builder.graph[id]
    let type = builder.type(of: value)
    guard let shape = type.shape.fixedSizes, case let count = shape.reduce(1, *), count <= Constant.inlineLimit,
      type.rank <= 1
    else { return nil }
    if let op = node.op as? Sizes { return op.sizes }
    var inputs: [[Dim]] = []
    for input in node.inputs {
      guard builder.type(of: input).rank <= 1, let sizes = sizes(of: input) else { return nil }
      inputs.append(sizes)
    }
    switch node.op {
    case is Reshape: return inputs[0]
    case let op as Cast: return op.type == .i64 ? inputs[0] : nil
    case is Expand: return inputs[0].count == 1 ? Array(repeating: inputs[0][0], count: count) : inputs[0]
    case is Concat: return inputs.flatMap { $0 }
    case is Gather:
      let size = inputs[0].count
      return each(inputs[1].count) { index in
        guard let place = inputs[1][index].fixedValue, place >= -size, place < size else { return nil }
        return inputs[0][place < 0 ? place + size : place]
      }
    case let op as Slice:
      guard let start = op.start.fixedValue else { return nil }
      return each(count) { index in
        let place = start + index * op.step
        return inputs[0].indices.contains(place) ? inputs[0][place] : nil
      }
    case let op as any BinaryOperator where inputs.count == 2:
      return each(count) { index in
        Self.apply(
          Swift.type(of: op).function, inputs[0][inputs[0].count == 1 ? 0 : index],
          inputs[1][inputs[1].count == 1 ? 0 : index])
      }
    case is Select:
      return each(count) { index in
        let operands = inputs.map { $0[$0.count == 1 ? 0 : index] }
        return operands[0].fixedValue.map { operands[$0 != 0 ? 1 : 2] }
      }
    default: return nil
    }
  }

  private func each(_ count: Int, _ element: (Int) -> Dim?) -> [Dim]? {
    var result: [Dim] = []
    for index in 0..<count {
      guard let dim = element(index) else { return nil }
      result.append(dim)
    }
    return result
  }

  /// Arithmetic on two sizes; nil where the result is no size or depends on the symbols in another way.
  private static func apply(_ function: BinaryFunction, _ a: Dim, _ b: Dim) -> Dim? {
    let limit = 1 << 40
    guard [a, b].allSatisfy({ $0.bounds.lowerBound >= -limit && $0.bounds.upperBound <= limit }) else { return nil }
    switch function {
    case .add: return a + b
    case .subtract: return a - b
    case .multiply:
      guard let product = Dim.product(a, b), product.bounds.upperBound <= limit else { return nil }
      return product
    case .divide:
      if let quotient = Dim.exactQuotient(a, b) { return quotient }
      guard let divisor = b.fixedValue, divisor > 0, a.bounds.lowerBound >= 0 else { return nil }
      return a / divisor
    case .equal:
      if a == b { return 1 }
      return (a - b).bounds.contains(0) ? nil : 0
    case .minimum:
      if (b - a).bounds.lowerBound >= 0 { return a }
      return (a - b).bounds.lowerBound >= 0 ? b : nil
    case .maximum:
      if (a - b).bounds.lowerBound >= 0 { return a }
      return (b - a).bounds.lowerBound >= 0 ? b : nil
    default: return nil
    }
  }
}
