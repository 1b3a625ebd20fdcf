import Tensors

extension MatMul: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, w, result) = (inputs[0], inputs[1], results[0])
    let rank = x.sizes.count
    let k = x.sizes[rank - 1]
    let n = w.sizes[w.sizes.count - (transposeB ? 2 : 1)]
    let batch = Array(result.sizes.dropLast(2))
    let shared = w.sizes.count == 2
    // One matrix for all: the leading axes are more rows.
    let m = shared ? x.sizes.dropLast().reduce(1, *) : x.sizes[rank - 2]
    let products = shared ? 1 : batch.reduce(1, *)
    let sums = epilogue.gated ? Scratch<R>(products * m * n) : nil
    let target = sums?.data ?? result.data
    if shared {
      product(x.data, w, m: m, n: n, k: k, into: target)
    } else {
      let xStrides = broadcastStrides(Array(x.sizes.dropLast(2)), over: batch)
      let wStrides = broadcastStrides(Array(w.sizes.dropLast(2)), over: batch)
      let (left, right) = (x.data, w.data)
      for index in 0..<products {
        var (rest, a, b) = (index, 0, 0)
        for axis in batch.indices.reversed() {
          let position = rest % batch[axis]
          rest /= batch[axis]
          a += position * xStrides[axis]
          b += position * wStrides[axis]
        }
        R.multiply(
          MatrixProduct(rows: m, columns: n, depth: k, transposeB: transposeB), left + a * m * k, right + b * n * k,
          into: target + index * m * n)
      }
    }
    finish(
      epilogue, sums: target, rows: products * m, columns: n, bias: epilogue.biasIndex.map { inputs[$0].data },
      residual: epilogue.residualIndex.map { inputs[$0].data }, into: result.data)
    withExtendedLifetime(sums) {}
  }

  /// `c = x w`. Rows of transposed weights of another type are widened a few at a time.
  private func product<R: Real>(
    _ x: UnsafePointer<R>, _ w: Numbers<R>, m: Int, n: Int, k: Int, into c: UnsafeMutablePointer<R>
  ) {
    let block = max(1, (1 << 22) / max(k, 1))
    guard transposeB, w.view.type.element != R.dtype, n > block else {
      return R.multiply(
        MatrixProduct(rows: m, columns: n, depth: k, transposeB: transposeB), x, w.data, into: c)
    }
    let rows = Scratch<R>(block * k)
    for first in stride(from: 0, to: n, by: block) {
      let count = min(block, n - first)
      loadNumbers(w.view, (first * k)..<((first + count) * k), into: rows.data)
      R.multiply(
        MatrixProduct(rows: m, columns: count, depth: k, transposeB: true, strideC: n), x, rows.data, into: c + first)
    }
  }
}

/// Applies an epilogue to rows of sums: bias per column, activation, residual. `result` may be `sums` unless gated.
func finish<R: Real>(
  _ epilogue: Epilogue, sums: UnsafeMutablePointer<R>, rows: Int, columns: Int, bias: UnsafePointer<R>?,
  residual: UnsafePointer<R>?, into result: UnsafeMutablePointer<R>
) {
  guard columns > 0 else { return }
  nonisolated(unsafe) let (sums, bias, residual, result) = (sums, bias, residual, result)
  parallelFor(rows, grain: max(1, 65536 / columns)) { range in
    for row in range {
      let s = sums + row * columns
      if let bias { for i in 0..<columns { s[i] += bias[i] } }
      if epilogue.gated {
        let width = columns / 2
        let y = result + row * width
        for i in 0..<width { y[i] = s[2 * i] }
        epilogue.activation.apply(to: y, count: width)
        for i in 0..<width { y[i] *= s[2 * i + 1] }
        if let residual { for i in 0..<width { y[i] += residual[row * width + i] } }
        continue
      }
      if let residual, epilogue.residual == .beforeActivation {
        for i in 0..<columns { s[i] += residual[row * columns + i] }
      }
      epilogue.activation.apply(to: s, count: columns)
      if let residual, epilogue.residual == .afterActivation {
        for i in 0..<columns { s[i] += residual[row * columns + i] }
      }
      if s != result + row * columns { (result + row * columns).update(from: s, count: columns) }
    }
  }
}

extension Activation {
  /// Replaces numbers by the function of them.
  func apply<R: Real>(to x: UnsafeMutablePointer<R>, count: Int) {
    switch function {
    case .unary(let function, .input): R.apply(function, to: x, count: count)
    case .input: break
    default:
      precondition(self == .relu6, "'\(rawValue)' is one function or a clamp")
      for i in 0..<count { x[i] = x[i] < 0 ? 0 : (x[i] > 6 ? 6 : x[i]) }
    }
  }
}
