/// The kernels that measure a machine for a target.
///
/// Reading: sums of vectors. Arithmetic: independent chains of fused multiply-adds, and tiles of byte dot products as in
/// matrix products with weights from the first-level cache; 4-bit weights are unpacked on the way.
struct MachineProbe {
  let target: Target

  private var tokens: Int { 4 }

  /// y = sums of x[n vectors]; threads share the blocks of eight vectors.
  func read() -> KernelFunction {
    let k = KernelBuilder("mcc_probe_read_\(target.suffix)", target: target)
    let x = k.input("x", .i32), y = k.output("y", .i32), n = k.symbol("n")
    let sums = (0..<8).map { k.variable("s\($0)", .broadcast(.integer(0))) }
    let part = k.partition(n)
    k.loop("i", from: part.begin, to: part.end) { i in
      for (v, sum) in sums.enumerated() {
        k.assign(sum, sum + x.load((i * 8 + .integer(v)) * .integer(k.lanes)))
      }
    }
    k.condition(part.begin < part.end) {
      k.store(y, part.begin, sums.dropFirst().reduce(sums[0]) { $0 + $1 })
    }
    return k.finish()
  }

  /// Chains of the float probe, and operations of one round.
  private var chains: Int { min(target.vectorRegisters - 4, 12) }
  var floatOperationsPerRound: Double { Double(2 * chains * target.lanes) }

  /// n rounds of `s = s * a + b` in independent chains.
  func floats() -> KernelFunction {
    let k = KernelBuilder("mcc_probe_float_\(target.suffix)", target: target)
    let x = k.input("x", .f32), y = k.output("y", .f32), n = k.symbol("n")
    let a = k.define("a", x.load(0)), b = k.define("b", x.load(.integer(k.lanes)))
    let sums = (0..<chains).map { k.variable("s\($0)", x.load(.integer($0))) }
    k.loop("i", to: n) { _ in
      for sum in sums { k.assign(sum, .multiplyAdd(sum, a, b)) }
    }
    k.store(y, 0, sums.dropFirst().reduce(sums[0]) { $0 + $1 })
    return k.finish()
  }

  /// Vectors of weights in a round of the byte probes.
  private var steps: Int { 64 }
  private func vectors(_ weights: ByteDot.Weights) -> Int {
    if target.vocabulary.stepsPerFlush[weights] != nil { return target.vectorRegisters >= 32 ? 2 : 1 }
    return target.vectorRegisters >= 32 ? 4 : 2
  }

  func byteOperationsPerRound(isNibbles: Bool) -> Double {
    let weights: ByteDot.Weights = isNibbles ? .u4 : target.vocabulary.eightBitWeights
    return Double(steps * (isNibbles ? 2 : 1) * vectors(weights) * tokens * target.lanes * 8)
  }

  /// n rounds of dot products of the weights at x with four tokens behind them.
  func bytes(isNibbles: Bool) -> KernelFunction {
    let kind = isNibbles ? "nibble" : "byte"
    let k = KernelBuilder("mcc_probe_\(kind)_\(target.suffix)", target: target)
    let x = k.input("x", .i32), y = k.output("y", .i32), n = k.symbol("n")
    let weights: ByteDot.Weights = isNibbles ? .u4 : target.vocabulary.eightBitWeights
    let dot = ByteDot(weights)
    let vectors = vectors(weights)
    let limit = target.vocabulary.stepsPerFlush[weights].map { max(1, $0 / (isNibbles ? 2 : 1)) } ?? steps
    let totals = (0..<(tokens * vectors)).map { k.variable("d\($0)", .broadcast(.integer(0))) }
    k.loop("i", to: n) { i in
      for first in stride(from: 0, to: steps, by: limit) {
        let partial =
          limit == steps ? totals : totals.indices.map { k.variable("p\($0)", .broadcast(.integer(0))) }
        k.loop("q", from: .integer(first), to: .integer(min(first + limit, steps))) { q in
          let loaded = (0..<vectors).map { v in
            k.define("w\(v)", x.load((q * .integer(vectors) + .integer(v)) * .integer(k.lanes)))
          }
          for half in 0..<(isNibbles ? 2 : 1) {
            let codes = loaded.enumerated().map { v, word in
              isNibbles ? k.define("c\(half)_\(v)", (word >> (4 * half)) & 0x0f0f_0f0f) : word
            }
            for token in 0..<tokens {
              let a = k.define("a\(token)", .broadcast(x[q * 2 + .integer(half + 64 * token)]))
              for v in 0..<vectors {
                let sum = partial[token * vectors + v]
                k.assign(sum, .dotStep(dot, sum, codes[v], a))
              }
            }
          }
        }
        if limit != steps {
          for index in totals.indices {
            k.assign(totals[index], .dotFlush(dot, totals[index], partial[index]))
          }
        }
      }
    }
    k.store(y, 0, totals.dropFirst().reduce(totals[0]) { $0 + $1 })
    return k.finish()
  }
}
