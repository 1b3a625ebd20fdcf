import Base
import Tensors

/// Scaled dot-product attention with grouped key and value heads (Vaswani and others, 2017; Ainslie and others, 2023).
///
/// For each head `h` and query `i`: `softmax(scale * q[i, h] . k[j, h'] + mask)` over the visible keys `j`, times
/// `v[j, h']`, with `h' = h * kvHeads / heads`. A soft cap replaces a score `s` by `softcap * tanh(s / softcap)`.
///
/// Keys and values may be quantized in blocks and stand for their dequantized numbers.
///
/// Inputs: `q[T, heads * D]`, `k[S, kvHeads * D]`, `v[S, kvHeads * Dv]`, all with one leading batch axis or none; then
/// optionally `position: i32[1]`, the number of keys before those of the first query; then optionally a mask that
/// broadcasts to `[B, heads, T, S]`: bool (true is visible) or floating point (added to the scores). If `causal`,
/// query `i` sees keys `0 ... position + i` (position `S - T` if not given), with a window only the last `window` of
/// them; else all keys. A query that sees no key gives zeros. Result `[T, heads * Dv]` with the element type of `q`.
///
/// With `recent`, which needs a position and no batch axis, two more inputs follow: `rk[recent + T, kvHeads * D]` and
/// `rv[recent + T, kvHeads * Dv]`, the rows of the positions `position - recent ... position + T - 1`. Each query takes the
/// last `recent` keys that causality leaves it, and their values, from there, and those before from `k` and `v`: the last
/// tokens as they are, older ones from a cache with few bits. Rows of negative positions are not read. The older ones may
/// have the first numbers of a head alone, `k[S, kvHeads * R]` and `v[S, kvHeads * Rv]` with `R <= D` and `Rv <= Dv`; the
/// others count as 0: their scores are `scale * q[i, h, 0 ..< R] . k[j, h']`, and they add to the first `Rv` numbers of a
/// result.
///
/// With `angleBlock` = `B`, which needs a position and no batch axis, keys are stored without a term that depends on
/// their position alone, such as the mean of all keys as rotary embedding turns it (``KeyTerm``): the last two inputs
/// are `means: f32[2, kvHeads * D]`, rows `m` and `m'`, and `angles: f32[N, 2, D]`, cosines and sines of each column,
/// first of the angles of the positions `0 ... B - 1`, then of `0, B, 2 B, ...`. What is scored for the key of position
/// `b B + r` is the stored one plus `m cos a + m' sin a` with `a` the sum of the angles of `b B` and `r`, from the last
/// keys as well.
///
/// With `latent`, which needs `recent`, all other keys and values follow from rows that all heads have in common
/// (``LatentRows``): `k[S, R]`, `v[S, Rv]`, whose columns have no heads, and two inputs at the end, `expandK: f32[kvHeads, R, D]`
/// and `expandV: f32[kvHeads, Rv, Dv]`. The key of position `j` is `k[j] expandK[h']`, turned by its position as a ``Rope`` turns
/// it if a further input says by which angles, and its value is `v[j] expandV[h']`.
///
/// With `channels`, which needs `recent`, all other keys are stored before they turn, column by column less an offset and over
/// a scale, and outliers of keys and values lie apart (``ChannelRows``): the inputs at the end are `scales: f32[2, kvHeads * D]`,
/// scales and behind them offsets, the angles of a ``LatentRows`` if keys turn, and `ok[S, 2 n]` and `ov[S, 2 n]` if there are `n`
/// outliers, as ``SplitOutliers`` gives them. With `k'[j]` and `v'[j]` the rows in which outliers stand in their places, the key of
/// position `j` is `k'[j] * scale + offset`, turned, and its value `v'[j]`.
///
/// With `int8` the products are those of bytes, as ``ByteAttention`` says, which loses some precision; a target on which
/// bytes are no faster may compute with the numbers as they are.
package struct Attention: Operator {
  package static let name = "attention"

  package var heads: Int = 1
  package var kvHeads: Int = 1
  @Exact package var scale: Float = 1
  package var causal: Bool = true
  package var window: Int?
  package var softcap: Float?
  package var recent: Int?
  package var angleBlock: Int?
  package var latent: LatentRows?
  package var channels: ChannelRows?
  package var int8: ByteAttention?

  package init() {}

  package init(
    heads: Int, kvHeads: Int, scale: Float, causal: Bool = true, window: Int? = nil, softcap: Float? = nil,
    recent: Int? = nil, angleBlock: Int? = nil, latent: LatentRows? = nil, channels: ChannelRows? = nil,
    int8: ByteAttention? = nil
  ) {
    self.heads = heads
    self.kvHeads = kvHeads
    self.scale = scale
    self.causal = causal
    self.window = window
    self.softcap = softcap
    self.recent = recent
    self.angleBlock = angleBlock
    self.latent = latent
    self.channels = channels
    self.int8 = int8
  }

  /// The indices of position and mask among the inputs.
  package func optionalInputs(_ inputs: [TensorType]) -> (position: Int?, mask: Int?) {
    let count = recentInputs(inputs.count)?.lowerBound ?? endOfRows(inputs.count)
    guard count > 3 else { return (nil, nil) }
    if inputs[3].element.isInteger { return (3, count > 4 ? 4 : nil) }
    return (nil, 3)
  }

  /// The indices of the last keys and values among `count` inputs; nil if there are none.
  package func recentInputs(_ count: Int) -> Range<Int>? {
    let end = endOfRows(count)
    return recent == nil ? nil : max(0, end - 2)..<end
  }

  /// The number of inputs before those of `angleBlock`, `latent` and `channels`.
  private func endOfRows(_ count: Int) -> Int { formInputs(count)?.lowerBound ?? count }

  /// The indices of what the form of the rows takes among `count` inputs: of `angleBlock`, `latent` or `channels`.
  package func formInputs(_ count: Int) -> Range<Int>? {
    latentInputs(count) ?? termInputs(count) ?? channelInputs(count)
  }

  /// The indices of means and angles of the term of the keys among `count` inputs; nil if there is none.
  package func termInputs(_ count: Int) -> Range<Int>? { angleBlock == nil ? nil : max(0, count - 2)..<count }

  /// The indices of what latent rows are expanded by, and of the angles if there are any, among `count` inputs; nil if
  /// rows have heads.
  package func latentInputs(_ count: Int) -> Range<Int>? { latent.map { max(0, count - $0.inputs)..<count } }

  /// The indices of scales, angles and outliers among `count` inputs; nil without them.
  package func channelInputs(_ count: Int) -> Range<Int>? { channels.map { max(0, count - $0.inputs)..<count } }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    let others = (recent == nil ? 0 : 2) + (angleBlock == nil ? 0 : 2) + (latent?.inputs ?? 0) + (channels?.inputs ?? 0)
    try expect(inputs, count: others == 0 ? 3...5 : 4 + others...5 + others)
    let (q, k, v) = (inputs[0], inputs[1], inputs[2])
    for (input, role) in zip(inputs, ["queries", "keys", "values"]) {
      if input.isDense || role == "queries" {
        try expectFloat(input, role)
      } else {
        try expectBlocks(input, role)
      }
      try expectRank(input, 2...3, role)
      guard input.rank == q.rank, q.rank == 2 || input.shape[0] == q.shape[0] else {
        throw failure("found \(role) of shape \(input.shape) for queries of shape \(q.shape), expected the same batch")
      }
    }
    guard heads >= 1, kvHeads >= 1, heads <= 1 << 20, heads % kvHeads == 0 else {
      throw failure("\(heads) heads do not divide into \(kvHeads) key and value heads")
    }
    guard scale.isFinite else { throw failure("attribute 'scale' is \(scale), expected a finite number") }
    if let window {
      guard causal else { throw failure("attribute 'window' is for causal attention") }
      guard window >= 1 else { throw failure("attribute 'window' is \(window), expected at least 1") }
    }
    if let softcap, !(softcap > 0 && softcap.isFinite) {
      throw failure("attribute 'softcap' is \(softcap), expected a positive number")
    }
    if let int8 {
      guard ByteAttention.blocks.contains(int8.block) else {
        throw failure("attribute 'int8' has blocks of \(int8.block), expected a multiple of 16 up to 256")
      }
      guard recent == nil, angleBlock == nil else {
        throw failure("attributes 'int8' and '\(recent == nil ? "angleBlock" : "recent")' exclude each other")
      }
    }
    if latent != nil {
      guard recent != nil else { throw failure("attribute 'latent' needs 'recent'") }
      guard angleBlock == nil else { throw failure("attributes 'latent' and 'angleBlock' exclude each other") }
    }
    if channels != nil {
      guard recent != nil else { throw failure("attribute 'channels' needs 'recent'") }
      guard angleBlock == nil, latent == nil else {
        throw failure("attributes 'channels' and '\(latent == nil ? "angleBlock" : "latent")' exclude each other")
      }
    }
    let rows = q.rank - 2
    var columns = (
      try expectFixed(q.shape.last, "query columns"), try expectFixed(k.shape.last, "key columns"),
      try expectFixed(v.shape.last, "value columns")
    )
    if let latent, let range = latentInputs(inputs.count), columns.0 % heads == 0 {
      columns.2 = try checkLatent(latent, inputs[range].map { $0 }, k, v, headDim: columns.0 / heads)
      columns.1 = columns.0 / heads * kvHeads
    }
    // Old keys may have fewer numbers of a head than queries.
    guard columns.0 % heads == 0, columns.1 % kvHeads == 0,
      columns.0 / heads == columns.1 / kvHeads
        || recent != nil && angleBlock == nil && (1..<columns.0 / heads).contains(columns.1 / kvHeads)
    else {
      throw failure(
        "queries of shape \(q.shape) in \(heads) heads do not fit keys of shape \(k.shape) in \(kvHeads) heads")
    }
    guard columns.2 % kvHeads == 0 else {
      throw failure("values of shape \(v.shape) do not divide into \(kvHeads) heads")
    }
    guard k.shape[rows] == v.shape[rows] else {
      throw failure("found \(v.shape[rows]) rows of values for \(k.shape[rows]) keys")
    }
    let optional = optionalInputs(inputs)
    if let index = optional.position {
      try expectPosition(inputs[index])
      guard causal else { throw failure("a position is for causal attention") }
    } else {
      guard inputs.count <= 4, recent == nil, angleBlock == nil else {
        throw failure("found input 3 of type \(inputs[3]), expected the position i32[1]")
      }
      if causal, (q.shape[rows] - k.shape[rows]).bounds.lowerBound > 0 {
        throw failure("\(q.shape[rows]) causal queries need as many keys, found \(k.shape[rows])")
      }
    }
    var valueDim = columns.2 / kvHeads
    if let recent, let range = recentInputs(inputs.count) {
      valueDim = try checkRecent(recent, inputs[range].map { $0 }, q, headDim: columns.0 / heads, least: valueDim)
    }
    if let channels, let range = channelInputs(inputs.count) {
      try checkChannels(channels, inputs[range].map { $0 }, k, v, headDim: columns.0 / heads)
    }
    if let block = angleBlock, let range = termInputs(inputs.count) {
      try checkTerm(block, inputs[range].map { $0 }, q, k)
    }
    if let index = optional.mask {
      let mask = inputs[index]
      try expectDense(mask, "mask")
      guard mask.element.isFloat || mask.element == .bool else {
        throw failure("found mask of element type \(mask.element.rawValue), expected bool or a floating-point type")
      }
      let full = Shape([q.rank == 3 ? q.shape[0] : 1, .fixed(heads), q.shape[rows], k.shape[rows]])
      guard mask.rank <= 4, Shape.broadcast(mask.shape, full) == full else {
        throw failure("mask of shape \(mask.shape) does not broadcast to \(full)")
      }
    }
    var shape = q.shape
    shape[q.rank - 1] = .fixed(valueDim * heads)
    return [q.with(shape: shape)]
  }

  /// The numbers of a head of the last values, which are `least` or more.
  private func checkRecent(
    _ recent: Int, _ rows: [TensorType], _ q: TensorType, headDim: Int, least: Int
  ) throws -> Int {
    guard recent >= 1, recent <= 1 << 20 else {
      throw failure("attribute 'recent' is \(recent), expected 1 to \(1 << 20)")
    }
    guard q.rank == 2 else { throw failure("attribute 'recent' is for queries without a batch axis") }
    var valueDim = least
    for (type, role) in zip(rows, ["last keys", "last values"]) {
      try expectDense(type, role)
      try expectFloat(type, role)
      if role == "last values", let columns = type.shape.last.fixedValue, columns % kvHeads == 0 {
        valueDim = max(least, columns / kvHeads)
      }
      let columns = kvHeads * (role == "last keys" ? headDim : valueDim)
      let wanted = Shape([q.shape[0] + .fixed(recent), .fixed(columns)])
      guard type.shape == wanted else {
        throw failure("found \(role) of shape \(type.shape), expected \(wanted)")
      }
    }
    return valueDim
  }
}
