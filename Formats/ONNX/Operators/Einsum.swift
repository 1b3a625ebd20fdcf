import Base
import IR
import Tensors

extension ONNXOperators {
  /// Sums of products over named axes.
  static let sums: [ONNXOperator] = [
    ONNXOperator("Einsum") { node, importer in
      let equation = try node.string("equation", default: "")
      let inputs = try node.inputs(&importer)
      let terms = inputs.map { EinsumTerm(value: $0, shape: importer.builder.type(of: $0).shape) }
      return [try Einsum(equation, count: inputs.count).build(terms, &importer)]
    }
  ]
}

/// A factor of a sum of products: a value and the names of its axes.
private struct EinsumTerm {
  var value: ValueID
  let shape: Shape
  var axes: [UInt8] = []
}

/// An equation such as `bhqd,bhkd->bhqk`: axes by letters, of each factor and of the result.
private struct Einsum {
  let factors: [[UInt8]]
  let result: [UInt8]

  init(_ equation: String, count: Int) throws {
    let text = equation.utf8.filter { $0 != UInt8(ascii: " ") }
    func failure() -> CompileError {
      CompileError(.unsupported, "unsupported equation '\(equation)' of \(count) inputs")
    }
    let arrow = text.firstIndex(of: UInt8(ascii: ">")) ?? text.endIndex
    var left = text[..<arrow]
    if arrow < text.endIndex {
      guard left.last == UInt8(ascii: "-") else { throw failure() }
      left = left.dropLast()
    }
    factors = left.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false).map { Array($0) }
    let letters = factors.flatMap { $0 }
    // Without a result: the letters that stand once, in alphabetical order.
    result =
      arrow < text.endIndex
      ? Array(text[text.index(after: arrow)...])
      : Set(letters).sorted().filter { letter in letters.count { $0 == letter } == 1 }
    func isPlain(_ axes: [UInt8]) -> Bool {
      Set(axes).count == axes.count && axes.allSatisfy { Unicode.Scalar($0).properties.isAlphabetic }
    }
    guard factors.count == count, count > 0, (factors + [result]).allSatisfy(isPlain),
      Set(result).isSubset(of: letters), letters.count <= 64
    else { throw failure() }
  }

  /// Two factors at a time; axes that no other factor and not the result names are summed up as early as can be.
  func build(_ terms: [EinsumTerm], _ importer: inout ONNXImporter) throws -> ValueID {
    var sizes: [UInt8: Dim] = [:]
    var pending: [EinsumTerm] = []
    for (term, axes) in zip(terms, factors) {
      var term = term
      guard axes.count == term.shape.rank else {
        throw CompileError(.input, "'Einsum' names \(axes.count) axes of an input of shape \(term.shape)")
      }
      for (axis, size) in zip(axes, term.shape.dims) {
        guard sizes[axis] == nil || sizes[axis] == size else {
          throw CompileError(
            .unsupported, "unsupported 'Einsum' with the sizes \(sizes[axis] ?? 1) and \(size) of one axis")
        }
        sizes[axis] = size
      }
      term.axes = axes
      pending.append(term)
    }
    var product = pending.removeFirst()
    while !pending.isEmpty {
      let next = pending.removeFirst()
      let later = Set(result).union(pending.flatMap(\.axes))
      product = try self.product(product, next, keeping: later, sizes, &importer)
    }
    product = try summed(product, keeping: Set(result), &importer)
    return try arranged(product, result, &importer).value
  }

  /// A factor without the axes that are not kept.
  private func summed(
    _ term: EinsumTerm, keeping: Set<UInt8>, _ importer: inout ONNXImporter
  ) throws -> EinsumTerm {
    let dropped = term.axes.indices.filter { !keeping.contains(term.axes[$0]) }
    guard !dropped.isEmpty else { return term }
    var result = term
    result.value = try importer.builder.emit(Reduce(.sum, axes: dropped), term.value)
    result.axes = term.axes.filter(keeping.contains)
    return result
  }

  /// A factor with its axes in another order.
  private func arranged(
    _ term: EinsumTerm, _ order: [UInt8], _ importer: inout ONNXImporter
  ) throws -> EinsumTerm {
    guard order != term.axes else { return term }
    let places = order.compactMap { term.axes.firstIndex(of: $0) }
    guard places.count == term.axes.count else { throw CompileError(.input, "'Einsum' loses an axis") }
    var result = term
    result.value = try importer.builder.emit(Transpose(places), term.value)
    result.axes = order
    return result
  }

  /// The product of two factors, summed up over the axes that are not kept.
  private func product(
    _ a: EinsumTerm, _ b: EinsumTerm, keeping: Set<UInt8>, _ sizes: [UInt8: Dim], _ importer: inout ONNXImporter
  ) throws -> EinsumTerm {
    let left = try summed(a, keeping: keeping.union(b.axes), &importer)
    let right = try summed(b, keeping: keeping.union(a.axes), &importer)
    let shared = left.axes.filter(right.axes.contains)
    let batch = shared.filter(keeping.contains), depth = shared.filter { !keeping.contains($0) }
    let rows = left.axes.filter { !shared.contains($0) }, columns = right.axes.filter { !shared.contains($0) }
    func dims(_ axes: [UInt8]) -> [Dim] { axes.compactMap { sizes[$0] } }
    func size(_ axes: [UInt8]) throws -> Dim {
      guard let size = Shape.product(dims(axes)) else {
        throw CompileError(.unsupported, "unsupported 'Einsum' over axes of sizes \(Shape(dims(axes)))")
      }
      return size
    }
    let outer = try size(batch)
    let first = try arranged(left, batch + rows + depth, &importer).value
    let second = try arranged(right, batch + depth + columns, &importer).value
    let x = try importer.builder.emit(Reshape([outer, try size(rows), try size(depth)]), first)
    let y = try importer.builder.emit(Reshape([outer, try size(depth), try size(columns)]), second)
    let sums = try importer.builder.emit(MatMul(), x, y)
    var result = left
    result.axes = batch + rows + columns
    result.value = try importer.builder.emit(Reshape(dims(result.axes)), sums)
    return result
  }
}
