extension Vocabulary {
  /// A vector verb as a Swift function.
  private struct SwiftVerb {
    var name: String
    /// `a: Floats, b: Floats`; the place in memory is a pointer and an index.
    var parameters: String
    var result: String
    var body: String

    init(_ name: String, _ parameters: String, _ result: String, _ body: String) {
      self.name = name
      self.parameters = parameters
      self.result = result
      self.body = body
    }

    var function: String { "mcc_" + name.map { $0 == "." ? "_" : String($0) }.joined() }

    /// `mcc_add_f32($0, $1)`: the place is one operand, printed as pointer and index.
    var template: String {
      var count = parameters.isEmpty ? 0 : parameters.split(separator: ",").count
      if parameters.hasPrefix("p:") { count -= 1 }
      return "\(function)(\((0..<count).map { "$\($0)" }.joined(separator: ", ")))"
    }

    var text: String {
      let list = parameters.split(separator: ", ").map { "_ \($0)" }.joined(separator: ", ")
      let arrow = result.isEmpty ? "" : " -> \(result)"
      return "@inline(__always) private func \(function)(\(list))\(arrow) {\n  \(body)\n}"
    }
  }

  /// The verbs that Swift says with SIMD types of a number of lanes, once for all instruction sets. What is missing here
  /// Swift cannot say well (masked loads, conversions, rounding, sums of lanes, products of bytes); the printer takes it
  /// from the target's C vocabulary, through a header.
  ///
  /// - Parameters:
  ///   - target: the number of lanes, and how 8-bit weights must lie.
  ///   - fused: whether a * b + c is one instruction; otherwise it is multiplied and added apart, as a fused operation
  ///     would be a call of libm.
  /// - Returns: the vocabulary, with templates and functions in Swift.
  static func swift(for target: Target, fused: Bool) -> Vocabulary {
    let verbs = memory(target.lanes) + arithmetic(fused: fused) + comparisons + integers
    return Vocabulary(
      f32: "Floats", i32: "Ints", mask: "Mask",
      preamble: [
        "private typealias Floats = SIMD\(target.lanes)<Float>", "private typealias Ints = SIMD\(target.lanes)<Int32>",
        "private typealias Mask = SIMDMask<Ints>",
      ],
      verbs: Dictionary(uniqueKeysWithValues: verbs.map { ($0.name, $0.template) }),
      functions: Dictionary(uniqueKeysWithValues: verbs.map { ($0.function, $0.text) }),
      eightBitWeights: target.vocabulary.eightBitWeights, stepsPerFlush: target.vocabulary.stepsPerFlush)
  }

  private static func memory(_ lanes: Int) -> [SwiftVerb] {
    func load(_ type: String) -> String { "UnsafeRawPointer(p + i).loadUnaligned(as: \(type).self)" }
    func store(_ type: String) -> String { "UnsafeMutableRawPointer(p + i).storeBytes(of: v, as: \(type).self)" }
    let numbers = (0..<lanes).map(String.init).joined(separator: ", ")
    return [
      SwiftVerb("load.f32", "p: UnsafePointer<Float>, i: Int", "Floats", load("Floats")),
      SwiftVerb("load.i32", "p: UnsafePointer<Int32>, i: Int", "Ints", load("Ints")),
      SwiftVerb("store.f32", "p: UnsafeMutablePointer<Float>, i: Int, v: Floats", "", store("Floats")),
      SwiftVerb("store.i32", "p: UnsafeMutablePointer<Int32>, i: Int, v: Ints", "", store("Ints")),
      SwiftVerb("element.bf16", "h: UInt16", "Float", "Float(bitPattern: UInt32(truncatingIfNeeded: h) &<< 16)"),
      SwiftVerb("broadcast.f32", "x: Float", "Floats", "Floats(repeating: x)"),
      SwiftVerb("broadcast.i32", "x: Int32", "Ints", "Ints(repeating: x)"),
      SwiftVerb("zero.f32", "", "Floats", "Floats()"),
      SwiftVerb("zero.i32", "", "Ints", "Ints()"),
      SwiftVerb("lanes", "", "Ints", "Ints(\(numbers))"),
    ]
  }

  private static func arithmetic(fused: Bool) -> [SwiftVerb] {
    [
      SwiftVerb("add.f32", "a: Floats, b: Floats", "Floats", "a + b"),
      SwiftVerb("sub.f32", "a: Floats, b: Floats", "Floats", "a - b"),
      SwiftVerb("mul.f32", "a: Floats, b: Floats", "Floats", "a * b"),
      SwiftVerb("div.f32", "a: Floats, b: Floats", "Floats", "a / b"),
      SwiftVerb("min.f32", "a: Floats, b: Floats", "Floats", "b.replacing(with: a, where: a .< b)"),
      SwiftVerb("max.f32", "a: Floats, b: Floats", "Floats", "b.replacing(with: a, where: a .> b)"),
      SwiftVerb(
        "fma.f32", "a: Floats, b: Floats, c: Floats", "Floats", fused ? "c.addingProduct(a, b)" : "a * b + c"),
      SwiftVerb(
        "fmaElement.f32", "a: Float, b: Float, c: Float", "Float", fused ? "c.addingProduct(a, b)" : "a * b + c"),
      SwiftVerb(
        "neg.f32", "a: Floats", "Floats", "unsafeBitCast(unsafeBitCast(a, to: Ints.self) ^ Int32.min, to: Floats.self)"),
      SwiftVerb(
        "abs.f32", "a: Floats", "Floats", "unsafeBitCast(unsafeBitCast(a, to: Ints.self) & Int32.max, to: Floats.self)"),
      SwiftVerb("reinterpret.f32", "a: Ints", "Floats", "unsafeBitCast(a, to: Floats.self)"),
      SwiftVerb("reinterpret.i32", "a: Floats", "Ints", "unsafeBitCast(a, to: Ints.self)"),
    ]
  }

  private static let comparisons: [SwiftVerb] = [
    SwiftVerb("lt.f32", "a: Floats, b: Floats", "Mask", "a .< b"),
    SwiftVerb("le.f32", "a: Floats, b: Floats", "Mask", "a .<= b"),
    SwiftVerb("gt.f32", "a: Floats, b: Floats", "Mask", "a .> b"),
    SwiftVerb("ge.f32", "a: Floats, b: Floats", "Mask", "a .>= b"),
    SwiftVerb("eq.f32", "a: Floats, b: Floats", "Mask", "a .== b"),
    SwiftVerb("ne.f32", "a: Floats, b: Floats", "Mask", "a .!= b"),
    SwiftVerb("lt.i32", "a: Ints, b: Ints", "Mask", "a .< b"),
    SwiftVerb("gt.i32", "a: Ints, b: Ints", "Mask", "a .> b"),
    SwiftVerb("eq.i32", "a: Ints, b: Ints", "Mask", "a .== b"),
    SwiftVerb("select.f32", "m: Mask, a: Floats, b: Floats", "Floats", "b.replacing(with: a, where: m)"),
    SwiftVerb("select.i32", "m: Mask, a: Ints, b: Ints", "Ints", "b.replacing(with: a, where: m)"),
    SwiftVerb("and.mask", "a: Mask, b: Mask", "Mask", "a .& b"),
    SwiftVerb("or.mask", "a: Mask, b: Mask", "Mask", "a .| b"),
    SwiftVerb("not.mask", "a: Mask", "Mask", ".!a"),
  ]

  private static let integers: [SwiftVerb] = [
    SwiftVerb("add.i32", "a: Ints, b: Ints", "Ints", "a &+ b"),
    SwiftVerb("sub.i32", "a: Ints, b: Ints", "Ints", "a &- b"),
    SwiftVerb("mul.i32", "a: Ints, b: Ints", "Ints", "a &* b"),
    SwiftVerb("min.i32", "a: Ints, b: Ints", "Ints", "b.replacing(with: a, where: a .< b)"),
    SwiftVerb("max.i32", "a: Ints, b: Ints", "Ints", "b.replacing(with: a, where: a .> b)"),
    SwiftVerb("and.i32", "a: Ints, b: Ints", "Ints", "a & b"),
    SwiftVerb("or.i32", "a: Ints, b: Ints", "Ints", "a | b"),
    SwiftVerb("xor.i32", "a: Ints, b: Ints", "Ints", "a ^ b"),
    SwiftVerb("shl.i32", "a: Ints, n: Int32", "Ints", "a &<< Ints(repeating: n)"),
    SwiftVerb(
      "shr.i32", "a: Ints, n: Int32", "Ints",
      "(a &>> Ints(repeating: n)) & Ints(repeating: Int32(truncatingIfNeeded: UInt32.max &>> UInt32(n)))"),
    SwiftVerb("sra.i32", "a: Ints, n: Int32", "Ints", "a &>> Ints(repeating: n)"),
  ]
}
