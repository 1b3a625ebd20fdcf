import IR
import Tensors

/// Running sums along an axis.
package enum CumulativeSumKernel: Kernel {
  package static let name = "cumulative_sum"
  package static let summary = "running sums along any axis"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? CumulativeSum, query.isPlain(), let x = query.operands.first?.type,
      let element = x.element.scalar, [.f32, .i32, .i64].contains(element), let lines = Lines(x.shape, axis: op.axis)
    else { return [] }
    var extents = ExtentTable()
    let outer = extents.extent(lines.outer, "T"), length = extents.extent(lines.length, "n")
    let k = KernelBuilder(
      "mcc_cumulative_sum\(op.exclusive ? "_exclusive" : "")\(op.backward ? "_backward" : "")_\(element.rawValue)_"
        + "\(outer.text)x\(length.text)x\(lines.inner)_\(target.suffix)", target: target)
    k.comment = ["Running sums along the middle axis of x[\(outer.text), \(length.text), \(lines.inner)]."]
    let source = k.input("x", element), y = k.output("y", element)
    let all = k.extent(outer), count = k.extent(length), inner = Expression.integer(lines.inner)
    let part = k.partition(all * inner)
    k.loop("line", from: part.begin, to: part.end) { line in
      let first = k.define("first", line / inner * inner * count + line % inner)
      let zero: Expression = element == .f32 ? .real(0) : element == .i32 ? .convert(.integer(0), .i32) : .integer(0)
      let total = k.variable("total", zero)
      k.loop("step", to: count) { step in
        let place = k.define("place", first + (op.backward ? count - 1 - step : step) * inner)
        if op.exclusive { k.store(y, place, total) }
        let value = k.define("value", source[place])
        k.assign(total, total + value)
        if !op.exclusive { k.store(y, place, total) }
      }
    }
    let size = Double(x.maximumCount)
    return [
      KernelChoice(
        k.finish(), work: KernelWork(floatOperations: 16 * size, bytes: Double(2 * x.maximumByteCount)), target: target,
        pointers: [.input(0), .result(0)], extents: extents, layouts: query.unpacked)
    ]
  }
}

/// Places of the largest elements along an axis.
package enum TopPlacesKernel: Kernel {
  package static let name = "top_places"
  package static let summary = "places of the largest or smallest f32 elements along any axis"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? TopPlaces, query.isPlain(), let x = query.operands.first?.type,
      x.element == .f32, let lines = Lines(x.shape, axis: op.axis)
    else { return [] }
    var extents = ExtentTable()
    let outer = extents.extent(lines.outer, "T"), length = extents.extent(lines.length, "n")
    let k = KernelBuilder(
      "mcc_top_\(op.count)_\(op.largest ? "largest" : "smallest")_\(outer.text)x\(length.text)x\(lines.inner)_\(target.suffix)",
      target: target)
    k.comment = [
      "Places of the \(op.count) \(op.largest ? "largest" : "smallest") along the middle axis of "
        + "x[\(outer.text), \(length.text), \(lines.inner)]. Each is the best of those behind the one before it."
    ]
    let source = k.input("x", .f32), y = k.output("y", .i64)
    let all = k.extent(outer), count = k.extent(length), inner = Expression.integer(lines.inner)
    let part = k.partition(all * inner)
    k.loop("line", from: part.begin, to: part.end) { line in
      let first = k.define("first", line / inner * inner * count + line % inner)
      let target = k.define("target", line / inner * inner * .integer(op.count) + line % inner)
      // Not a number stands for less than any: every place before the first one chosen comes before it.
      let last = k.variable("last", .real(op.largest ? .infinity : -.infinity))
      let lastPlace = k.variable("last_place", .integer(-1))
      k.loop("i", to: .integer(op.count)) { i in
        let best = k.variable("best", .real(op.largest ? -.infinity : .infinity))
        let bestPlace = k.variable("best_place", .integer(-1))
        k.loop("j", to: count) { j in
          let value = k.define("value", source[first + j * inner])
          let isBehind = op.largest ? value < last : value > last
          let isLater = value.isEqual(to: last) & (j > lastPlace)
          let isBetter = op.largest ? value > best : value < best
          let isFirst = value.isEqual(to: best) & (bestPlace < .integer(0))
          k.condition((isBehind | isLater) & (isBetter | isFirst)) {
            k.assign(best, value)
            k.assign(bestPlace, j)
          }
        }
        // Only NaN is left: the first of them that has not been chosen.
        k.condition(bestPlace < .integer(0)) {
          k.loop("j", to: count) { j in
            let value = k.define("value", source[first + j * inner])
            let isNext = (bestPlace < .integer(0)) & value.isNotEqual(to: value)
            let isTaken = last.isNotEqual(to: last) & (j <= lastPlace)
            k.condition(isNext & .unary(.not, isTaken)) { k.assign(bestPlace, j) }
          }
          k.assign(best, best - best)
        }
        k.store(y, target + i * inner, bestPlace)
        k.assign(last, best)
        k.assign(lastPlace, bestPlace)
      }
    }
    let size = Double(x.maximumCount)
    return [
      KernelChoice(
        k.finish(), work: KernelWork(floatOperations: 32 * size * Double(op.count), bytes: 4 * size), target: target,
        pointers: [.input(0), .result(0)], extents: extents, layouts: query.unpacked)
    ]
  }
}

/// Rows of a table that are replaced or changed.
package enum ScatterKernel: Kernel {
  package static let name = "scatter"
  package static let summary = "rows of a table replaced or changed by others"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? ScatterRows, query.isPlain(), let x = query.operands.first?.type,
      let element = x.element.scalar,
      op.reduction == .replace ? element != .f16 && element != .bf16 : [.f32, .i32, .i64].contains(element),
      let columns = x.shape[1].fixedValue
    else { return [] }
    var extents = ExtentTable()
    let rows = extents.extent(x.shape[0], "R"), updates = extents.extent(query.operands[1].type.shape[0], "M")
    let k = KernelBuilder(
      "mcc_scatter_\(op.reduction.rawValue)_\(element.rawValue)_\(rows.text)x\(columns)_\(updates.text)_\(target.suffix)",
      target: target)
    k.comment = [
      "y = data[\(rows.text), \(columns)] with the rows at indices[\(updates.text)] "
        + "\(op.reduction == .replace ? "replaced" : "changed"). Threads share the columns."
    ]
    let data = k.input("data", element), indices = k.input("indices", .i64), values = k.input("updates", element)
    let y = k.output("y", element)
    let count = k.extent(rows), changes = k.extent(updates), width = Expression.integer(columns)
    let part = k.partition(width)
    k.loop("column", from: part.begin, to: part.end) { column in
      k.loop("row", to: count) { row in
        let place = k.define("place", row * width + column)
        k.store(y, place, data[place])
      }
      k.loop("i", to: changes) { i in
        let row = k.define("row", indices[i])
        k.condition((row >= .integer(0)) & (row < count)) {
          let place = k.define("place", row * width + column)
          let value = k.define("value", values[i * width + column])
          let old = op.reduction == .replace ? value : k.define("old", y[place])
          switch op.reduction {
          case .replace: k.store(y, place, value)
          case .add: k.store(y, place, old + value)
          case .multiply: k.store(y, place, old * value)
          case .minimum: k.store(y, place, .choose(value < old, value, old))
          case .maximum: k.store(y, place, .choose(value > old, value, old))
          }
        }
      }
    }
    let size = Double(x.maximumCount)
    return [
      KernelChoice(
        k.finish(), work: KernelWork(floatOperations: 16 * size, bytes: Double(2 * x.maximumByteCount)), target: target,
        pointers: [.input(0), .input(1), .input(2), .result(0)], extents: extents, layouts: query.unpacked)
    ]
  }
}

/// A tensor as lines along one axis: `[outer, length, inner]`.
private struct Lines {
  let outer: Dim
  let length: Dim
  let inner: Int

  init?(_ shape: Shape, axis: Int) {
    guard let index = shape.normalizedAxis(axis), let outer = shape.product(0..<index),
      let inner = shape.product((index + 1)..<shape.rank)?.fixedValue, inner > 0
    else { return nil }
    self.outer = outer
    self.length = shape[index]
    self.inner = inner
  }
}
