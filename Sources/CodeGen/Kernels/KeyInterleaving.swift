/// Rows of keys with their numbers side by side, for tiles of attention whose pairs take several lanes.
enum KeyInterleaving {
  /// Lanes of a pair of a token and a head: keys that are scored side by side.
  static func copies(_ config: AttentionConfig, lanes: Int) -> Int {
    guard let pairs = config.tokens.fixedValue.map({ $0 * config.heads / config.kvHeads }), config.mask == nil,
      config.headDim % lanes == 0,
      config.latent != nil || config.channels != nil
        || config.key.parts(config.keySize, lanes: lanes).allSatisfy({ $0.count == lanes })
    else { return 1 }
    return [4, 2].first { pairs * $0 <= lanes } ?? 1
  }

  /// Vectors in which the numbers of two or four rows lie side by side, by exchanges of lanes alone, which leaves
  /// columns in an order of their own. `pair` mixes two vectors by a bit of the lane: the first result has the columns
  /// without that bit, the second those with it.
  static func interleave<T>(_ rows: [T], _ pair: (_ a: T, _ b: T, _ distance: Int) -> (T, T)) -> [T] {
    let (a, b) = pair(rows[0], rows[1], 1)
    if rows.count == 2 { return [a, b] }
    let (c, d) = pair(rows[2], rows[3], 1)
    let (e, f) = pair(a, c, 2)
    let (g, h) = pair(b, d, 2)
    return [e, f, g, h]
  }

  /// The columns of one vector of a row in the order in which they then lie.
  static func columns(lanes: Int, copies: Int) -> [Int] {
    let rows = Array(repeating: Array(0..<lanes), count: copies)
    let vectors = interleave(rows) { a, b, distance -> ([Int], [Int]) in
      (
        a.indices.map { $0 & distance == 0 ? a[$0] : b[$0 ^ distance] },
        a.indices.map { $0 & distance == 0 ? a[$0 ^ distance] : b[$0] }
      )
    }
    return vectors.flatMap { vector in stride(from: 0, to: lanes, by: copies).map { vector[$0] } }
  }
}
