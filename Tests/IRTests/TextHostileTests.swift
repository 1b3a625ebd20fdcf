import Base
import IR
import TestSupport
import Tensors
import Testing

/// One node of every operator that has numbers among its attributes, without types, so that whatever the numbers lead to
/// spreads to the nodes after it.
private let text = """
  model @m {
    func @f <T in 1...9> (
      %x: f32[T, 8], %image: f32[1, 4, 9, 7], %tokens: i32[T], %position: i32[1], %c: bool[T, 8], %fixed: f32[6, 32]
    ) state(%k: f32[16, 8]) -> (a, b, d, e, g, h) {
      %w = constant splat(0.5) : f32[8, 8]
      %gain = constant splat(1.0) : f32[8]
      %filter = constant random(seed = 1, deviation = 0.5) : f32[6, 2, 3, 2]
      %frequencies = constant [1.0, 0.5] : f32[2]
      %table = constant splat(1.0) : f32[12, 8]
      %g = gather(%table, %tokens) {axis = 0}
      %n = rms_norm(%g, %gain) {axis = -1, epsilon = 1e-05}
      %l = layer_norm(%n, %gain, %gain) {axis = -1, epsilon = 1e-05}
      %m = matmul(%l, %w, %gain, %x) {transposeB = true, epilogue = {bias = true, residual = before_activation}}
      %angles = rope_table(%position, %frequencies) {length = T}
      %r = rope(%m, %angles) {headDim = 4, interleaved = false}
      %k1 = cache_update(%k, %r, %position)
      %att = attention(%r, %k1, %k1, %position) {heads = 2, kvHeads = 2, scale = 0.5, causal = true, window = 3}
      %s = slice(%att) {axis = 1, start = 2, size = 4, step = 1}
      %cat = concat(%s, %s, %s) {axis = 1}
      %p = pad(%cat) {before = [0, 1], after = [0, 3], value = 0.5}
      %re = reshape(%p) {shape = [T, 2, 8]}
      %tr = transpose(%re) {permutation = [1, 0, 2]}
      %sum = reduce(%tr) {function = mean, axes = [0], keepDims = false}
      %soft = softmax(%sum) {axis = -1}
      %lsoft = log_softmax(%soft) {axis = 1}
      %clip = clip(%lsoft) {minimum = -1.0, maximum = 6.0}
      %leaky = leaky_relu(%clip) {slope = 0.1}
      %sel = select(%c, %leaky, %x)
      %ex = expand(%gain) {shape = [T, 8]}
      %chain = elementwise(%sel, %ex) {expression = "add(multiply(%0, 0.5), relu(%1))"}
      %conv = conv2d(%image, %filter) {strides = [2, 1], padding = [1, 0, 1, 1], dilations = [1, 2], groups = 2}
      %bn = batch_norm(%conv, %six, %six, %six, %six) {epsilon = 1e-05}
      %max = max_pool2d(%bn) {kernel = [2, 3], strides = [1, 2], padding = [0, 1, 1, 0], dilations = [1, 1]}
      %avg = average_pool2d(%max) {kernel = [2, 2], strides = [2, 2], padding = [1, 0, 0, 1], countIncludePad = true}
      %q = quantize(%fixed) {format = {bits = 8, group = 16, scale = f16}}
      %dq = dequantize(%q) {type = f32}
      %il = interleave(%dq, %dq)
      %cast = cast(%dq) {type = f16}
      update %k = %k1
      return %chain, %avg, %il, %cast, %soft, %ex
    }
  }
  """.replacing(
    "    %bn = ", with: "    %six = constant splat(2.0) : f32[6]\n    %bn = ")

@Suite struct TextHostileTests {
  private static let extremes = [
    "0", "-1", "1", "3", "7", "64", "65536", "2147483647", "4294967296", "1099511627776", "9223372036854775807",
    "-9223372036854775808", "T", "\"T-9\"", "\"1099511627776*T\"",
  ]

  /// The places of the numbers between the signature and the end.
  private static func numbers(_ bytes: [UInt8]) -> [Range<Int>] {
    var result: [Range<Int>] = []
    var index = 0
    while index < bytes.count {
      var end = index
      while end < bytes.count, (0x30...0x39).contains(bytes[end]) { end += 1 }
      let before = index > 0 ? bytes[index - 1] : 0
      let isPartOfWord =
        (0x41...0x5A).contains(before) || (0x61...0x7A).contains(before) || before == UInt8(ascii: "%")
        || (end < bytes.count && bytes[end] == UInt8(ascii: "d"))
      if end > index, !isPartOfWord { result.append(index..<end) }
      index = max(end, index + 1)
    }
    return result
  }

  private static func load(_ bytes: [UInt8]) throws {
    let model = try Parser.parse(String(decoding: bytes, as: UTF8.self))
    try Verifier.verify(model)
    let printed = try Printer.print(model)
    #expect(try Printer.print(try Parser.parse(printed)) == printed)
  }

  @Test func theUndamagedTextIsValid() throws { try Self.load(Array(text.utf8)) }

  @Test func extremeNumbersAreErrorsOrHarmless() throws {
    let bytes = Array(text.utf8)
    let places = Self.numbers(bytes)
    #expect(places.count > 100)
    var refused = 0
    for place in places {
      for extreme in Self.extremes {
        var damaged = bytes
        damaged.replaceSubrange(place, with: Array(extreme.utf8))
        do {
          try Self.load(damaged)
        } catch let error as CompileError {
          refused += 1
          #expect(error.kind == .input || error.kind == .unsupported, "\(extreme): \(error)")
          #expect(error.subject?.line != nil, "\(error)")
        }
      }
    }
    #expect(refused > places.count)
  }

  @Test func severalExtremeNumbersAreErrorsOrHarmless() throws {
    let bytes = Array(text.utf8)
    let places = Self.numbers(bytes)
    var random = SplitMix64(seed: 11)
    for _ in 0..<1500 {
      var damaged = bytes
      let chosen = (0..<3).map { _ in places[random.int(below: places.count)] }
      // From the back, so that the places before stay where they are; equal ones are changed once.
      for place in Set(chosen).sorted(by: { $0.lowerBound > $1.lowerBound }) {
        damaged.replaceSubrange(place, with: Array(Self.extremes[random.int(below: Self.extremes.count)].utf8))
      }
      do { try Self.load(damaged) } catch is CompileError {}
    }
  }
}
