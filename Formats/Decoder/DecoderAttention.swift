import Base
import Glibc
import IR
import Tensors

/// Factors of distances that are added to the scores of attention (ALiBi; Press and others, 2022): `slope[h] * j` for
/// key `j`, which differs from `slope[h] * (j - i)` by a number that softmax does not see.
struct AttentionSlopes: Hashable, Sendable {
  var slopes: [Float]
  /// Whether slopes and products are rounded to bf16 (Falcon).
  var isRounded = false
  /// What products are multiplied by.
  @Exact var scale: Float = 1

  init(_ slopes: [Float], isRounded: Bool = false, scale: Float = 1) {
    self.slopes = slopes
    self.isRounded = isRounded
    self.scale = scale
  }

  /// The slopes of the paper for any number of heads.
  static func standard(heads: Int) -> [Float] {
    var whole = 1
    while whole * 2 <= heads { whole *= 2 }
    func powers(_ count: Int) -> [Double] {
      let base = pow(2, -8 / Double(count))
      return (1...count).map { pow(base, Double($0)) }
    }
    var slopes = powers(whole)
    // Every other slope of twice as many heads.
    if whole < heads { slopes += powers(2 * whole).enumerated().filter { $0.offset % 2 == 0 }.map(\.element) }
    return slopes.prefix(heads).map { Float($0) }
  }
}

/// Attention of a decoder with a cache of keys and values, grouped heads and what networks add to it.
struct DecoderAttention: DecoderPart {
  /// How a checkpoint stores the projections to queries, keys and values.
  enum Projections: Hashable, Sendable {
    case separate(LinearModule, LinearModule, LinearModule)
    /// One weight: the rows of all queries, then of all keys, then of all values.
    case joined(LinearModule)
    /// One weight: for each head of keys its queries, its key and its value.
    case grouped(LinearModule)
  }

  /// A norm of queries or keys.
  struct HeadNorm: Hashable, Sendable {
    enum Scope: Hashable, Sendable {
      /// All heads of a token together.
      case allHeads
      /// Each head by itself, with the same weight.
      case head
      /// Each head by itself, with its own row of the weight `[heads, headDim]`.
      case headWithOwnWeight
      /// The same, with a module `norms.0`, `norms.1`, ... for each head.
      case headWithOwnModule
    }

    var norm: NormModule
    var scope: Scope
    /// Whether it comes after rotary embedding.
    var isAfterRotary = false
  }

  /// The name for messages and origins.
  var module = "self_attn"
  var heads: Int
  var kvHeads: Int
  var headDim: Int
  @Exact var scale: Float
  var projections: Projections
  var output: LinearModule
  /// The index of the rotary embedding among those of the decoder.
  var rotary: Int?
  /// The keys that a query sees, its own included; all if nil.
  var window: Int?
  /// Scores `s` become `softcap * tanh(s / softcap)`.
  var softcap: Float?
  var slopes: AttentionSlopes?
  var queryNorm: HeadNorm?
  var keyNorm: HeadNorm?
  /// The largest magnitude of queries, keys and values.
  var clip: Float?

  func emit(_ x: ValueID, _ context: inout DecoderContext, in emitter: inout ModuleEmitter) throws -> ValueID {
    var (q, k, v) = try project(x, context, in: &emitter)
    emitter.at(module)
    if let clip {
      let limits = Clip(minimum: -clip, maximum: clip)
      q = try emitter.builder.emit(limits, q)
      k = try emitter.builder.emit(limits, k)
      v = try emitter.builder.emit(limits, v)
    }
    q = try prepare(q, heads, queryNorm, context, in: &emitter)
    k = try prepare(k, kvHeads, keyNorm, context, in: &emitter)
    emitter.at(module)
    let window = window.flatMap { $0 < context.rows ? $0 : nil }
    let attention = Attention(
      heads: heads, kvHeads: kvHeads, scale: scale, window: window, softcap: softcap)
    let bias = try slopes.map { try emitter.bias($0, &context) }
    let a = try emitter.cachedAttention(attention, q, k, v, bias: bias, headDim: headDim, valueDim: headDim, context)
    return try emitter.linear(a, output, heads * headDim, context.width)
  }

  private func project(
    _ x: ValueID, _ context: DecoderContext, in emitter: inout ModuleEmitter
  ) throws -> (q: ValueID, k: ValueID, v: ValueID) {
    let width = context.width
    let sizes = [heads * headDim, kvHeads * headDim, kvHeads * headDim]
    let linear: LinearModule
    switch projections {
    case .separate(let q, let k, let v):
      return (
        try emitter.linear(x, q, width, sizes[0]), try emitter.linear(x, k, width, sizes[1]),
        try emitter.linear(x, v, width, sizes[2])
      )
    case .joined(let module), .grouped(let module): linear = module
    }
    emitter.at(linear.module)
    let all = sizes.reduce(0, +)
    let weight = try emitter.rows(linear, width, all)
    let bias = linear.hasBias ? try emitter.wideWeight(linear.module + ".bias", [all]) : nil
    var parts: [ValueID] = []
    for index in 0..<3 {
      parts.append(
        try emitter.product(
          x, part(index, of: weight, columns: width, in: &emitter),
          bias: bias.map { try part(index, of: $0, columns: nil, in: &emitter) }))
    }
    return (parts[0], parts[1], parts[2])
  }

  /// The rows of a joined weight or bias that give queries, keys or values.
  private func part(
    _ index: Int, of rows: ValueID, columns: Int?, in emitter: inout ModuleEmitter
  ) throws -> ValueID {
    let group = heads / kvHeads
    let tail = columns.map { [Dim.fixed($0)] } ?? []
    if case .joined = projections {
      let starts = [0, heads, heads + kvHeads]
      let counts = [heads, kvHeads, kvHeads]
      return try emitter.builder.emit(
        Slice(axis: 0, start: .fixed(starts[index] * headDim), size: .fixed(counts[index] * headDim)), rows)
    }
    let starts = [0, group, group + 1]
    let count = index == 0 ? group : 1
    let table = try emitter.builder.emit(
      Reshape([.fixed(kvHeads), .fixed((group + 2) * headDim)] + tail), rows)
    let slice = try emitter.builder.emit(
      Slice(axis: 1, start: .fixed(starts[index] * headDim), size: .fixed(count * headDim)), table)
    return try emitter.builder.emit(Reshape([.fixed(kvHeads * count * headDim)] + tail), slice)
  }

  /// Norm and rotary embedding of queries or keys.
  private func prepare(
    _ x: ValueID, _ count: Int, _ norm: HeadNorm?, _ context: DecoderContext, in emitter: inout ModuleEmitter
  ) throws -> ValueID {
    var x = x
    if let norm, !norm.isAfterRotary { x = try normalize(x, count, norm, context, in: &emitter) }
    if let rotary {
      emitter.at(module)
      let rope = Rope(headDim: headDim, interleaved: context.rotaries[rotary].isInterleaved)
      x = try emitter.builder.emit(rope, x, context.tables[rotary])
    }
    if let norm, norm.isAfterRotary { x = try normalize(x, count, norm, context, in: &emitter) }
    return x
  }

  private func normalize(
    _ x: ValueID, _ count: Int, _ headNorm: HeadNorm, _ context: DecoderContext, in emitter: inout ModuleEmitter
  ) throws -> ValueID {
    let norm = headNorm.norm
    if headNorm.scope == .allHeads { return try emitter.norm(x, norm, count * headDim) }
    let tokens = Dim.symbol(context.length)
    let split = try emitter.builder.emit(Reshape([tokens, .fixed(count), .fixed(headDim)]), x)
    var y: ValueID
    if headNorm.scope == .head {
      y = try emitter.norm(split, norm, headDim)
    } else {
      let weight: ValueID
      if headNorm.scope == .headWithOwnModule {
        emitter.at(norm.module)
        let rows = try (0..<count).map { index in
          let row = try emitter.wideWeight("\(norm.module).norms.\(index).weight", [headDim])
          return try emitter.builder.emit(Reshape([1, .fixed(headDim)]), row)
        }
        weight = try emitter.builder.emit(Concat(axis: 0), rows)
      } else {
        emitter.at(norm.module)
        weight = try emitter.wideWeight(norm.module + ".weight", [count, headDim])
      }
      var plain = norm
      plain.hasBias = false
      y = try emitter.normalize(split, plain, gain: emitter.ones(headDim), headDim)
      y = try emitter.builder.emit(Multiply(), y, weight)
    }
    return try emitter.builder.emit(Reshape([tokens, .fixed(count * headDim)]), y)
  }
}

extension ModuleEmitter {
  /// Attention over a cache of keys and values: the states `k0` and `v0` in block 0, and where the cache type keeps the
  /// last tokens apart, `recent_k0` and `recent_v0` with the rows of those before the call.
  mutating func cachedAttention(
    _ attention: Attention, _ q: ValueID, _ k: ValueID, _ v: ValueID, bias: ValueID?, headDim: Int, valueDim: Int,
    _ context: DecoderContext
  ) throws -> ValueID {
    var attention = attention
    let keys = try cached(k, "k", heads: attention.kvHeads, headDim: headDim, context)
    let values = try cached(v, "v", heads: attention.kvHeads, headDim: valueDim, context)
    var inputs = [q, keys, values, context.position]
    if let bias { inputs.append(bias) }
    // With a context that is no longer the cache would not be read at all.
    if let recent = context.cacheType.recent, recent < context.rows {
      attention.recent = recent
      inputs.append(try builder.lastRows(recent, before: k, state: "recent_k\(context.layer)"))
      inputs.append(try builder.lastRows(recent, before: v, state: "recent_v\(context.layer)"))
    }
    return try builder.emit(attention, inputs)
  }

  /// Rows written into a new state of the decoder, `k0` for the name `k` in block 0; the value is all of the state.
  private mutating func cached(
    _ rows: ValueID, _ name: String, heads: Int, headDim: Int, _ context: DecoderContext
  ) throws -> ValueID {
    let type = try TensorType(context.cacheType, rows: context.rows, heads: heads, headDim: headDim)
    let index = builder.graph.states.count
    let state = builder.state("\(name)\(context.layer)", type)
    let updated = try builder.emit(CacheUpdate(), state, rows, context.position)
    builder.graph.setUpdate(ofState: index, to: updated)
    return updated
  }

  /// What is added to the scores of attention for these slopes; shared by all blocks.
  fileprivate mutating func bias(_ slopes: AttentionSlopes, _ context: inout DecoderContext) throws -> ValueID {
    if let known = context.biases[slopes] { return known }
    let heads = slopes.slopes.count
    var column = try builder.emit(
      Reshape([.fixed(heads), 1, 1]), vector("alibi.slopes", slopes.slopes))
    var distances = try ascending(context.rows)
    if slopes.isRounded {
      column = try builder.emit(Cast(.bf16), column)
      distances = try builder.emit(Cast(.bf16), distances)
    }
    var bias = try builder.emit(Multiply(), column, distances)
    if slopes.isRounded { bias = try builder.emit(Cast(.f32), bias) }
    bias = try scaled(bias, by: slopes.scale)
    context.biases[slopes] = bias
    return bias
  }
}
