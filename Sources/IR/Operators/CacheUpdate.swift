import Base
import Tensors

/// A cache with rows written at a position: `result[position + i] = rows[i]`, the others as they were.
///
/// Inputs: `cache[C, W]`, `rows[T, W]`, `position: i32[1]`; the result has the type of the cache, to whose elements
/// the rows are converted; a cache of blocks is quantized row by row, each group
/// of codes in a table with the scale that makes the number of largest magnitude the largest level. `position + T` beyond `C` is an error.
package struct CacheUpdate: Operator {
  package static let name = "cache_update"

  package init() {}

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 3...3)
    let (cache, rows) = (inputs[0], inputs[1])
    if cache.isDense {
      try expectFloat(cache, "cache")
    } else {
      try expectBlocks(cache, "cache")
    }
    try expectFloat(rows, "rows")
    try expectRank(cache, 2...2, "cache")
    try expectRank(rows, 2...2, "rows")
    try expectPosition(inputs[2])
    guard cache.shape[1] == rows.shape[1] else {
      throw failure("found rows of shape \(rows.shape) for a cache of shape \(cache.shape), expected equal columns")
    }
    guard (rows.shape[0] - cache.shape[0]).bounds.lowerBound <= 0 else {
      throw failure("\(rows.shape[0]) rows do not fit into a cache of shape \(cache.shape)")
    }
    return [cache]
  }
}
