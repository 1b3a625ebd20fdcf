import Base
import IR
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Rounds the weights that softmax gives to attention to codes of few bits (``SoftmaxCode``).
///
///     %y = attention(%q, %k, %v) {heads = 8, kvHeads = 8, scale = 0.125, causal = false}
///     // -> %p = softmax(multiply(matmul(%q4, %k4) {transposeB = true}, 0.125))     // [B, heads, T, S]
///     //    %c = round(multiply(add(log(add(%p, shift)), -log(largest + shift)), -1 / step)), in 0 ... 2^bits - 1
///     //    %r = subtract(exp(add(multiply(%c, -step), log(largest + shift))), shift), 0 for the last code
///     //    %y = reshape(transpose(matmul(%r, %v4)))
///
/// An attention is computed by the operators that it is made of; where a network has `matmul(softmax(...), %v)` as it is, the
/// rounding goes between. A key that a mask hides has the weight 0 and keeps it, and so has a query that sees none.
///
/// `text` says what is measured on: a text or token ids for a network that reads them, of which `samples` windows of
/// `length` tokens are taken, or an archive of samples for others. Each attention gets one code for all heads.
///
/// What a network loses when its softmax is quantized can be seen so. The program has numbers of 32 bits all the same: it
/// is slower, and no smaller.
package struct QuantizeSoftmax: TokenSampled {
  package static let name = "quantize-softmax"
  package static let summary = "rounds the weights of attention to codes of few bits, at the price of speed"
  package static let legality =
    "softmax of f32 numbers along the last axis weighs values that are computed, and no causality, window or soft cap "
    + "belongs to the attention"
  package static let source = "Y. Zhong and others (I&S-ViT), 2023, arXiv:2311.10126"

  /// Bits of a code, 2 to 8.
  package var bits: Int = 4
  package var kind: SoftmaxCode.Kind = .sulq
  /// What weights are measured on.
  package var text: String = ""
  /// Windows; nil for 16 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for the usual number.
  package var length: Int?

  private static let usualSamples = 16

  package init() {}

  package init(text: String, bits: Int = 4, kind: SoftmaxCode.Kind = .sulq) {
    self.text = text
    self.bits = bits
    self.kind = kind
  }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard (2...8).contains(bits) else {
      throw CompileError(.usage, "'bits' of '\(Self.name)' is \(bits), expected 2 to 8")
    }
    guard !text.isEmpty else {
      throw CompileError(.usage, "quantize-softmax needs samples: quantize-softmax{text=\"FILE\"}")
    }
    let places = model.functions.map { Self.places(in: $0, context) }
    guard places.contains(where: { !$0.isEmpty }) else { return }
    let runs = try windows(for: model, context, usual: Self.usualSamples)
    var codes: [[NodeID: SoftmaxCode]] = []
    var states: [[String: Tensor]] = []
    for index in model.functions.indices {
      codes.append(try measure(places[index], function: index, of: model, runs[index], &states, &context))
    }
    for (index, nodes) in places.enumerated() {
      var builder = GraphBuilder(graph: model.functions[index], constants: model.constants)
      for node in nodes {
        guard let code = codes[index][node] else { continue }
        _ = try builder.weights(of: node, rounded: code)
        context.count("softmax results rounded")
      }
      _ = builder.graph.eraseDeadCode()
      (model.functions[index], model.constants) = (builder.graph, builder.constants)
    }
  }

  // MARK: Where

  /// The attentions and softmax operators whose weights can be rounded.
  private static func places(in graph: Graph, _ context: PassContext) -> [NodeID] {
    let recipes = RecipeSet(graph).flags
    return graph.topologicalOrder().filter { node in
      let reason: String?
      if let op = graph[node].op as? Attention {
        reason = refusal(op, graph[node].inputs.map { graph.type(of: $0) })
      } else if let op = graph[node].op as? Softmax {
        reason = refusal(op, graph[node].results[0], in: graph, recipes)
      } else {
        return false
      }
      guard let reason else { return true }
      context.explain(Self.name, at: "%" + graph[graph[node].results[0]].name, reason)
      return false
    }
  }

  /// Why an attention stays as it is; nil if it need not.
  private static func refusal(_ op: Attention, _ types: [TensorType]) -> String? {
    if op.causal { return "the attention is causal: what it reads may be a cache" }
    if op.softcap != nil { return "the scores have a soft cap" }
    if op.int8 != nil { return "the attention computes in bytes" }
    for (type, role) in zip(types, ["queries", "keys", "values"]) {
      if !type.isDense { return "\(role) are codes" }
      if type.element != .f32 { return "\(role) are numbers in \(type.element.rawValue)" }
    }
    return nil
  }

  /// Why the result of a softmax stays as it is; nil if it need not.
  private static func refusal(_ op: Softmax, _ result: ValueID, in graph: Graph, _ recipes: [Bool]) -> String? {
    let type = graph.type(of: result)
    let weighs = graph[result].uses.allSatisfy { use in
      guard case .operand(let user, 0) = use, graph[user].op is MatMul else { return false }
      return !recipes[Int(graph[user].inputs[1].index)]
    }
    guard weighs, !graph[result].uses.isEmpty, !recipes[Int(result.index)] else {
      return "its result weighs no values that are computed"
    }
    if type.shape.normalizedAxis(op.axis) != type.rank - 1 { return "it is not along the last axis" }
    if type.element != .f32 { return "its numbers are in \(type.element.rawValue)" }
    return nil
  }

  // MARK: How

  /// The codes of a function's places, fitted on samples. States go on from function to function.
  private func measure(
    _ places: [NodeID], function index: Int, of model: Model, _ samples: [FunctionInputs],
    _ states: inout [[String: Tensor]], _ context: inout PassContext
  ) throws -> [NodeID: SoftmaxCode] {
    let goesOn = index < model.functions.count - 1
    guard goesOn || !places.isEmpty else { return [:] }
    var builder = GraphBuilder(graph: model.functions[index], constants: model.constants)
    var wanted: [NodeID: NodeID] = [:]
    for place in places {
      let weights = try builder.weights(of: place)
      guard let node = builder.graph.definingNode(of: weights) else { continue }
      wanted[node] = place
    }
    var open = model
    (open.functions[index], open.constants) = (builder.graph, builder.constants)
    let graph = builder.graph
    var walk = try SampleWalk(open, graph, samples.begun(states, model, graph), keepsStates: goesOn)
    let last = goesOn ? walk.order.count : (walk.order.lastIndex { wanted[$0] != nil } ?? -1) + 1
    var codes: [NodeID: SoftmaxCode] = [:]
    while let node = walk.next, walk.step < last {
      context.progress?.update("measuring weights", done: walk.step, of: last)
      try walk.advance()
      guard let place = wanted[node] else { continue }
      let name = model.functions[index][model.functions[index][place].results[0]].name
      var sums = SoftmaxWeights()
      for sample in 0..<walk.count { sums.add(try walk.tensor(graph[node].results[0], of: sample).numbers()) }
      guard sums.areFinite else {
        throw CompileError(.input, "the weights of '%\(name)' are not finite on the samples")
      }
      guard let fit = sums.code(kind, bits: bits) else {
        context.explain(Self.name, at: "%" + name, "all weights are 0 on the samples")
        continue
      }
      codes[place] = fit.code
      context.report(name, fit.error)
    }
    if goesOn { states = try (0..<walk.count).map { try walk.states(of: $0) } }
    return codes
  }
}

// MARK: Codes

/// A code of `bits` bits for softmax weights: numbers from 0 to `largest`, most of them small, a few large.
///
/// - `sulq`, shift-uniform-log2 (Y. Zhong and others, I&S-ViT, 2023, arXiv:2311.10126): with `shift` > 0 and
///   `u(p) = -log2(p + shift)`, which goes from `u(largest)` to `u(0)` in `2^bits - 1` steps of the same size,
///   `q = round((u(p) - u(largest)) / step)`, and `q` stands for `2^-(u(largest) + step q) - shift`. The last code stands for 0.
///   The shift is what leaves the least squared error of measured weights. The paper rounds exponents to whole numbers
///   for the sake of shifts of bits; here they are as the steps are, so that the base of the logarithm makes no difference.
/// - `log2`: `q = round(-log2(p / largest))` and `largest 2^-q`; a weight of 0 stays 0.
/// - `uniform`: `q = round(p / step)` and `step q` with `step = largest / (2^bits - 1)`.
///
/// Codes are limited to `0 ... 2^bits - 1`.
package struct SoftmaxCode: Hashable, Sendable {
  /// How codes are spaced.
  package enum Kind: String, Hashable, Codable, Sendable, CaseIterable { case sulq, log2, uniform }

  package let kind: Kind
  package let bits: Int
  package let largest: Float
  /// 0 for kinds without a shift.
  package let shift: Float

  /// The code of least squared error for some weights; nil if none is above 0.
  package init?(_ kind: Kind, bits: Int, fitting weights: [Float]) {
    var sums = SoftmaxWeights()
    sums.add(weights)
    guard sums.areFinite, let fit = sums.code(kind, bits: bits) else { return nil }
    self = fit.code
  }

  fileprivate init(_ kind: Kind, bits: Int, largest: Float, shift: Float = 0) {
    (self.kind, self.bits, self.largest, self.shift) = (kind, bits, largest, shift)
  }

  fileprivate var last: Int { 1 << bits - 1 }

  /// `log(largest + shift)`, which stands at the first code.
  private var highest: Double { log(Double(largest) + Double(shift)) }

  /// What the natural logarithm falls by from code to code.
  private var step: Double {
    kind == .log2 ? log(2) : (highest - log(Double(shift))) / Double(last)
  }

  /// What each code stands for, ascending, with the weight up to which it does.
  fileprivate var intervals: [(level: Double, end: Double)] {
    if kind == .uniform {
      let step = Double(largest) / Double(last)
      return (0...last).map { (Double($0) * step, $0 == last ? .infinity : (Double($0) + 0.5) * step) }
    }
    return (0...last).reversed().map { code in
      let level = kind == .sulq && code == last ? 0 : exp(highest - step * Double(code)) - Double(shift)
      return (level, code == 0 ? .infinity : exp(highest - step * (Double(code) - 0.5)) - Double(shift))
    }
  }

  /// Emits the rounding of weights.
  fileprivate func emit(_ weights: ValueID, in builder: inout GraphBuilder, name: String) throws -> ValueID {
    func number(_ value: Double, _ role: String) -> ValueID {
      builder.constant(.inline("\(name)_\(role)", .f32, [], [Float(value)]))
    }
    let zero = number(0, "zero"), end = number(Double(last), "last_code")
    if kind == .uniform {
      let step = Double(largest) / Double(last)
      let code = try builder.emit(Round(), builder.emit(Multiply(), weights, number(1 / step, "rate")))
      return try builder.emit(Multiply(), builder.emit(Minimum(), code, end), number(step, "step"))
    }
    var shifted = weights
    if kind == .sulq { shifted = try builder.emit(Add(), weights, number(Double(shift), "shift")) }
    let logarithm = try builder.emit(Log(), shifted)
    let fallen = try builder.emit(Subtract(), logarithm, number(highest, "highest"))
    let place = try builder.emit(Round(), builder.emit(Multiply(), fallen, number(-1 / step, "rate")))
    let code = try builder.emit(Minimum(), builder.emit(Maximum(), place, zero), end, name: name + "_codes")
    let rest = try builder.emit(Multiply(), code, number(-step, "step"))
    var level = try builder.emit(Exp(), builder.emit(Add(), rest, number(highest, "highest")))
    if kind == .sulq { level = try builder.emit(Subtract(), level, number(Double(shift), "shift")) }
    let isZero =
      kind == .sulq ? try builder.emit(GreaterOrEqual(), code, end) : try builder.emit(Equal(), weights, zero)
    return try builder.emit(Select(), isZero, zero, level)
  }
}

/// How many softmax weights lie in each of many narrow ranges, with their sums, from which the squared error of a code
/// follows without the weights.
///
/// A range is that of the numbers whose f32 patterns have the first 19 bits in common: their ratio is at most 1 + 2^-10.
/// A range that a border between two codes cuts counts as a whole; both codes are about as far from it.
private struct SoftmaxWeights {
  private static let droppedBits = 13
  /// Up to and with that of 1.
  private static let rangeCount = Int(Float(1).bitPattern >> UInt32(droppedBits)) + 1

  private var counts = [Double](repeating: 0, count: rangeCount)
  private var sums = [Double](repeating: 0, count: rangeCount)
  private var squares = [Double](repeating: 0, count: rangeCount)
  private var largest: Float = 0
  private(set) var areFinite = true

  /// Weights of 0 are passed over: every code keeps them.
  mutating func add(_ weights: [Float]) {
    for weight in weights where weight != 0 {
      guard weight > 0, weight.isFinite else {
        areFinite = false
        continue
      }
      let range = Self.range(of: weight)
      let number = Double(weight)
      counts[range] += 1
      sums[range] += number
      squares[range] += number * number
      largest = max(largest, weight)
    }
  }

  private static func range(of weight: Float) -> Int {
    min(Int(weight.bitPattern >> UInt32(droppedBits)), rangeCount - 1)
  }

  /// The code of least squared error, and the root of that error over the sum of squares; nil if there is no weight
  /// above 0.
  func code(_ kind: SoftmaxCode.Kind, bits: Int) -> (code: SoftmaxCode, error: Double)? {
    guard largest > 0 else { return nil }
    var candidates = [SoftmaxCode(kind, bits: bits, largest: largest)]
    if kind == .sulq {
      // From 2^-16 to 16 times the largest weight: the codes are nearly those of a logarithm at one end, nearly even at the other.
      candidates = (-64...16).map { power in
        SoftmaxCode(kind, bits: bits, largest: largest, shift: largest * Float(exp2(Double(power) / 4)))
      }
    }
    let (counts, sums, squares) = (Self.running(counts), Self.running(sums), Self.running(squares))
    func error(of code: SoftmaxCode) -> Double {
      var (error, start) = (0.0, 0)
      for (level, border) in code.intervals {
        let end = border > 1 ? Self.rangeCount : max(start, border > 0 ? Self.range(of: Float(border)) : 0)
        let (count, sum) = (counts[end] - counts[start], sums[end] - sums[start])
        error += squares[end] - squares[start] - 2 * level * sum + level * level * count
        start = end
      }
      return max(0, error)
    }
    let errors = candidates.map { error(of: $0) }
    guard let best = errors.indices.min(by: { errors[$0] < errors[$1] }), let all = squares.last else { return nil }
    return (candidates[best], (errors[best] / all).squareRoot())
  }

  /// The sums of the first 0, 1, ... numbers.
  private static func running(_ numbers: [Double]) -> [Double] {
    var result = [0.0]
    result.reserveCapacity(numbers.count + 1)
    var sum = 0.0
    for number in numbers {
      sum += number
      result.append(sum)
    }
    return result
  }
}

// MARK: The change

extension GraphBuilder {
  /// Takes the weights of an attention or softmax into the open and rounds them; gives the weights before that.
  fileprivate mutating func weights(of node: NodeID, rounded code: SoftmaxCode? = nil) throws -> ValueID {
    let name = graph[graph[node].results[0]].name
    origin = graph[node].origin
    if let op = graph[node].op as? Attention { return try open(op, node, name, code) }
    let weights = graph[node].results[0]
    guard let code else { return weights }
    let users = graph.users(of: weights)
    let rounded = try code.emit(weights, in: &self, name: name)
    for user in users { graph.setInput(0, of: user, to: rounded) }
    return weights
  }

  /// Computes an attention by the operators that it is made of.
  private mutating func open(_ op: Attention, _ node: NodeID, _ name: String, _ code: SoftmaxCode?) throws -> ValueID {
    let inputs = graph[node].inputs, result = graph.type(of: graph[node].results[0])
    let types = inputs.map { type(of: $0) }
    let batch = result.rank == 3 ? result.shape[0] : 1
    let repeats = op.heads / op.kvHeads
    let (queries, keys) = (types[0].shape[result.rank - 2], types[1].shape[result.rank - 2])
    /// `[B, kvHeads, rows, D]` of `[B, rows, kvHeads * D]`, for queries with the rows of all heads of a group in turn.
    func heads(_ operand: Int) throws -> ValueID {
      let count = operand == 0 ? op.heads : op.kvHeads
      guard let columns = types[operand].shape.last.fixedValue else {
        throw CompileError(.internal, "an attention of '%\(name)' without a size of heads")
      }
      let rows = operand == 0 ? queries : keys, width = Dim.fixed(columns / count)
      let split = try emit(Reshape([batch, rows, .fixed(count), width]), inputs[operand])
      let turned = try emit(Transpose([0, 2, 1, 3]), split)
      guard count > op.kvHeads else { return turned }
      return try emit(Reshape([batch, .fixed(op.kvHeads), rows * repeats, width]), turned)
    }
    var scores = try emit(MatMul(transposeB: true), heads(0), heads(1))
    if repeats > 1 { scores = try emit(Reshape([batch, .fixed(op.heads), queries, keys]), scores) }
    if op.scale != 1 {
      scores = try emit(Multiply(), scores, constant(.inline(name + "_scale", .f32, [], [op.scale])))
    }
    var weights: ValueID
    if let index = op.optionalInputs(types).mask {
      weights = try masked(scores, inputs[index], name)
    } else {
      weights = try emit(Softmax(), scores, name: name + "_weights")
    }
    let open = weights
    if let code { weights = try code.emit(weights, in: &self, name: name) }
    if repeats > 1 { weights = try emit(Reshape([batch, .fixed(op.kvHeads), queries * repeats, keys]), weights) }
    var sum = try emit(MatMul(), weights, heads(2))
    if repeats > 1 {
      let width = type(of: sum).shape.last
      sum = try emit(Reshape([batch, .fixed(op.heads), queries, width]), sum)
    }
    sum = try emit(Transpose([0, 2, 1, 3]), sum)
    try replace(node, Reshape(result.shape.dims), [sum])
    return open
  }

  /// Softmax of scores under a mask; 0 for what is hidden, in rows without a visible key as well.
  private mutating func masked(_ scores: ValueID, _ mask: ValueID, _ name: String) throws -> ValueID {
    let zero = constant(.inline(name + "_zero", .f32, [], [Float(0)]))
    let least = constant(.inline(name + "_least", .f32, [], [-Float.greatestFiniteMagnitude]))
    if type(of: mask).element == .bool {
      let seen = try emit(Select(), mask, scores, least)
      return try emit(Select(), mask, emit(Softmax(), seen), zero, name: name + "_weights")
    }
    let added = type(of: mask).element == .f32 ? mask : try emit(Cast(.f32), mask)
    let sum = try emit(Add(), scores, added)
    // A softmax of nothing but negative infinities is no number.
    let weights = try emit(Softmax(), emit(Maximum(), sum, least))
    return try emit(Select(), emit(Less(), sum, least), zero, weights, name: name + "_weights")
  }
}
