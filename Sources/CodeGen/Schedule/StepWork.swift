import IR
import Tensors

/// What an operation has to move and to compute at least, however a kernel does it: the figures that measured times are
/// held against.
package struct StepWork: Hashable, Sendable {
  /// The kind of arithmetic, which decides the limit of the machine.
  package enum Arithmetic: String, Hashable, Sendable, CaseIterable {
    case float
    /// Products of bytes.
    case byte
    /// Products of 4-bit weights and bytes.
    case nibble
  }

  package var arithmetic: Arithmetic
  /// Multiplications and additions, or results of an operation of another kind.
  package var operations: SizePolynomial
  /// Bytes of constants read; of a table, the rows that are gathered.
  package var weightBytes: SizePolynomial
  /// Bytes of other operands read and of results written.
  package var otherBytes: SizePolynomial

  package init(
    arithmetic: Arithmetic = .float, operations: SizePolynomial = .init(), weightBytes: SizePolynomial = .init(),
    otherBytes: SizePolynomial = .init()
  ) {
    self.arithmetic = arithmetic
    self.operations = operations
    self.weightBytes = weightBytes
    self.otherBytes = otherBytes
  }

  /// All bytes.
  package var bytes: SizePolynomial { weightBytes + otherBytes }

  /// The name that stands for the number of tokens in the cache before the call.
  package static let position = "position"

  /// The work of an operation.
  ///
  /// - Parameters:
  ///   - op: what is computed.
  ///   - query: its operands as the kernel sees them.
  ///   - stored: the types of the operands as they lie in memory.
  ///   - results: the types of the results.
  package init(_ op: any Operator, _ query: KernelQuery, stored: [TensorType], results: [TensorType]) {
    self.init()
    // What a chain does to its input is little beside the operation.
    let chain = op as? Chained
    let op = chain?.operation.op ?? op
    let operands = query.operands
    let shapes = operands.map(\.type.shape)
    let result = results.first.map { SizePolynomial(count: $0.shape) } ?? SizePolynomial()
    operations = result
    var read = stored.indices.map { Self.bytes(stored[$0], seen: operands[$0].type) }
    if operands.count > 1, op is MatMul || op is Conv2D || op is ExpertMatMul || op is VocabularyStatistics {
      let isRounded = chain?.before.contains { $0.operation.op is Quantize } ?? false
      arithmetic = Self.arithmetic(operands[0], operands[1], isRounded: isRounded)
    }
    switch op {
    case let op as MatMul where shapes.count > 1:
      let rank = shapes[1].rank
      operations =
        SizePolynomial(count: shapes[0]) * SizePolynomial(size: shapes[1][rank - (op.transposeB ? 2 : 1)]) * 2
    case is VocabularyStatistics where shapes.count > 1:
      operations = SizePolynomial(count: shapes[0]) * SizePolynomial(size: shapes[1][0]) * 2
    case is ExpertMatMul where shapes.count > 2:
      // Of the weights no more than the chosen experts' are read.
      let rows = SizePolynomial(count: shapes[2])
      operations = rows * SizePolynomial(size: shapes[1][1]) * SizePolynomial(size: shapes[1][2]) * 2
      if let experts = shapes[1][0].fixedValue, experts > 0, let slots = shapes[2][1].fixedValue {
        let tokens = shapes[2][0].maximum
        read[1] = read[1] * min(1, Double(tokens * slots) / Double(experts))
      }
    case is Recurrence where shapes.count > 1:
      operations = SizePolynomial(count: shapes[0]) * SizePolynomial(size: shapes[1][0]) * 2
    case is Conv2D where shapes.count > 1:
      // Each result is a sum over all of a filter but its first axis; gated epilogues have no convolutions.
      operations = shapes[1].dims.dropFirst().reduce(result * 2) { $0 * SizePolynomial(size: $1) }
    case let op as Attention where shapes.count > 2:
      let tokens = SizePolynomial(size: shapes[0][shapes[0].rank - 2])
      var keys = SizePolynomial(size: shapes[1][shapes[1].rank - 2])
      if op.optionalInputs(operands.map(\.type)).position != nil {
        // A token sees those before it and itself: (tokens + 1) / 2 of its own call on average.
        keys = op.window.map { SizePolynomial(Double($0)) } ?? Self.visible(tokens)
        for index in 1...2 {
          let perElement = Double(stored[index].largestByteCount) / Double(max(stored[index].maximumCount, 1))
          let row = SizePolynomial(size: shapes[index].last) * perElement
          read[index] = op.window == nil ? row * (SizePolynomial(symbol: Self.position) + tokens) : row * keys
        }
      }
      let width = SizePolynomial(size: shapes[0].last) + SizePolynomial(size: results.first?.shape.last ?? 0)
      let batch = shapes[0].rank == 3 ? SizePolynomial(size: shapes[0][0]) : SizePolynomial(1)
      operations = batch * tokens * keys * width * 2
      if let factors = op.latentInputs(shapes.count)?.lowerBound {
        operations = operations + keys * SizePolynomial(count: shapes[factors]) * 2
      }
    case is BoundedAttention where shapes.count > 6:
      // Rows that are taken, at most all.
      let width = SizePolynomial(size: shapes[3].last) + SizePolynomial(size: results.last?.shape.last ?? 0)
      operations = SizePolynomial(size: shapes[3][0]) * SizePolynomial(size: shapes[0][1]) * width * 2
    case is Gather where !read.isEmpty:
      let perElement = Double(stored[0].largestByteCount) / Double(max(operands[0].type.maximumCount, 1))
      read[0] = result * perElement
    case is CacheUpdate where read.count > 1:
      read[0] = SizePolynomial()
    default: break
    }
    for (index, operand) in operands.enumerated() {
      if operand.isConstant { weightBytes += read[index] } else { otherBytes += read[index] }
    }
    if op is CacheUpdate, shapes.count > 1 {
      operations = SizePolynomial(count: shapes[1])
      let perElement = results.first.map { Double($0.largestByteCount) / Double(max($0.maximumCount, 1)) } ?? 4
      otherBytes += SizePolynomial(count: shapes[1]) * perElement
    } else {
      // Of updated caches little is written.
      for type in op is BoundedAttention ? Array(results.suffix(1)) : results {
        otherBytes += Self.bytes(type, seen: type)
      }
    }
  }

  /// Rows of the cache that a token of a call sees on average.
  private static func visible(_ tokens: SizePolynomial) -> SizePolynomial {
    SizePolynomial(symbol: position) + (tokens + SizePolynomial(1)) * 0.5
  }

  /// The bytes of a tensor of the type `stored` as far as the part `seen` of its columns is concerned.
  private static func bytes(_ stored: TensorType, seen: TensorType) -> SizePolynomial {
    if stored.isDense { return SizePolynomial(count: seen.shape) * Double(stored.element.byteCount) }
    if let bytes = stored.byteCount { return SizePolynomial(Double(bytes)) }
    let count = Double(max(stored.maximumCount, 1))
    return SizePolynomial(count: seen.shape) * (Double(stored.largestByteCount) / count)
  }

  /// The arithmetic of a product of two operands.
  private static func arithmetic(
    _ left: KernelQuery.Operand, _ right: KernelQuery.Operand, isRounded: Bool
  ) -> Arithmetic {
    func isBytes(_ operand: KernelQuery.Operand) -> Bool {
      switch operand.type.encoding {
      case .dense: [.i8, .u8].contains(operand.type.element)
      case .block(let format): format.bits <= 8
      case .packed: true
      }
    }
    guard isRounded || isBytes(left), isBytes(right) else { return .float }
    if case .block(let format) = right.type.encoding, format.bits <= 4 { return .nibble }
    return .byte
  }
}

extension TensorType {
  /// Bytes with symbols at their largest, of any encoding; rows of a kernel's layout run over all leading axes.
  var largestByteCount: Int {
    if case .packed(let layout) = encoding {
      return layout.byteCount(rows: shape.maximumSizes.dropLast().reduce(1, *))
    }
    return maximumByteCount
  }
}
