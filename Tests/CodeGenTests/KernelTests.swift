import Base
import CodeGen
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Every kernel family on every target, compiled and run, against the reference meaning of the operators.
///
/// `MCC_TEST_TARGET` restricts the tests to one target.
@Suite struct KernelTests {
  static let targets = TargetRegistry.all.map(\.name)

  private func check(_ cases: [KernelCase], on name: String, compiler: String = "clang") throws {
    if let only = getenv("MCC_TEST_TARGET"), String(cString: only) != name { return }
    let target = try TargetRegistry.target(named: name)
    let harness = KernelHarness(target: target)
    let runs = try harness.sample(cases).flatMap { try $0.runs(on: target) }
    for failure in try harness.failures(runs, compiler: compiler) {
      Issue.record("\(name): \(failure)")
    }
  }

  private func random(_ sizes: [Int], seed: UInt64, in range: ClosedRange<Float> = -1...1) throws -> Tensor {
    try random(.f32, sizes, seed: seed, in: range)
  }

  private func random(_ element: DType, _ sizes: [Int], seed: UInt64, in range: ClosedRange<Float> = -1...1) throws
    -> Tensor
  {
    var generator = SplitMix64(seed: seed)
    let values = generator.floats(sizes.reduce(1, *), in: range)
    let tensor = Tensor(.f32, sizes, values)
    if element == .f32 { return tensor }
    let cast = Tensor(TensorType(element, sizes))
    try Cast(element).evaluate([tensor.view], into: [cast.mutableView])
    return cast
  }

  private func quantized(_ tensor: Tensor, _ format: BlockFormat) throws -> Tensor {
    let op = Quantize(format)
    let result = Tensor(try op.inferTypes([tensor.type])[0])
    try op.evaluate([tensor.view], into: [result.mutableView])
    return result
  }

  /// The type with its first axis as the symbol T.
  private func symbolic(_ type: TensorType, axis: Int = 0, name: String = "T") -> TensorType {
    var type = type
    type.shape[axis] = .symbol(Symbol(name, in: 1...64))
    return type
  }

  // MARK: matmul

  private static let shapes = [(1, 1), (17, 40), (70, 100)]

  /// f32 sums of up to 100 products in another order than the reference's: 1e-5 of the largest result.
  func floatMatMuls() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (number, (n, k)) in Self.shapes.enumerated() {
      for element in [DType.f32, .f16, .bf16] {
        let w = try random(element, [n, k], seed: UInt64(number))
        let row = try random([1, k], seed: 101)
        cases.append(
          KernelCase("\(element) 1x\(k)x\(n)", MatMul(transposeB: true), [row, w], constants: [1], tolerance: 1e-5))
        let x = try random([7, k], seed: 3)
        cases.append(
          KernelCase(
            "\(element) Tx\(k)x\(n)", MatMul(transposeB: true), [x, w], types: [symbolic(x.type), w.type],
            constants: [1], symbols: ["T": 7], tolerance: 1e-5))
      }
    }
    return cases
  }

  /// Codes are exact; dequantized values differ from the reference's by the order of sums and of scaling: 1e-5.
  func quantizedMatMuls() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let formats = [BlockFormat.w8c, .w8(32), .w8(64), .w4(32), .w4(64), .w4(128)]
    for (number, (n, k)) in Self.shapes.enumerated() {
      for format in formats {
        let w = try quantized(try random([n, k], seed: UInt64(number)), format)
        for t in [1, 9] {
          let x = try random([t, k], seed: UInt64(50 + t))
          let a = try quantized(x, .a8(format.group ?? 32))
          for (label, input, dequantized) in [("a32", x, Set([1])), ("a8", a, [0, 1])] {
            cases.append(
              KernelCase(
                "\(format.name) \(t)x\(k)x\(n) \(label)", MatMul(transposeB: true), [input, w],
                types: t == 1 ? nil : [symbolic(input.type), w.type], constants: [1], dequantized: dequantized,
                symbols: ["T": t], tolerance: 1e-5))
          }
        }
      }
    }
    return cases
  }

  /// Largest codes on both sides: sums of products that would saturate in 16 bits.
  func extremeMatMuls() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let (n, k) = (35, 128)
    for format in [BlockFormat.w8c, .w8(32), .w4(32), .w4(128)] {
      for (label, high, low) in [("+", Float(1), Float(1)), ("-", 1, -1), ("mixed", -1, 1)] {
        // Rows of the largest magnitude give codes -8 (0) and, beside a larger number of other sign, +7 (15).
        let weights = (0..<(n * k)).map { index -> Float in index % 8 == 0 ? -8 * high : 7 * high }
        let w = try quantized(Tensor(.f32, [n, k], weights), format)
        let x = Tensor(.f32, [3, k], (0..<(3 * k)).map { $0 % 3 == 0 ? low : 1 } as [Float])
        let a = try quantized(x, .a8(format.group ?? 32))
        cases.append(
          KernelCase(
            "extreme \(format.name) \(label)", MatMul(transposeB: true), [a, w], constants: [1], dequantized: [0, 1],
            tolerance: 1e-5))
      }
    }
    // Code -128 does not come from quantization to nearest but may come from a file.
    let w = try quantized(try random([20, 64], seed: 9), .w8(32))
    for row in 0..<20 {
      for block in 0..<2 {
        for code in 0..<32 { w.mutableView.bytes[(row * 2 + block) * 34 + 2 + code] = code % 2 == 0 ? 0x80 : 0x7f }
      }
    }
    let a = try quantized(Tensor(.f32, [2, 64], (0..<128).map { $0 % 5 == 0 ? -1 : 1 } as [Float]), .a8(32))
    cases.append(
      KernelCase(
        "code -128", MatMul(transposeB: true), [a, w], constants: [1], dequantized: [0, 1], tolerance: 1e-5))
    return cases
  }

  /// exp and its kind differ by some ulp from the reference: 2e-5.
  func epilogues() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (n, k, t) in [(34, 24, 5), (64, 64, 1), (6, 8, 3)] {
      let x = try random([t, k], seed: 1)
      let bias = try random([n], seed: 2)
      for format in [nil, BlockFormat.w4(32), .w8c] {
        let dense = try random([n, k], seed: 3)
        let w = try format.map { try quantized(dense, $0) } ?? dense
        let dequantized: Set<Int> = format == nil ? [] : [1]
        for activation in format == nil && n == 34 ? Activation.allCases : [.none, .silu] {
          cases.append(
            KernelCase(
              "bias \(activation) \(n)x\(k)",
              MatMul(transposeB: true, epilogue: Epilogue(bias: true, activation: activation)),
              [x, w, bias], constants: [1, 2], dequantized: dequantized, tolerance: 2e-5))
        }
        for residual in [Epilogue.Residual.beforeActivation, .afterActivation] {
          let r = try random([t, n], seed: 4)
          let epilogue = Epilogue(bias: true, activation: .relu, residual: residual)
          cases.append(
            KernelCase(
              "\(residual) \(n)x\(k)", MatMul(transposeB: true, epilogue: epilogue), [x, w, bias, r],
              constants: [1, 2],
              dequantized: dequantized, tolerance: 2e-5))
        }
        for hasBias in [false, true] {
          let r = try random([t, n / 2], seed: 5)
          let epilogue = Epilogue(bias: hasBias, activation: .silu, residual: .afterActivation, gated: true)
          cases.append(
            KernelCase(
              "gated \(n)x\(k) \(hasBias)", MatMul(transposeB: true, epilogue: epilogue),
              hasBias ? [x, w, bias, r] : [x, w, r], constants: hasBias ? [1, 2] : [1], dequantized: dequantized,
              tolerance: 2e-5))
        }
      }
    }
    let x = try random([4, 24], seed: 6), w = try random([20, 24], seed: 7)
    cases.append(
      KernelCase(
        "columns of a wider buffer", MatMul(transposeB: true), [x, w], constants: [1],
        columns: [0: (start: 5, width: 40)], tolerance: 1e-5))
    for (a, b, transposed) in [([3, 5], [5, 20], false), ([3, 5], [20, 5], true), ([2, 3, 7], [2, 7, 9], false)] {
      cases.append(
        KernelCase(
          "dense \(a) \(b)", MatMul(transposeB: transposed), [try random(a, seed: 8), try random(b, seed: 9)],
          tolerance: 1e-5))
    }
    for transposed in [false, true] {
      let residual: Epilogue.Residual = transposed ? .afterActivation : .beforeActivation
      let epilogue = Epilogue(bias: true, activation: .gelu, residual: residual)
      let factor = try random(transposed ? [20, 5] : [5, 20], seed: 9)
      cases.append(
        KernelCase(
          "dense with epilogue", MatMul(transposeB: transposed, epilogue: epilogue),
          [try random([3, 5], seed: 8), factor, try random([20], seed: 10), try random([3, 20], seed: 11)],
          tolerance: 2e-5))
    }
    return cases
  }

  @Test(arguments: targets) func floatWeights(_ target: String) throws { try check(try floatMatMuls(), on: target) }

  @Test(arguments: targets) func quantizedWeights(_ target: String) throws {
    try check(try quantizedMatMuls(), on: target)
  }

  @Test(arguments: targets) func extremeCodes(_ target: String) throws { try check(try extremeMatMuls(), on: target) }

  @Test(arguments: targets) func matMulEpilogues(_ target: String) throws { try check(try epilogues(), on: target) }

  // MARK: rows

  func rows() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for columns in [1, 7, 16, 33, 64, 100] {
      let x = try random([3, columns], seed: 11, in: -3...3)
      let weight = try random([columns], seed: 12), bias = try random([columns], seed: 13)
      cases.append(
        KernelCase("rms_norm \(columns)", RMSNorm(epsilon: 1e-5), [x, weight], constants: [1], tolerance: 1e-5))
      cases.append(
        KernelCase(
          "rms_norm T \(columns)", RMSNorm(epsilon: 1e-5), [x, weight], types: [symbolic(x.type), weight.type],
          symbols: ["T": 3], tolerance: 1e-5))
      cases.append(
        KernelCase("layer_norm \(columns)", LayerNorm(epsilon: 1e-3), [x, weight, bias], tolerance: 1e-5))
      cases.append(KernelCase("layer_norm \(columns) no bias", LayerNorm(epsilon: 1e-3), [x, weight], tolerance: 1e-5))
      cases.append(KernelCase("softmax \(columns)", Softmax(axis: -1), [x], tolerance: 1e-5))
      cases.append(KernelCase("log_softmax \(columns)", LogSoftmax(axis: -1), [x], tolerance: 1e-5))
      for group in [32, 64, 128] {
        cases.append(KernelCase("quantize \(columns) g\(group)", Quantize(.a8(group)), [x], tolerance: 0))
      }
      cases.append(
        KernelCase(
          "quantize T \(columns)", Quantize(.a8(32)), [x], types: [symbolic(x.type)], symbols: ["T": 3], tolerance: 0))
      for function in Reduce.Function.allCases {
        for (axes, keep) in [([1], true), ([0], false), ([], false)] {
          cases.append(
            KernelCase(
              "reduce \(function) \(columns) \(axes)", Reduce(function, axes: axes, keepDims: keep), [x],
              tolerance: 1e-5))
        }
      }
    }
    let zeros = Tensor(.f32, [2, 40], [Float](repeating: 0, count: 80))
    cases.append(KernelCase("quantize zeros", Quantize(.a8(32)), [zeros], tolerance: 0))
    // Denormal scales, and the largest numbers.
    let tiny = Tensor(.f32, [1, 32], (0..<32).map { Float($0) * 0x1p-149 })
    cases.append(KernelCase("quantize denormals", Quantize(.a8(32)), [tiny], tolerance: 0))
    let huge = Tensor(.f32, [1, 32], (0..<32).map { Float($0 - 16) / 16 * Float.greatestFiniteMagnitude })
    cases.append(KernelCase("quantize huge", Quantize(.a8(32)), [huge], tolerance: 0))
    let large = try random([2, 33], seed: 14, in: -1000...1000)
    cases.append(KernelCase("softmax large", Softmax(axis: -1), [large], tolerance: 1e-5))
    let x3 = try random([2, 5, 19], seed: 15)
    for axis in 0..<3 {
      cases.append(KernelCase("softmax axis \(axis)", Softmax(axis: axis), [x3], tolerance: 1e-5))
      cases.append(KernelCase("log_softmax axis \(axis)", LogSoftmax(axis: axis), [x3], tolerance: 1e-5))
      cases.append(KernelCase("mean axis \(axis)", Reduce(.mean, axes: [axis]), [x3], tolerance: 1e-5))
    }
    cases.append(KernelCase("mean of axes 1, 2", Reduce(.mean, axes: [1, 2], keepDims: true), [x3], tolerance: 1e-5))
    let infinite = Tensor(.f32, [1, 4], [.nan, 1, -.infinity, 3] as [Float])
    cases.append(KernelCase("max of nan", Reduce(.max, axes: [1]), [infinite], tolerance: 0))
    cases.append(
      KernelCase(
        "rms_norm of columns", RMSNorm(epsilon: 1e-6), [try random([4, 20], seed: 16), try random([20], seed: 17)],
        columns: [0: (start: 3, width: 31)], tolerance: 1e-5))
    cases.append(
      KernelCase(
        "rms_norm bf16", RMSNorm(epsilon: 1e-6), [try random([4, 20], seed: 16), try random(.bf16, [20], seed: 17)],
        tolerance: 1e-5))
    return cases
  }

  @Test(arguments: targets) func rowKernels(_ target: String) throws { try check(try rows(), on: target) }

  // MARK: attention

  /// A cache in the given type, `i8` for codes with scales.
  private func cache(_ element: DType, _ rows: Int, heads: Int, dim: Int, seed: UInt64) throws -> Tensor {
    guard element == .i8 else { return try random(element, [rows, heads * dim], seed: seed) }
    let numbers = try random([rows, heads * dim], seed: seed)
    let tensor = Tensor(TensorType(.f32, [rows, heads * dim], encoding: .block(.cache8(dim))))
    let old = Tensor(tensor.type)
    let all = Tensor(.i32, [1], [Int32(0)])
    try CacheUpdate().evaluate([old.view, numbers.view, all.view], into: [tensor.mutableView])
    return tensor
  }

  /// Several tiles of queries and blocks of keys, the last ones in part; groups of heads; caches of int8, whose numbers
  /// both sides take as they are. Sums of up to 90 products in f32, 1e-5.
  private func attentionTiles() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, dim, element) in [
      (6, 2, 20, DType.f32), (2, 2, 32, .f16), (8, 1, 8, .i8), (2, 1, 80, .i8), (3, 3, 4, .i8),
    ] {
      let k = try cache(element, 90, heads: kvHeads, dim: dim, seed: 41)
      let v = try cache(element, 90, heads: kvHeads, dim: dim, seed: 42)
      for (tokens, position) in [(1, 64), (37, 53)] {
        let q = try random([tokens, heads * dim], seed: 43, in: -2...2)
        let at = Tensor(.i32, [1], [Int32(position)])
        let label = "attention tile \(heads)/\(kvHeads) x\(dim) \(element) \(tokens)@\(position)"
        var op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot())
        cases.append(KernelCase(label, op, [q, k, v, at], tolerance: 1e-5))
        op.window = 33
        op.softcap = 2
        cases.append(
          KernelCase(
            "\(label) window", op, [q, k, v, at], types: [symbolic(q.type), k.type, v.type, at.type],
            symbols: ["T": tokens], tolerance: 1e-5))
      }
    }
    // One token leaves lanes free, which take neighbouring keys: two and four of them, blocks that end in between.
    for (heads, kvHeads, dim, element) in [(16, 2, 64, DType.f16), (4, 1, 32, .i8)] {
      let k = try cache(element, 90, heads: kvHeads, dim: dim, seed: 51)
      let v = try cache(element, 90, heads: kvHeads, dim: dim, seed: 52)
      let q = try random([1, heads * dim], seed: 53, in: -2...2)
      for position in [0, 6, 31, 66] {
        let at = Tensor(.i32, [1], [Int32(position)])
        let label = "attention of one token \(heads)/\(kvHeads) x\(dim) \(element) @\(position)"
        var op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot())
        cases.append(KernelCase(label, op, [q, k, v, at], tolerance: 1e-5))
        op.window = 33
        op.softcap = 2
        cases.append(KernelCase("\(label) window", op, [q, k, v, at], tolerance: 1e-5))
      }
    }
    let (q, k, v) = (
      try random([2, 35, 24], seed: 44), try random([2, 67, 8], seed: 45), try random([2, 67, 12], seed: 46)
    )
    let all = Attention(heads: 6, kvHeads: 2, scale: 0.5, causal: false)
    cases.append(KernelCase("attention tile of a batch", all, [q, k, v], tolerance: 1e-5))
    let bias = try random([6, 35, 67], seed: 47)
    cases.append(KernelCase("attention tile with added bias", all, [q, k, v, bias], tolerance: 1e-5))
    let padding = Tensor(.bool, [2, 1, 1, 67], (0..<134).map { UInt8($0 >= 40 && $0 < 120 ? 1 : 0) })
    cases.append(KernelCase("attention tile with padding", all, [q, k, v, padding], tolerance: 1e-5))
    let nothing = Tensor(.bool, [35, 67], (0..<35 * 67).map { UInt8($0 / 67 % 3 == 0 ? 0 : 1) })
    cases.append(KernelCase("attention tile with hidden rows", all, [q, k, v, nothing], tolerance: 1e-5))
    // Scores of 1e4, which are off by some 2^-24 of that, and so are the weights: 1e4 * 6e-8 * 4 products < 3e-3. Nothing
    // overflows.
    let far = try random([2, 35, 24], seed: 48, in: -1000...1000)
    cases.append(KernelCase("attention tile of large scores", all, [far, k, v], tolerance: 3e-3))
    for (tokens, group) in [(3, 8), (1, 20), (2, 64)] {
      let old = try cache(.i8, 9, heads: 3, dim: group, seed: 49)
      let rows = try random([tokens, 3 * group], seed: 50, in: -5...5)
      cases.append(
        KernelCase("cache_update i8 \(group)", CacheUpdate(), [old, rows, Tensor(.i32, [1], [Int32(5)])], tolerance: 0))
    }
    return cases
  }

  /// Rotary embedding turns a head by angles up to 100: products and table rounded once each, 1e-5.
  func attention() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let context = 70
    for (heads, kvHeads, dim) in [(8, 4, 8), (4, 1, 16), (2, 2, 40), (3, 3, 64), (2, 1, 5), (1, 1, 160)] {
      for cache in [DType.f32, .f16] {
        let k = try random(cache, [context, kvHeads * dim], seed: 21),
          v = try random(cache, [context, kvHeads * dim], seed: 22)
        for (tokens, position) in [(1, 0), (1, 31), (1, 69), (5, 0), (5, 40)] {
          let q = try random([tokens, heads * dim], seed: 23, in: -2...2)
          let at = Tensor(.i32, [1], [Int32(position)])
          var op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot())
          cases.append(
            KernelCase(
              "attention \(heads)/\(kvHeads) x\(dim) \(cache) \(tokens)@\(position)", op, [q, k, v, at], tolerance: 1e-5
            ))
          op.window = 7
          op.softcap = 1.5
          cases.append(
            KernelCase(
              "attention window \(heads)x\(dim) \(cache) \(tokens)@\(position)", op, [q, k, v, at],
              types: [symbolic(q.type), k.type, v.type, at.type], symbols: ["T": tokens], tolerance: 1e-5))
        }
      }
    }
    let (q, k, v) = (
      try random([2, 6, 12], seed: 24), try random([2, 9, 12], seed: 25), try random([2, 9, 12], seed: 26)
    )
    let all = Attention(heads: 3, kvHeads: 3, scale: 0.5, causal: false)
    cases.append(KernelCase("attention of a batch", all, [q, k, v], tolerance: 1e-5))
    let mask = try random([2, 1, 1, 9], seed: 27)
    cases.append(KernelCase("attention with added mask", all, [q, k, v, mask], tolerance: 1e-5))
    let hidden = Tensor(.bool, [6, 9], (0..<54).map { UInt8($0 / 9 != 2 && $0 % 4 != 0 ? 1 : 0) })
    cases.append(KernelCase("attention with hidden keys", all, [q, k, v, hidden], tolerance: 1e-5))
    // Queries and keys that fill tiles and blocks of keys in part, or several of them.
    for (batch, heads, kvHeads, dim, tokens, keys) in [
      (1, 2, 2, 5, 1, 3), (3, 2, 1, 8, 37, 49), (1, 1, 1, 30, 65, 300), (2, 3, 3, 32, 16, 13),
    ] {
      let q = try random([batch, tokens, heads * dim], seed: 33, in: -2...2)
      let k = try random([batch, keys, kvHeads * dim], seed: 34),
        v = try random([batch, keys, kvHeads * dim], seed: 35)
      var op = Attention(heads: heads, kvHeads: kvHeads, scale: 0.7, causal: false)
      let label = "attention \(batch) x \(heads)/\(kvHeads)x\(dim) \(tokens) of \(keys)"
      cases.append(KernelCase(label, op, [q, k, v], tolerance: 1e-5))
      cases.append(
        KernelCase(
          label + " T", op, [q, k, v],
          types: [
            symbolic(q.type, axis: 1), symbolic(k.type, axis: 1, name: "S"),
            symbolic(v.type, axis: 1, name: "S"),
          ],
          symbols: ["T": tokens, "S": keys], tolerance: 1e-5))
      // A mask that hides all keys of a query and all of the first block of another.
      let count = batch * heads * tokens * keys
      let numbers = try random([batch, heads, tokens, keys], seed: 36, in: -2...2).array(of: Float.self)
      let mask = Tensor(
        .f32, [batch, heads, tokens, keys],
        (0..<count).map { i in
          let (row, key) = (i / keys, i % keys)
          if row % tokens == 0, tokens > 1 { return -Float.infinity }
          if row % tokens == 1, key < 256, key < keys - 1 { return -Float.infinity }
          return numbers[i]
        })
      op.softcap = 2
      cases.append(KernelCase(label + " masked", op, [q, k, v, mask], tolerance: 1e-5))
    }
    let causal = Attention(heads: 3, kvHeads: 3, scale: 0.5)
    cases.append(KernelCase("causal attention without position", causal, [q, k, v], tolerance: 1e-5))
    let (q2, k2, v2) = (try random([6, 12], seed: 28), try random([6, 12], seed: 29), try random([6, 12], seed: 30))
    cases.append(
      KernelCase(
        "attention over columns of one buffer", causal, [q2, k2, v2],
        columns: [0: (0, 36), 1: (12, 36), 2: (24, 36)], tolerance: 1e-5))
    cases += try attentionTiles()
    let (q3, k3, v3) = (
      try random([3, 6, 12], seed: 37), try random([3, 6, 12], seed: 38), try random([3, 6, 12], seed: 39)
    )
    cases.append(
      KernelCase(
        "attention over columns of a batch", all, [q3, k3, v3], columns: [0: (0, 36), 1: (12, 36), 2: (24, 36)],
        tolerance: 1e-5))
    for (tokens, cache, columns) in [(1, DType.f32, 16), (4, .f16, 100), (3, .bf16, 5)] {
      let old = try random(cache, [9, columns], seed: 31), rows = try random([tokens, columns], seed: 32)
      cases.append(
        KernelCase(
          "cache_update \(cache) \(columns)", CacheUpdate(), [old, rows, Tensor(.i32, [1], [Int32(5)])], tolerance: 0))
      cases.append(
        KernelCase(
          "cache_update of columns \(cache) \(columns)", CacheUpdate(), [old, rows, Tensor(.i32, [1], [Int32(2)])],
          types: [old.type, symbolic(rows.type), TensorType(.i32, [1])], columns: [1: (start: 3, width: columns + 4)],
          symbols: ["T": tokens], tolerance: 0))
    }
    for (dim, width, interleaved) in [(8, 4, false), (64, 32, false), (40, 10, false), (8, 4, true), (10, 3, true)] {
      let x = try random([3, 2 * dim], seed: 33), table = try random([3, 2, width], seed: 34)
      cases.append(
        KernelCase("rope \(dim) \(width)", Rope(headDim: dim, interleaved: interleaved), [x, table], tolerance: 1e-6))
      cases.append(
        KernelCase(
          "rope of columns \(dim) \(width)", Rope(headDim: dim, interleaved: interleaved), [x, table],
          types: [symbolic(x.type), symbolic(table.type)], columns: [0: (start: 1, width: 2 * dim + 9)],
          symbols: ["T": 3], tolerance: 1e-6))
    }
    let frequencies = Tensor(.f32, [5], [1, 0.3, 0.1, 0.03, 0.001] as [Float])
    cases.append(
      KernelCase(
        "rope_table", RopeTable(length: 4), [Tensor(.i32, [1], [Int32(97)]), frequencies], tolerance: 1e-6))
    return cases
  }

  @Test(arguments: targets) func attentionKernels(_ target: String) throws { try check(try attention(), on: target) }

  // MARK: elements

  func elementwise() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let special: [Float] = [
      0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, -3, 10, -10, 88, -88, 100, -100, 1e-10, -1e-10, 1e10, -1e10,
      .infinity,
      -.infinity, .nan, 1e-40, 0.62, 0.63, 0.93, 0.94, 3.9, 4,
    ]
    var generator = SplitMix64(seed: 41)
    let x = Tensor(.f32, [1031], special + generator.floats(1000, in: -6...6))
    let positive = Tensor(.f32, [1031], (special + generator.floats(1000, in: 0...6)).map(abs))
    for function in UnaryFunction.allCases where function != .not {
      let op = FusedElementwise(.unary(function, .input(0)))
      let isRoot = [.sqrt, .rsqrt, .log].contains(function)
      cases.append(KernelCase("\(function)", op, [isRoot ? positive : x], tolerance: 4e-7))
    }
    let y = Tensor(.f32, [1031], special.reversed() + generator.floats(1000, in: -2...2))
    for function in BinaryFunction.allCases where function != .and && function != .or && function != .power {
      cases.append(
        KernelCase("\(function)", FusedElementwise(.binary(function, .input(0), .input(1))), [x, y], tolerance: 1e-6))
    }
    cases.append(
      KernelCase(
        "power", FusedElementwise(.binary(.power, .input(0), .input(1))),
        [
          try random([50], seed: 42, in: 0...4), try random([50], seed: 43, in: -2...2),
        ], tolerance: 1e-6))
    let (a, b, c) = (try random([3, 5, 37], seed: 44), try random([5, 1], seed: 45), try random([37], seed: 46))
    cases.append(
      KernelCase(
        "broadcast",
        FusedElementwise(.binary(.add, .unary(.silu, .input(0)), .binary(.multiply, .input(1), .input(2)))), [a, b, c],
        tolerance: 1e-6))
    cases.append(
      KernelCase(
        "broadcast T", Add(), [a, b],
        types: [symbolic(a.type), b.type], symbols: ["T": 3], tolerance: 1e-6))
    cases.append(KernelCase("scalar", Multiply(), [a, Tensor(.f32, [], [2.5] as [Float])], tolerance: 0))
    cases.append(KernelCase("clip", Clip(minimum: -1, maximum: 2), [x], tolerance: 0))
    cases.append(KernelCase("leaky_relu", LeakyReLU(slope: 0.1), [x], tolerance: 1e-7))
    let truth = Tensor(.bool, [1031], (0..<1031).map { UInt8($0 % 3 == 0 ? 1 : 0) })
    cases.append(KernelCase("select", Select(), [truth, x, y], tolerance: 0))
    cases.append(KernelCase("not", Not(), [truth], tolerance: 0))
    cases.append(
      KernelCase("and", And(), [truth, Tensor(.bool, [1031], (0..<1031).map { UInt8($0 % 2) })], tolerance: 0))
    for element in [DType.f16, .bf16] {
      cases.append(
        KernelCase(
          "add \(element)", Add(), [try random(element, [45], seed: 47), try random(element, [45], seed: 48)],
          tolerance: 0))
    }
    for type in [DType.f32, .f16, .bf16, .f64, .i64, .i32, .i16, .i8, .u8, .bool] {
      cases.append(KernelCase("cast to \(type)", Cast(type), [x], tolerance: 0))
    }
    let whole = Tensor(.i64, [9], [-300, -129, -1, 0, 1, 127, 255, 70000, 5_000_000_000] as [Int64])
    for type in [DType.f32, .i32, .i8, .u8, .bool, .f64] {
      cases.append(KernelCase("cast from i64 to \(type)", Cast(type), [whole], tolerance: 0))
    }
    let other = Tensor(.i64, [9], [7, 3, 2, 5, -1, 10, -16, 3, 9] as [Int64])
    for function in [BinaryFunction.add, .subtract, .multiply, .divide, .minimum, .maximum, .less, .equal, .modulo] {
      cases.append(
        KernelCase(
          "i64 \(function)", FusedElementwise(.binary(function, .input(0), .input(1))), [whole, other], tolerance: 0))
    }
    return cases
  }

  @Test(arguments: targets) func elementwiseKernels(_ target: String) throws {
    try check(try elementwise(), on: target)
  }

  // MARK: movement

  func movement() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let indices = Tensor(.i32, [4], [3, 0, -1, 17] as [Int32])
    let many = Tensor(.i64, [2, 2], [3, 0, 1, 17] as [Int64])
    for columns in [5, 33, 64, 1100] {
      for element in [DType.f32, .f16, .bf16] {
        let table = try random(element, [18, columns], seed: 51)
        for constant in [true, false] {
          cases.append(
            KernelCase(
              "gather \(element) \(columns)", Gather(axis: 0, type: .f32), [table, indices],
              types: [table.type, symbolic(indices.type)], constants: constant ? [0] : [], symbols: ["T": 4],
              tolerance: 0))
        }
        cases.append(KernelCase("gather \(element) i64 \(columns)", Gather(axis: 0), [table, many], tolerance: 0))
      }
      for format in [BlockFormat.w8c, .w8(32), .w4(32), .w4(128)] + narrowFormats {
        let table = try quantized(try random([18, columns], seed: 52), format)
        cases.append(
          KernelCase(
            "gather \(format.name) \(columns)", Gather(axis: 0), [table, indices], constants: [0], tolerance: 1e-7))
      }
    }
    let x = try random([3, 4, 5], seed: 53)
    cases.append(
      KernelCase("gather axis 1", Gather(axis: 1), [x, Tensor(.i32, [2], [2, 0] as [Int32])], tolerance: 0))
    for permutation in [[0, 1, 2], [0, 2, 1], [2, 1, 0], [1, 0, 2]] {
      cases.append(KernelCase("transpose \(permutation)", Transpose(permutation), [x], tolerance: 0))
      cases.append(
        KernelCase(
          "transpose T \(permutation)", Transpose(permutation), [x], types: [symbolic(x.type)], symbols: ["T": 3],
          tolerance: 0))
    }
    for axis in 0..<3 {
      cases.append(KernelCase("slice \(axis)", Slice(axis: axis, start: 1, size: 2), [x], tolerance: 0))
      cases.append(KernelCase("slice \(axis) by 2", Slice(axis: axis, start: 0, size: 2, step: 2), [x], tolerance: 0))
      cases.append(KernelCase("concat \(axis)", Concat(axis: axis), [x, x, x], tolerance: 0))
    }
    let size = Dim.symbol(Symbol("T", in: 1...64))
    for dim in [Dim.fixed(19), size] {
      cases.append(KernelCase("iota \(dim)", Iota(dim), [], symbols: ["T": 5], tolerance: 0))
      cases.append(KernelCase("sizes \(dim)", Sizes([3, dim, dim + 1]), [], symbols: ["T": 5], tolerance: 0))
    }
    cases.append(
      KernelCase(
        "gather of T rows", Gather(axis: 1), [x, Tensor(.i64, [3], [1, -1, -4] as [Int64])],
        types: [TensorType(.f32, [3, .symbol(Symbol("T", in: 1...64)), 5]), TensorType(.i64, [3])],
        symbols: ["T": 4], tolerance: 0))
    let last = Slice(axis: 0, start: .symbol(Symbol("T", in: 1...64)) - 1, size: 1)
    cases.append(
      KernelCase("slice the last row", last.substituting { _ in 3 }, [x], types: [x.type], tolerance: 0))
    cases.append(KernelCase("interleave", Interleave(), [x, x], tolerance: 0))
    cases.append(KernelCase("expand", Expand([2, 3, 4, 5]), [x], tolerance: 0))
    cases.append(KernelCase("expand 1", Expand([3, 4, 6]), [try random([4, 1], seed: 54)], tolerance: 0))
    cases.append(KernelCase("pad", Pad(before: [1, 0, 2], after: [0, 3, 1], value: 7), [x], tolerance: 0))
    cases.append(
      KernelCase(
        "pad T", Pad(before: [1, 0, 2], after: [0, 3, 1]), [x], types: [symbolic(x.type)], symbols: ["T": 3],
        tolerance: 0))
    for element in [DType.f16, .i64, .u8] {
      cases.append(
        KernelCase(
          "transpose \(element)", Transpose([1, 0]), [try random(element, [7, 9], seed: 55, in: 0...100)], tolerance: 0)
      )
    }
    return cases
  }

  @Test(arguments: targets) func movementKernels(_ target: String) throws { try check(try movement(), on: target) }

  // MARK: rendering

  /// gcc takes what clang takes, without warnings.
  @Test(arguments: targets) func compilesWithGCC(_ target: String) throws {
    let cases = try extremeMatMuls() + rows() + attention() + elementwise() + movement() + epilogues()
    try check(cases.indices.filter { $0 % 6 == 0 }.map { cases[$0] }, on: target, compiler: "gcc")
  }

  @Test func nativeIsTheBestThatRuns() {
    #expect(TargetRegistry.native(features: []).name == "portable")
    #expect(TargetRegistry.native(features: ["avx2", "fma", "f16c", "bmi2"]).name == "x86-64-v3")
    #expect(TargetRegistry.native(features: Set(Target.x86v4.features)).name == "x86-64-v4")
    #expect(HostCPU.features(cpuinfo: "processor\t: 0\nflags\t\t: fpu avx2 fma\n") == ["fpu", "avx2", "fma"])
    #expect(throws: CompileError.self) { try TargetRegistry.target(named: "z80") }
  }
}
