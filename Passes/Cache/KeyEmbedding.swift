import Base
import IR
import Tensors

/// The rotary embedding that gives the keys of an attention, at the position of the attention.
struct KeyEmbedding {
  let rope: NodeID
  let op: Rope
  /// The keys before it.
  let value: ValueID
  let frequencies: ValueID
  /// Pairs of a head that turn.
  let pairs: Int
  /// What cosines and sines are multiplied by.
  private(set) var factor: Float = 1

  /// The embedding that gives the rows of keys.
  ///
  /// - Throws: ``AttentionHeads/Refusal`` if there is none, or if its angles are not those of `position`; what constants
  ///   throw.
  init(_ heads: AttentionHeads, giving rows: ValueID, at position: ValueID, of model: Model) throws {
    typealias Refusal = AttentionHeads.Refusal
    let graph = heads.lookup.graph
    guard let rope = graph.definingNode(of: rows), let op = graph[rope].op as? Rope, op.headDim == heads.width(of: 1)
    else { throw Refusal(reason: "no rotary embedding gives the keys '%\(graph[rows].name)'") }
    let table = graph[rope].inputs[1]
    let refusal = Refusal(reason: "the angles '%\(graph[table].name)' are not those of the position")
    var angles = table
    if let scaled = graph.definingNode(of: table), graph[scaled].op is Multiply {
      let operands = graph[scaled].inputs
      guard let number = operands.first(where: { heads.lookup.isRecipe($0) }),
        let other = operands.first(where: { $0 != number }), graph.type(of: number).maximumCount == 1
      else { throw refusal }
      factor = try ConstantEvaluator(model, graph).tensor(number).numbers()[0]
      angles = other
    }
    guard let source = graph.definingNode(of: angles), graph[source].op is RopeTable,
      graph[source].inputs[0] == position, heads.lookup.isRecipe(graph[source].inputs[1]),
      let pairs = graph.type(of: table).shape.last.fixedValue
    else { throw refusal }
    (self.rope, self.op, self.pairs) = (rope, op, pairs)
    (value, frequencies) = (graph[rope].inputs[0], graph[source].inputs[1])
  }

  /// The other column of the pair that turns together with a column of a row, and the sign of its part in it; nil for
  /// columns that pass through.
  func partner(of column: Int) -> (column: Int, sign: Float)? {
    let place = column % op.headDim
    guard place < 2 * pairs else { return nil }
    let isFirst = op.interleaved ? place % 2 == 0 : place < pairs
    let distance = op.interleaved ? 1 : pairs
    return isFirst ? (column + distance, -1) : (column - distance, 1)
  }

  /// Cosines and sines of the first columns of a head at the positions of a cache, in two steps: the angle of position
  /// `b B + r` is the sum of those of `b B` and `r`.
  struct Angles: Hashable {
    /// The positions `B` of a block.
    static let block = 32

    var frequencies: ValueID
    /// Rows of the cache, columns, and those of them that turn.
    var rows, columns, turning: Int
    var interleaved: Bool

    init(_ embedding: KeyEmbedding, rows: Int, columns: Int) {
      (frequencies, interleaved) = (embedding.frequencies, embedding.op.interleaved)
      (self.rows, self.columns, turning) = (rows, columns, 2 * embedding.pairs)
    }

    /// A recipe: the angles of the first positions, behind them those of each block, spread over the columns. Columns that
    /// do not turn have those of the first one.
    func emit(in builder: inout GraphBuilder) throws -> ValueID {
      let start = builder.constant(.inline("start", .i32, [1], [Int32(0)]))
      let steps = try builder.emit(RopeTable(length: .fixed(Self.block)), start, frequencies)
      let size = builder.constant(.inline("block", .f32, [], [Float(Self.block)]))
      let far = try builder.emit(Multiply(), frequencies, size)
      let count = (rows + Self.block - 1) / Self.block
      let blocks = try builder.emit(RopeTable(length: .fixed(count)), start, far)
      let all = try builder.emit(Concat(axis: 0), steps, blocks)
      let sources = (0..<columns).map { column in
        column < turning ? Int32(interleaved ? column / 2 : column % (turning / 2)) : 0
      }
      let places = builder.constant(.inline("columns", .i32, [sources.count], sources))
      return try builder.emit(Gather(axis: 2), all, places, name: "key_angles")
    }
  }
}
