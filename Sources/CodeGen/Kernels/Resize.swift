import IR
import Tensors

/// One specialised resizing of x[outer, height, width, inner], vectors along the last axis.
struct ResizeConfig: Hashable {
  var op: Resize2D
  var outer: Extent
  var height: Int
  var width: Int
  var inner: Int

  /// `mcc_resize_linear_40x40x64_80x80_1a2b3c_avx512`.
  func name(target: Target) -> String {
    "mcc_resize_\(op.mode.rawValue)_\(outer.text)x\(height)x\(width)x\(inner)_\(op.height)x\(op.width)_"
      + "\(shortHash("\(self)"))_\(target.suffix)"
  }

  /// Parameters: x, y, then outer if it is a run-time one. Threads share the lines of the result.
  func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    k.comment = [
      "y[\(outer.text), \(op.height), \(op.width), \(inner)] = \(op.mode.rawValue) of x[\(outer.text), \(height), "
        + "\(width), \(inner)]."
    ]
    let x = k.input("x", .f32), y = k.output("y", .f32)
    let part = k.partition(k.extent(outer) * .integer(op.height))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let image = k.define("image", unit / .integer(op.height))
      let line = place(k.define("i", unit % .integer(op.height)), op.heightScale, of: height, to: op.height, in: k)
      func row(_ name: String, _ index: Expression) -> Pointer {
        k.pointer(name, x, offset: (image * .integer(height) + index) * .integer(width * inner))
      }
      let low = row("low", line.low)
      let high = line.high.map { row("high", $0) }
      k.loop("j", to: .integer(op.width)) { j in
        let point = place(j, op.widthScale, of: width, to: op.width, in: k)
        let left = k.define("left", point.low * .integer(inner))
        let right = point.high.map { k.define("right", $0 * .integer(inner)) }
        let result = k.define("result", (unit * .integer(op.width) + j) * .integer(inner))
        func value(_ row: Pointer, _ load: (Pointer, Expression) -> Expression) -> Expression {
          let a = k.define("a", load(row, left))
          guard let right else { return a }
          let b = k.define("b", load(row, right))
          return k.define("mean", .multiplyAdd(b - a, point.part, a))
        }
        func mean(_ load: (Pointer, Expression) -> Expression) -> Expression {
          let above = value(low, load)
          guard let high else { return above }
          let below = value(high, load)
          return .multiplyAdd(below - above, line.part, above)
        }
        if inner == 1 {
          k.store(y, result, mean { $0[$1] })
        } else {
          k.vectorLoop("c", count: .integer(inner)) { c, tail in
            k.store(y, result + c, mean { $0.load($1 + c, count: tail) }, count: tail)
          }
        }
      }
    }
    return k.finish()
  }

  /// The pixels below and above a place and how far it is from the lower one, in the arithmetic of the operator.
  private func place(
    _ index: Expression, _ scale: Float, of size: Int, to count: Int, in k: KernelBuilder
  ) -> (low: Expression, high: Expression?, part: Expression) {
    let i = k.define("number", index.asFloat)
    func half() -> Expression { (i + 0.5) / .real(scale) - 0.5 }
    let place: Expression =
      switch op.coordinates {
      case .halfPixel: half()
      case .pytorchHalfPixel: count == 1 ? 0.0 : half()
      case .alignCorners: count == 1 ? 0.0 : i * .real(Float(size - 1)) / .real(Float(count - 1))
      case .asymmetric: i / .real(scale)
      }
    func floor(_ value: Expression) -> Expression { .unary(.floor, value) }
    func inside(_ value: Expression) -> Expression {
      k.define("inside", .maximum(.minimum(k.define("at", value), .real(Float(size - 1))), .real(0)))
    }
    guard op.mode == .linear else {
      let nearest: Expression =
        switch op.rounding {
        case .floor: floor(place)
        case .ceil: -floor(-place)
        case .preferFloor: -floor(-(place - 0.5))
        case .preferCeil: floor(place + 0.5)
        }
      return (k.define("pixel", inside(nearest).asIndex), nil, 0.0)
    }
    let point = inside(place)
    let low = k.define("pixel", point.asIndex)
    let part = k.define("part", point - .convert(low, .f32))
    return (low, k.define("next", .minimum(low + 1, .integer(size - 1))), part)
  }
}

/// Images of another size.
package enum ResizeKernel: Kernel {
  package static let name = "resize2d"
  package static let summary = "f32 images of another size by the nearest pixel or bilinear means"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Resize2D, query.isPlain(), let x = query.operands.first?.type,
      x.element == .f32, x.rank == 4, let result = try query.resultTypes().first
    else { return [] }
    let image = op.layout.split(x.shape)
    guard let height = image.height.fixedValue, let width = image.width.fixedValue,
      let channels = image.channels.fixedValue
    else { return [] }
    let first = op.layout == .first
    var extents = ExtentTable()
    let outer = extents.extent(first ? image.batch * channels : image.batch, "N")
    let config = ResizeConfig(op: op, outer: outer, height: height, width: width, inner: first ? 1 : channels)
    let reads = (op.mode == .linear ? 8.0 : 2) * Double(result.maximumCount) * (first ? 16 : 1)
    let work = KernelWork(floatOperations: reads, bytes: Double(x.maximumByteCount + result.maximumByteCount))
    return [
      KernelChoice(
        config.build(target: target), work: work, target: target, pointers: [.input(0), .result(0)], extents: extents,
        layouts: query.unpacked)
    ]
  }
}
