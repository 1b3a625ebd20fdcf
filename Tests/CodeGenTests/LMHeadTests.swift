import CodeGen
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Scoring tokens without their logits.
@Suite struct LMHeadTests {
  private func functions(_ model: Model, chunk: Int = 16) throws -> Model {
    var model = model
    var context = PassContext()
    try Specialize(chunk: chunk).run(&model, &context)
    try FuseLMHead(target: "portable").run(&model, &context)
    model.compact()
    try Verifier.verify(model)
    return model
  }

  private func schedule(vocabulary: Int) throws -> Schedule {
    var model = try LoweringModels.decoder(layers: 1, context: 128, vocabulary: vocabulary)
    var context = PassContext()
    let generator = CodeGenerator(target: .portable)
    try generator.lower(&model, &context)
    return try generator.schedule(model)
  }

  /// The losses are those of the logits: both in f32, with sums of 16 products and 70 exponentials in another order: 1e-5.
  @Test(arguments: [false, true]) func lossesAreThoseOfTheLogits(isCapped: Bool) throws {
    let cap = TensorType(.f32, [])
    let model = try functions(
      try LoweringModels.decoder(
        layers: 1, vocabulary: 70,
        head: { logits, builder in
          guard isCapped else { return logits }
          let third = builder.constant(Constant(name: "third", type: cap, source: .splat(1.0 / 3)))
          let scaled = try builder.emit(Multiply(), logits, third)
          let three = builder.constant(Constant(name: "three", type: cap, source: .splat(3.0)))
          return try builder.emit(Multiply(), builder.emit(Tanh(), scaled), three)
        }))
    #expect(model.functions.map(\.role) == ["decode", "prefill", "score"])
    let score = model.functions[2]
    #expect(score.inputs.map { score[$0].name } == ["tokens", "position", "targets"])
    #expect(score.outputNames == ["losses"])
    let (ids, targets): ([Int32], [Int32]) = ([3, 69, 14, 8, 0], [14, 8, 69])
    let inputs = [Tensor(.i32, [5], ids), Tensor(.i32, [1], [0] as [Int32])]
    let logits = try Evaluator(model, function: "prefill").run(inputs, symbols: ["L": 3]).outputs[0]
    let losses = try Evaluator(model, function: "score").run(inputs + [Tensor(.i32, [3], targets)]).outputs[0]
    let numbers = logits.array(of: Float.self).map { Double($0) }
    for (row, loss) in losses.array(of: Float.self).enumerated() {
      let own = numbers[row * 70..<(row + 1) * 70]
      let sum = own.reduce(0) { $0 + exp($1) }
      let expected = log(sum) - own[own.startIndex + Int(targets[row])]
      #expect(abs(Double(loss) - expected) <= 1e-5 * max(1, expected))
    }
  }

  /// What scoring and reading a prompt take does not grow with tokens times vocabulary.
  @Test func noBufferHoldsTheLogitsOfAllTokens() throws {
    let (small, large) = (try schedule(vocabulary: 1 << 13), try schedule(vocabulary: 1 << 17))
    for schedule in [small, large] {
      #expect(schedule.functions.map(\.role) == ["decode", "prefill", "score"])
      let score = schedule.functions[2]
      #expect(score.symbols.map(\.maximum) == [128, 128])
      #expect(!score.buffers.contains { $0.type.shape.dims.contains { $0.maximum >= 1 << 13 } })
      // Largest, sum and own logit of 128 tokens in 64 parts.
      #expect(score.buffers.map(\.byteCount).max() == 3 * 128 * 64 * 4)
      let prefill = schedule.functions[1]
      #expect(prefill.buffers.filter { $0.role == .output }.map(\.byteCount) == [4 << 20])
    }
    #expect(small.functions[2].temporaryBytes == large.functions[2].temporaryBytes)
    #expect(large.functions[1].symbols.map(\.maximum) == [128, 8])
    // The output matrix has one layout for all three functions: it is stored once.
    #expect(large.weights.filter { $0.byteCount >= 1 << 22 }.count == 1)
  }

  /// A head that is followed by what mixes logits, or that is no product, stays as it is.
  @Test func otherHeadsAreLeft() throws {
    let mixed = try functions(
      try LoweringModels.decoder(layers: 1, head: { logits, builder in try builder.emit(LogSoftmax(), logits) }))
    #expect(mixed.functions.map(\.role) == ["decode", "prefill"])
    let images = try functions(try LoweringModels.images())
    #expect(images.functions.map(\.role) == ["main"])
  }
}
