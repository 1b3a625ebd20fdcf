import Base
import Tensors

extension Elementwise {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let elements = inputs.map(\.type.element).filter { $0 != .bool }
    if elements.contains(.f64) {
      try evaluate(in: Double.self, inputs, outputs[0])
    } else if elements.first?.isFloat ?? false {
      try evaluate(in: Float.self, inputs, outputs[0])
    } else {
      try evaluate(in: Int64.self, inputs, outputs[0])
    }
  }

  private func evaluate<S: Computable>(in type: S.Type, _ inputs: [TensorView], _ output: MutableTensorView) throws {
    let numbers = inputs.map { Numbers<S>($0) }
    let result = Results<S>(output)
    let chain = ElementwiseChain(expression, numbers, result)
    let defined = withExtendedLifetime((numbers, result)) { chain.run() }
    guard defined else { throw failure("zero has no negative power among whole numbers") }
    result.store()
  }
}

/// A function that is not defined for an element.
private struct UndefinedElement: Error {}

/// One expression over the elements of broadcast operands, computed in runs along the innermost axis.
private struct ElementwiseChain<S: Computable>: @unchecked Sendable {
  static var chunk: Int { 512 }

  let expression: ScalarExpression
  let sources: [UnsafePointer<S>]
  let target: UnsafeMutablePointer<S>
  let loops: StridedLoops

  init(_ expression: ScalarExpression, _ inputs: [Numbers<S>], _ result: Results<S>) {
    self.expression = expression
    sources = inputs.map(\.data)
    target = result.data
    loops = StridedLoops(
      sizes: result.sizes, strides: inputs.map { broadcastStrides($0.sizes, over: result.sizes) })
  }

  /// Computes all results; false if a function is not defined for an element.
  func run() -> Bool {
    let chunks = (loops.inner + Self.chunk - 1) / Self.chunk
    do {
      try parallelFor(loops.outer * chunks, grain: max(1, 65536 / max(1, min(loops.inner, Self.chunk)))) { range in
        // Operands of a node of depth d lie in the slots from d on.
        let scratch = Scratch<S>((expression.depth + 2) * Self.chunk)
        try withExtendedLifetime(scratch) {
          for index in range {
            let (row, part) = index.quotientAndRemainder(dividingBy: chunks)
            let first = part * Self.chunk
            let count = min(Self.chunk, loops.inner - first)
            let output = target + row * loops.inner + first
            let offsets = loops.offsets(row)
            let run = Run(chain: self, offsets: offsets, first: first, count: count)
            guard run.compute(expression, into: output, scratch.data) else { throw UndefinedElement() }
          }
        }
      }
      return true
    } catch {
      return false
    }
  }

  struct Run {
    let chain: ElementwiseChain
    let offsets: [Int]
    let first: Int
    let count: Int

    func compute(
      _ expression: ScalarExpression, into output: UnsafeMutablePointer<S>, _ free: UnsafeMutablePointer<S>
    ) -> Bool {
      switch expression {
      case .input(let index):
        let stride = chain.loops.innerStrides[index]
        let source = chain.sources[index] + offsets[index] + first * stride
        if stride == 0 {
          output.update(repeating: source[0], count: count)
        } else if stride == 1 {
          output.update(from: source, count: count)
        } else {
          for i in 0..<count { output[i] = source[i * stride] }
        }
        return true
      case .constant(let bits):
        output.update(repeating: S(rounding: Double(Float(bitPattern: bits))), count: count)
        return true
      case .unary(let function, let x):
        guard compute(x, into: output, free) else { return false }
        S.apply(function, to: output, count: count)
        return true
      case .binary(let function, let x, let y):
        guard compute(x, into: output, free), compute(y, into: free, free + ElementwiseChain.chunk) else {
          return false
        }
        return S.apply(function, to: output, free, count: count)
      case .select(let condition, let x, let y):
        let next = free + ElementwiseChain.chunk
        guard compute(condition, into: free, next), compute(x, into: output, next),
          compute(y, into: next, next + ElementwiseChain.chunk)
        else { return false }
        for i in 0..<count where free[i] == S.zero { output[i] = next[i] }
        return true
      }
    }
  }
}

extension ScalarExpression {
  /// A bound of the operands that wait while one is computed.
  fileprivate var depth: Int {
    switch self {
    case .input, .constant: 0
    case .unary(_, let x): x.depth
    case .binary(_, let x, let y): max(x.depth, 1 + y.depth)
    case .select(let c, let x, let y): max(1 + c.depth, 1 + x.depth, 2 + y.depth)
    }
  }
}

/// The strides, in elements, of a dense tensor of the given sizes over the axes of a shape it broadcasts to.
func broadcastStrides(_ sizes: [Int], over result: [Int]) -> [Int] {
  var strides = [Int](repeating: 0, count: result.count)
  var stride = 1
  for axis in sizes.indices.reversed() {
    if sizes[axis] != 1 { strides[axis + result.count - sizes.count] = stride }
    stride *= sizes[axis]
  }
  return strides
}

/// The strides, in elements, of a dense tensor.
func denseStrides(_ sizes: [Int]) -> [Int] {
  var strides = [Int](repeating: 1, count: sizes.count)
  for axis in sizes.indices.dropLast().reversed() { strides[axis] = strides[axis + 1] * sizes[axis + 1] }
  return strides
}

/// Loops over the elements of a dense result in order, with the places of the elements of other tensors: one outer loop
/// and one inner loop, made as long as the strides allow.
struct StridedLoops: Sendable {
  /// Sizes and, per tensor, strides of the outer axes.
  private var sizes: [Int] = []
  private var strides: [[Int]]
  /// Elements of the inner loop.
  private(set) var inner = 1
  /// Strides of the tensors in the inner loop.
  private(set) var innerStrides: [Int]

  init(sizes: [Int], strides tensors: [[Int]]) {
    var sizes = sizes
    var tensors = tensors
    var axis = sizes.count - 1
    while axis >= 0 {
      if sizes[axis] == 1 {
        sizes.remove(at: axis)
        for i in tensors.indices { tensors[i].remove(at: axis) }
      } else if axis + 1 < sizes.count, tensors.allSatisfy({ $0[axis] == $0[axis + 1] * sizes[axis + 1] }) {
        sizes[axis] *= sizes[axis + 1]
        sizes.remove(at: axis + 1)
        for i in tensors.indices { tensors[i].remove(at: axis) }
      }
      axis -= 1
    }
    inner = sizes.popLast() ?? 1
    innerStrides = tensors.map { $0.last ?? 0 }
    self.sizes = sizes
    strides = tensors.map { Array($0.dropLast()) }
  }

  /// Rounds of the outer loop.
  var outer: Int { sizes.reduce(1, *) }

  /// Where the inner loop of round `row` starts in each tensor.
  func offsets(_ row: Int) -> [Int] {
    var rest = row
    var offsets = [Int](repeating: 0, count: strides.count)
    for axis in sizes.indices.reversed() {
      let index = rest % sizes[axis]
      rest /= sizes[axis]
      for tensor in strides.indices { offsets[tensor] += index * strides[tensor][axis] }
    }
    return offsets
  }
}
