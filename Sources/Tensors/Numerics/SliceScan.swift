/// For numbers seen as `[outer, middle, inner]`: for each index of the middle, whether some number there is not 0.
package func nonzeroSlices(_ values: [Float], outer: Int, middle: Int, inner: Int) -> [Bool] {
  precondition(values.count == outer * middle * inner)
  var result = [Bool](repeating: false, count: middle)
  values.withUnsafeBufferPointer { values in
    for i in 0..<outer {
      for j in 0..<middle {
        let start = (i * middle + j) * inner
        var bits: UInt32 = 0
        // The sign is shifted out: -0 is 0.
        for k in start..<start + inner { bits |= values[k].bitPattern << 1 }
        if bits != 0 { result[j] = true }
      }
    }
  }
  return result
}

/// For numbers seen as rows: for each row the first one with the same bits; itself where there is none before.
package func firstEqualRows(_ values: [Float], rows: Int, columns: Int) -> [Int] {
  precondition(values.count == rows * columns)
  return values.withUnsafeBufferPointer { values in
    var byHash: [UInt64: [Int]] = [:]
    return (0..<rows).map { row in
      let start = row * columns
      // The multiplier is that of FNV-1a.
      var hash: UInt64 = 0xCBF2_9CE4_8422_2325
      for k in start..<start + columns { hash = (hash ^ UInt64(values[k].bitPattern)) &* 0x100_0000_01B3 }
      let equal = byHash[hash, default: []].first { other in
        (0..<columns).allSatisfy { values[other * columns + $0].bitPattern == values[start + $0].bitPattern }
      }
      if let equal { return equal }
      byHash[hash, default: []].append(row)
      return row
    }
  }
}
