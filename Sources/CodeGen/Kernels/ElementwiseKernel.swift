import IR
import Tensors

/// Elementwise operators, chains and conversions.
package enum ElementwiseKernel: Kernel {
  package static let name = "elementwise"
  package static let summary = "functions of single elements with broadcast inputs, and conversions of element types"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard query.isPlain(), !query.operands.isEmpty else { return [] }
    let expression: ScalarExpression
    if let op = query.operation.op as? any Elementwise {
      expression = op.expression
    } else if query.operation.op is Cast {
      expression = .input(0)
    } else {
      return []
    }
    let result = try query.resultTypes()[0]
    let types = query.operands.map(\.type)
    guard let output = result.element.scalar, !types.contains(where: { $0.element.scalar == nil }) else { return [] }
    var extents = ExtentTable()
    let space = IndexSpace(result.shape, inputs: types.map(\.shape))
    let dimensions = space.sizes.enumerated().map { extents.extent($1, "d\($0)") }
    var config = ElementwiseConfig(
      expression: expression, dimensions: dimensions,
      inputs: zip(types, space.isBroadcast).map { .init($0.element.scalar ?? .f32, isBroadcast: $1) }, output: output)
    config.toTruth = result.element == .bool && query.operation.op is Cast
    config.isOnCodes = query.operation.op is QuantizeLinear || query.operation.op is DequantizeLinear
    guard let domain = config.domain(result: result.element, inputs: types.map(\.element)) else { return [] }
    config.isInteger = domain == .integer
    config.isDouble = domain == .double
    let count = Double(result.shape.maximumSizes.reduce(1, *))
    let read = types.reduce(0.0) { $0 + Double($1.maximumByteCount) }
    let work = KernelWork(
      floatOperations: count * Double(1 + expression.operationCount) * (domain == .vector ? 2 : 16),
      bytes: (read + count * Double(result.element.byteCount)) / 2)
    let inPlace = types.indices.filter {
      types[$0].shape == result.shape && types[$0].element.byteCount == result.element.byteCount
    }
    return [
      KernelChoice(
        config.build(name: config.name(target: target), target: target), work: work, target: target,
        pointers: types.indices.map { .input($0) } + [.result(0)], extents: extents, layouts: query.unpacked,
        inPlace: Set(inPlace))
    ]
  }
}

/// The index space of a broadcast computation with as few axes as possible: neighbouring axes that all inputs treat alike are
/// one axis.
struct IndexSpace {
  private(set) var sizes: [Dim] = []
  /// For each input and axis whether all indices see one element.
  private(set) var isBroadcast: [[Bool]]

  init(_ shape: Shape, inputs: [Shape]) {
    isBroadcast = inputs.map { _ in [] }
    for axis in 0..<shape.rank where shape[axis] != 1 {
      let flags = inputs.map { input in
        let own = axis - (shape.rank - input.rank)
        return own < 0 || input[own] != shape[axis]
      }
      if let last = sizes.last, inputs.indices.allSatisfy({ isBroadcast[$0].last == flags[$0] }),
        let merged = Dim.product(last, shape[axis])
      {
        sizes[sizes.count - 1] = merged
      } else {
        sizes.append(shape[axis])
        for index in inputs.indices { isBroadcast[index].append(flags[index]) }
      }
    }
    if sizes.isEmpty {
      sizes = [1]
      isBroadcast = inputs.map { _ in [false] }
    }
  }
}

extension ElementwiseConfig {
  /// In which numbers a chain is computed.
  enum Domain { case vector, integer, double }

  /// f32 vectors for f32, f16, bf16 and bool (and bytes that are converted), 64-bit integers for whole numbers, f64 for f64;
  /// nil if the kernel cannot keep the meaning.
  func domain(result: DType, inputs: [DType]) -> Domain? {
    let numbers = inputs.filter { $0 != .bool }
    if numbers.contains(.f64) || result == .f64 { return expression.isSimple ? .double : nil }
    let narrow: Set<DType> = [.f32, .f16, .bf16]
    if numbers.allSatisfy(narrow.contains), narrow.contains(result) || result == .bool { return .vector }
    // Codes of u8: whole numbers that f32 holds.
    let bytes = narrow.union([.u8])
    if isOnCodes, numbers.allSatisfy(bytes.contains), bytes.contains(result) { return .vector }
    if numbers.allSatisfy(\.isInteger), result.isInteger || result == .bool { return .integer }
    guard expression == .input(0) else { return nil }
    // Conversions between floating point and whole numbers, which cut towards zero and hold to the limits.
    return .double
  }

  /// `mcc_add_silu_2048_1a2b3c_avx512`: functions, sizes, a hash of everything.
  package func name(target: Target) -> String {
    var words: [String] = []
    expression.collectNames(&words)
    if words.isEmpty { words = [inputs.first?.element == output ? "copy" : "cast_\(output.rawValue)"] }
    let sizes = dimensions.map(\.text).joined(separator: "x")
    return "mcc_\(words.prefix(5).joined(separator: "_"))_\(sizes)_\(shortHash("\(self)"))_\(target.suffix)"
  }
}

extension ScalarExpression {
  /// Whether everything can be computed in f64 by C operators.
  var isSimple: Bool {
    switch self {
    case .input, .constant: true
    case .unary(let function, let x): [.negate, .abs, .relu, .sqrt, .reciprocal].contains(function) && x.isSimple
    case .binary(let function, let x, let y):
      function != .power && function != .modulo && function != .and && function != .or && x.isSimple && y.isSimple
    case .select(let c, let x, let y): c.isSimple && x.isSimple && y.isSimple
    }
  }

  fileprivate func collectNames(_ words: inout [String]) {
    switch self {
    case .input, .constant: return
    case .unary(let function, let x):
      x.collectNames(&words)
      words.append(function.rawValue)
    case .binary(let function, let x, let y):
      x.collectNames(&words)
      y.collectNames(&words)
      words.append(function.rawValue)
    case .select(let c, let x, let y):
      for part in [c, x, y] { part.collectNames(&words) }
      words.append("select")
    }
  }
}
