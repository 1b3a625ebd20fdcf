import IR

/// What a part of a tile does with a block of keys and values.
extension AttentionByteTile {
  private func lane(_ vector: Int) -> Expression { .integer(vector * lanes) }

  /// scores[r, pair] = scale * query . key r, capped. Beyond the last row, the last one is scored again.
  func score(_ p: Expression, seen: Expression, _ scratch: Scratch) {
    let vectors = 0..<Self.vectors
    let step = k.target.vectorRegisters >= 32 ? 8 : 4
    let place = k.define("place", p * .integer(part))
    let scales = vectors.map { k.define("scale", scratch.queryScales.load(place + lane($0))) }
    let starts = vectors.map { vector in
      k.define("start", scratch.starts?.load(place + lane(vector)) ?? .broadcast(.integer(0)))
    }
    // The share of the mean in every score of the block.
    var shared: [Expression] = []
    if let queries = scratch.queries, let means = scratch.keyCenter {
      shared = vectors.map { k.variable("mean\($0)", .broadcast(.real(0))) }
      k.loop("d", to: .integer(headDim)) { d in
        let center = k.define("center", .broadcast(means[d]))
        for vector in vectors {
          let at = (p * .integer(headDim) + d) * .integer(part) + lane(vector)
          k.assign(shared[vector], .multiplyAdd(center, queries.load(at), shared[vector]))
        }
      }
    }
    let words = k.define("words", p * .integer(headWords * part))
    k.loop("r", to: seen, step: step) { r in
      let rows = (0..<step).map { k.define("row", .minimum(r + .integer($0), seen - 1)) }
      let places = rows.map { k.define("at", $0 * .integer(paddedHeadDim / 4)) }
      let products = (0..<step).map { row in vectors.map { k.variable("s\(row)\($0)", starts[$0]) } }
      k.loop("w", to: .integer(headWords)) { w in
        let queries = vectors.map { vector in
          k.define("q", scratch.queryWords.load(words + w * .integer(part) + lane(vector)))
        }
        for row in 0..<step {
          let word = k.define("x", .broadcast(scratch.keyWords[places[row] + w]))
          for vector in vectors {
            k.assign(products[row][vector], .dotStep(dot, products[row][vector], word, queries[vector]))
          }
        }
      }
      for row in 0..<step {
        let keyScale = k.define("key_scale", .broadcast(scratch.keyScales[rows[row]]))
        for vector in vectors {
          let product = k.define("product", products[row][vector].asFloat * keyScale)
          var score =
            shared.isEmpty
            ? product * scales[vector] : Expression.multiplyAdd(product, scales[vector], shared[vector])
          if let softcap = config.softcap {
            score = .broadcast(.real(softcap)) * .call(.tanh, score * .broadcast(.real(1 / softcap)))
          }
          k.store(scratch.scores, (r + .integer(row)) * .integer(part) + lane(vector), score)
        }
      }
    }
  }

  /// Adds the mask to the scores, or hides keys.
  func addMask(
    _ place: Place, _ key: Expression, _ p: Expression, present: Expression, seen: Expression, _ scratch: Scratch
  ) {
    guard let mask else { return }
    func maskRow(_ head: Expression, _ token: Expression) -> Pointer {
      let offset = config.maskOffset(item: place.item, head: head, token: token, tokens, rowCount)
      return k.pointer("mask_row", mask, offset: offset)
    }
    func element(_ row: Pointer, _ r: Expression) -> Expression { row[config.maskIsBroadcast[3] ? 0 : key + r] }
    func term(_ element: Expression) -> Expression {
      guard mask.element == .u8 else { return element }
      return .choose(element.asIndex.isNotEqual(to: 0), .real(0), .real(-.infinity))
    }
    if config.maskIsBroadcast[1], config.maskIsBroadcast[2] {
      let row = maskRow(0, 0)
      k.loop("r", to: seen) { r in
        let wide = k.define("term", .broadcast(term(element(row, r))))
        for vector in 0..<Self.vectors {
          let at = r * .integer(part) + lane(vector)
          k.store(scratch.scores, at, scratch.scores.load(at) + wide)
        }
      }
      return
    }
    k.loop("pair", to: present) { pair in
      let (token, head) = tokenAndHead(place, p * .integer(part) + pair)
      let row = maskRow(head, token)
      k.loop("r", to: seen) { r in
        let at = k.define("at", r * .integer(part) + pair)
        k.store(scratch.scores, at, scratch.scores[at] + term(element(row, r)))
      }
    }
  }

  /// Words of the rounded weights of four keys, with the factors that join the block to those before.
  func weigh(_ key: Expression, _ p: Expression, seen: Expression, _ scratch: Scratch) {
    let vectors = 0..<Self.vectors
    let place = k.define("place", p * .integer(part))
    let ends = vectors.map { vector in
      k.define("ends", scratch.ends?.load(place + lane(vector)) ?? .broadcast(rowCount.asInt32))
    }
    let firsts = vectors.map { vector in
      config.window.map { k.define("begins", ends[vector] - .broadcast(.integer($0))) }
    }
    let top = vectors.map { k.variable("top\($0)", .broadcast(.real(-.infinity))) }
    let groups = k.define("groups", seen.dividedRoundingUp(by: 4))
    let hidden = Expression.broadcast(.real(-.infinity))
    k.loop("r", to: groups * 4) { r in
      let index = k.define("index", .broadcast((key + r).asInt32))
      for vector in vectors {
        let at = k.define("at", r * .integer(part) + lane(vector))
        var score = Expression.choose(ends[vector] > index, scratch.scores.load(at), hidden)
        if let first = firsts[vector] { score = .choose(first > index, hidden, score) }
        score = k.define("score", score)
        k.store(scratch.scores, at, score)
        k.assign(top[vector], .maximum(score, top[vector]))
      }
    }
    // Where every key is hidden, 0 stands in for -inf, whose difference with itself is no number.
    func base(_ top: Expression) -> Expression { k.define("base", .choose(top > hidden, top, .broadcast(.real(0)))) }
    let bases = top.map(base)
    let sums = vectors.map { k.variable("sum\($0)", .broadcast(.real(0))) }
    let magic = Expression.broadcast(.real(Self.magic))
    k.loop("g", to: groups) { g in
      for vector in vectors {
        let bytes = (0..<4).map { byte in
          let at = (g * 4 + .integer(byte)) * .integer(part) + lane(vector)
          let weight = k.define("weight", .call(.exp, scratch.scores.load(at) - bases[vector]))
          let number = k.define(
            "number", .multiplyAdd(weight, .broadcast(.real(Float(ByteAttention.largestWeight))), magic))
          k.assign(sums[vector], sums[vector] + (number - magic))
          return bits(number)
        }
        k.store(scratch.weights, g * .integer(part) + lane(vector), word(bytes))
      }
    }
    for vector in vectors {
      let old = k.define("old", scratch.largest.load(place + lane(vector)))
      let next = k.define("next", .maximum(top[vector], old))
      let common = base(next)
      let before = k.define("before", .call(.exp, old - common))
      let factor = k.define("factor", .call(.exp, top[vector] - common))
      let share = k.define("share", sums[vector] * factor)
      let total = scratch.total.load(place + lane(vector))
      k.store(scratch.total, place + lane(vector), .multiplyAdd(total, before, share))
      k.store(scratch.largest, place + lane(vector), next)
      k.store(scratch.before, lane(vector), before)
      k.store(scratch.factors, lane(vector), factor)
      k.store(scratch.shares, lane(vector), share)
    }
  }

  /// sums[pair] = sums[pair] * before + factor * (codes of weights . codes of values * scale + sum of weights * mean).
  func accumulate(_ p: Expression, present: Expression, seen: Expression, _ scratch: Scratch) {
    let starts = Array(stride(from: 0, to: paddedValueDim, by: lanes))
    let chunk = min(4, starts.count)
    let registers = k.target.vectorRegisters >= 32 ? 16 : 8
    let perPass = min(part, registers / (chunk <= 1 ? 1 : chunk <= 2 ? 2 : 4))
    let groups = k.define("groups", seen.dividedRoundingUp(by: 4))
    k.loop("pair", to: present, step: perPass) { pair in
      for first in stride(from: 0, to: starts.count, by: chunk) {
        let columns = Array(starts[first..<min(starts.count, first + chunk)])
        let products = (0..<perPass).map { _ in columns.map { _ in k.variable("o", .broadcast(.integer(0))) } }
        k.loop("g", to: groups) { g in
          let values = columns.map {
            k.define("v", scratch.valueWords.load(g * .integer(paddedValueDim) + .integer($0)))
          }
          for query in 0..<perPass {
            let word = scratch.weights[g * .integer(part) + pair + .integer(query)]
            let weights = k.define("w", .broadcast(word))
            for (index, value) in values.enumerated() {
              let old = products[query][index]
              k.assign(old, .dotStep(.unsignedActivations, old, value, weights))
            }
          }
        }
        for query in 0..<perPass {
          let lane = pair + .integer(query)
          let before = k.define("before", .broadcast(scratch.before[lane]))
          let factor = k.define("factor", .broadcast(scratch.factors[lane]))
          let share = scratch.valueCenter.map { _ in k.define("share", .broadcast(scratch.shares[lane])) }
          for (index, column) in columns.enumerated() {
            let at = k.define(
              "at", (p * .integer(part) + lane) * .integer(paddedValueDim) + .integer(column))
            let scaled = products[query][index].asFloat * scratch.valueScales.load(.integer(column))
            var sum = Expression.multiplyAdd(scaled, factor, scratch.sums.load(at) * before)
            if let share, let means = scratch.valueCenter {
              sum = .multiplyAdd(means.load(.integer(column)), share, sum)
            }
            k.store(scratch.sums, at, sum)
          }
        }
      }
    }
  }
}
