import Base
import CodeGen
import IR
import Tensors
import Testing

@Suite struct LoweringTests {
  private let generator = CodeGenerator(target: .portable)

  private func lowered(_ model: Model) throws -> Model {
    var model = model
    var context = PassContext()
    try generator.lower(&model, &context)
    return model
  }

  private func calls(_ graph: Graph) -> [(id: NodeID, call: KernelCall)] {
    graph.topologicalOrder().compactMap { id in (graph[id].op as? KernelCall).map { (id, $0) } }
  }

  @Test func aDecoderBecomesTwoFunctionsOverTheSameStatesAndConstants() throws {
    var model = try LoweringModels.decoder(layers: 2)
    let constants = model.constants
    var context = PassContext()
    try Specialize(chunk: 8).run(&model, &context)
    #expect(model.functions.map(\.role) == ["decode", "prefill"])
    #expect(model.constants == constants)
    let (decode, prefill) = (model.functions[0], model.functions[1])
    #expect(decode.symbols.isEmpty)
    #expect(prefill.symbols.map(\.range) == [1...8, 1...8])
    #expect(decode.type(of: decode.outputs[0]) == TensorType(.f32, [1, 50]))
    #expect(decode.states.map { decode[$0.value].name } == prefill.states.map { prefill[$0.value].name })
    // For one token the rows that are wanted are all rows: the slice is gone.
    #expect(!decode.nodeIDs.contains { (decode[$0].op as? Slice)?.axis == 0 })
    try Verifier.verify(model)
  }

  @Test func aChunkIsNotLongerThanTheCache() throws {
    var model = try LoweringModels.decoder(layers: 1, context: 5)
    var context = PassContext()
    try Specialize().run(&model, &context)
    #expect(model.functions[1].symbols.map(\.maximum) == [5, 5])
  }

  @Test func otherFunctionsBecomeMain() throws {
    var model = try LoweringModels.images()
    model.functions[0].role = nil
    var context = PassContext()
    try Specialize().run(&model, &context)
    #expect(model.functions.map(\.role) == ["main"])
  }

  @Test func transpositionsCancelBetweenImageOperators() throws {
    var model = try LoweringModels.images()
    let before = model
    var context = PassContext()
    try PassManager().run(Pipeline([ChannelsLast()]), on: &model, &context)
    let graph = model.functions[0]
    let isRecipe = graph.nodeIDs.filter { id in
      graph[id].op is Transpose && !ConstantEvaluator.isRecipe(graph[id].results[0], in: graph)
    }
    // The image itself is the only thing that is turned while the network runs.
    #expect(isRecipe.count == 1)
    #expect(graph.nodeIDs.allSatisfy { (graph[$0].op as? Conv2D)?.layout ?? .last == .last })
    let image = Tensor(.f32, [1, 3, 9, 7], (0..<189).map { Float(($0 * 37) % 19) / 19 - 0.5 })
    let expected = try Evaluator(before).run([image]).outputs[0].array(of: Float.self)
    let found = try Evaluator(model).run([image]).outputs[0].array(of: Float.self)
    // The same sums in another order: some roundings of f32.
    for (a, b) in zip(found, expected) { #expect(abs(a - b) <= 1e-5 * (1 + abs(b))) }
  }

  /// Part of the channels of a convolution, scaled and added to an image that no convolution computes: the sum stays
  /// where it is, and what was tried before its last operand leaves nothing to begin anew with.
  @Test func transpositionsMoveThroughSlicesAndStopAtImagesOfOthers() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("image", TensorType(.f32, [1, 3, 9, 7]))
    let other = builder.input("other", TensorType(.f32, [1, 4, 9, 7]))
    let weight = builder.constant(LoweringModels.random("w", [8, 3, 3, 3], 3))
    let scale = builder.constant(LoweringModels.random("s", [1, 4, 1, 1], 4))
    let all = try builder.emit(Conv2D(padding: [1, 1, 1, 1]), x, weight)
    let part = try builder.emit(Slice(axis: 1, start: 2, size: 4), all)
    let rows = try builder.emit(Slice(axis: -2, start: 1, size: 4, step: 2), part)
    let op = FusedElementwise(.binary(.add, .binary(.multiply, .input(0), .input(1)), .input(2)))
    builder.output("sum", try builder.emit(op, part, scale, other))
    builder.output("rows", rows)
    var model = LoweringModels.model("parts", builder)
    let before = model
    var context = PassContext()
    try PassManager().run(Pipeline([ChannelsLast()]), on: &model, &context)
    let graph = model.functions[0]
    let slices = graph.nodeIDs.compactMap { graph[$0].op as? Slice }
    #expect(slices.map(\.axis).sorted() == [1, 3])
    var random = SplitMix64(seed: 6)
    let images = [Tensor(.f32, [1, 3, 9, 7], random.floats(189)), Tensor(.f32, [1, 4, 9, 7], random.floats(252))]
    let expected = try Evaluator(before).run(images).outputs.map { $0.array(of: Float.self) }
    let found = try Evaluator(model).run(images).outputs.map { $0.array(of: Float.self) }
    for (a, b) in zip(found.joined(), expected.joined()) { #expect(abs(a - b) <= 1e-5 * (1 + abs(b))) }
  }

  @Test func everyConstantHasOneLayoutInAllFunctions() throws {
    let model = try lowered(try LoweringModels.decoder(layers: 2))
    var layouts: [String: Set<PackedLayout?>] = [:]
    for graph in model.functions {
      for (id, _) in calls(graph) {
        for input in graph[id].inputs {
          guard ConstantEvaluator.isRecipe(input, in: graph) else { continue }
          var layout: PackedLayout?
          if case .packed(let packed) = graph.type(of: input).encoding { layout = packed }
          var root = input
          while let node = graph.definingNode(of: root) { root = graph[node].inputs[0] }
          guard let constant = graph.constant(of: root) else { continue }
          layouts[model.constants[constant].name, default: []].insert(layout)
        }
      }
    }
    #expect(layouts.count == 5)
    for (name, found) in layouts { #expect(found.count == 1, "\(name) is stored as \(found)") }
    // The tied matrix is gathered from in the layout of the product.
    #expect(layouts["model.embed.weight"]?.first.flatMap { $0 } != nil)
  }

  @Test(arguments: [BlockFormat.w8c, .w8(32), .w4(32)])
  func quantizedWeightsStayQuantized(format: BlockFormat) throws {
    let model = try lowered(try LoweringModels.blocks(2, format: format))
    let graph = model.functions[0]
    let packs = graph.nodeIDs.filter { graph[$0].op is Pack }
    #expect(packs.count == 5)
    for pack in packs {
      guard case .block(format) = graph.type(of: graph[pack].inputs[0]).encoding else {
        Issue.record("\(graph.type(of: graph[pack].inputs[0])) is packed")
        continue
      }
    }
    #expect(!graph.nodeIDs.contains { graph[$0].op is Dequantize })
  }

  @Test func quantizedActivationsAreSharedByTheirUsers() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [4, 64]))
    let codes = try builder.emit(Dequantize(), try builder.emit(Quantize(.a8(32)), x))
    for index in 0..<2 {
      let constant = builder.constant(
        Constant(name: "w\(index)", type: TensorType(.f32, [8, 64]), source: .random(seed: 3, deviation: 1 as Double)))
      let weight = try builder.emit(Dequantize(), try builder.emit(Quantize(.w4(32)), constant))
      builder.output("y\(index)", try builder.emit(MatMul(transposeB: true), codes, weight))
    }
    var model = Model(name: "shared", stage: .transform)
    model.functions = [builder.graph]
    model.constants = builder.constants
    let graph = try lowered(model).functions[0]
    let names = calls(graph).map(\.call.operation.op.name)
    #expect(names.filter { $0 == "quantize" }.count == 1)
    #expect(names.filter { $0 == "matmul" }.count == 2)
    #expect(names.count == 3)
  }

  @Test func columnsOfAWiderBufferAreReadInPlace() throws {
    let model = try lowered(try LoweringModels.decoder(layers: 1))
    for graph in model.functions {
      // Queries may have to be copied out; keys and values go from the buffer straight into the cache.
      let updates = calls(graph).filter { $0.call.operation.op is CacheUpdate }
      #expect(updates.count == 2)
      for (id, call) in updates where graph.role == "prefill" {
        #expect(call.operand(1)?.columns?.count == 8)
        #expect(graph.type(of: graph[id].inputs[1]).shape.last == 32)
      }
    }
  }

  @Test func theTextOfALoweredModelReadsBack() throws {
    for model in [
      try LoweringModels.blocks(2, format: .w4(32)), try LoweringModels.decoder(layers: 2), try LoweringModels.images(),
    ] {
      let lowered = try lowered(model)
      try Verifier.verify(lowered)
      let text = try Printer.print(lowered)
      let operators = OperatorRegistry.core.adding(LoweringRegistry.operators)
      var parsed = try Parser.parse(text, operators: operators)
      parsed.compact()
      #expect(parsed == lowered)
      #expect(try Printer.print(parsed) == text)
      // What was read back is as good as the original.
      #expect(try generator.schedule(parsed).description == generator.schedule(lowered).description)
    }
  }

  @Test func aKernelCallOnPlainOperandsEvaluates() throws {
    let call = KernelCall(
      kernel: "k", operation: Add(),
      operands: [KernelOperand(index: 0, element: .f32, columns: .init(start: 1, count: 2))])
    let wide = Tensor(.f32, [2, 4], [0, 1, 2, 3, 4, 5, 6, 7] as [Float])
    let other = Tensor(.f32, [2, 2], [10, 20, 30, 40] as [Float])
    let types = try call.inferTypes([wide.type, other.type])
    #expect(types == [TensorType(.f32, [2, 2])])
    let result = Tensor(types[0])
    try call.evaluate([wide.view, other.view], into: [result.mutableView])
    #expect(result.array(of: Float.self) == [11, 22, 35, 46])
  }

  @Test func whatHasNoKernelIsNamedWithItsPlace() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [2, 3, 4]))
    builder.origin = Origin("block/odd")
    builder.output("y", try builder.emit(SphericalInterpolation(), x, x))
    var model = Model(name: "odd", stage: .transform)
    model.functions = [builder.graph]
    do {
      _ = try lowered(model)
      Issue.record("an operator for weights was lowered")
    } catch let error as CompileError {
      #expect(error.kind == .unsupported)
      #expect(error.message.contains("spherical_interpolation") && error.message.contains("f32[2, 3, 4]"))
      #expect(error.subject?.object?.contains("block/odd") == true)
    }
  }

  @Test func numbersOf16BitsAreComputedInSingle() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f16, [2, 3, 4, 4]))
    let weight = builder.constant(
      Constant(name: "w", type: TensorType(.f16, [5, 3, 3, 3]), source: .random(seed: 1, deviation: 0.3)))
    let image = try builder.emit(Conv2D(padding: [1, 1, 1, 1]), x, weight)
    builder.output("y", try builder.emit(Softmax(axis: 1), builder.emit(ReLU(), image)))
    var model = Model(name: "narrow", stage: .transform)
    model.functions = [builder.graph]
    model.constants = builder.constants
    let before = model
    let graph = try lowered(model).functions[0]
    #expect(graph.type(of: graph.outputs[0]) == TensorType(.f16, [2, 5, 4, 4]))
    // What keeps its meaning may still be evaluated: the graph before kernels are chosen.
    var context = PassContext()
    try PassManager().run(Pipeline([Decompose(target: "portable")]), on: &model, &context)
    var generator = SplitMix64(seed: 2)
    let input = Tensor(.f16, [2, 3, 4, 4], generator.floats(96, in: -1...1).map { Float16($0) })
    let expected = try Evaluator(before).run([input]).outputs[0].array(of: Float16.self)
    let found = try Evaluator(model).run([input]).outputs[0].array(of: Float16.self)
    // The same roundings to f16 in the same places.
    #expect(found == expected)
  }

  @Test func aBatchNormThatIsLeftBecomesOneFactorAndOneOffset() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [1, 3, 2, 2]))
    var inputs = [x]
    for (name, values) in [
      ("scale", [1, -2, 0.5]), ("bias", [0, 1, -1]), ("mean", [0.5, 0, 2]), ("variance", [1, 4, 0]),
    ] as [(String, [Float])] { inputs.append(builder.constant(.inline(name, .f32, [3], values))) }
    let normed = try builder.emit(BatchNorm(epsilon: 0.25), inputs)
    builder.output("y", normed)
    var model = Model(name: "norm", stage: .transform)
    model.functions = [builder.graph]
    model.constants = builder.constants
    let before = model
    var context = PassContext()
    try PassManager().run(Pipeline([Decompose(target: "portable")]), on: &model, &context)
    let graph = model.functions[0]
    #expect(!graph.nodeIDs.contains { graph[$0].op is BatchNorm })
    let image = Tensor(.f32, [1, 3, 2, 2], (0..<12).map { Float($0) / 4 })
    let expected = try Evaluator(before).run([image]).outputs[0].array(of: Float.self)
    let found = try Evaluator(model).run([image]).outputs[0].array(of: Float.self)
    // x * s + (b - m * s) for (x - m) * s + b: a few roundings of numbers up to 4.
    for (a, b) in zip(found, expected) { #expect(abs(a - b) <= 4e-6) }
    #expect(try generator.schedule(try lowered(before)).functions[0].steps.count == 1)
  }

  @Test func aKroneckerProductBecomesProductsByItsFactors() throws {
    let tokens = Symbol("T", in: 1...9)
    var builder = GraphBuilder(name: "main", role: "main", symbols: [tokens])
    var random = SplitMix64(seed: 6)
    let x = builder.input("x", TensorType(.f32, [.symbol(tokens), 8]))
    let a = builder.constant(.inline("a", .f32, [2, 3], random.floats(6)))
    let b = builder.constant(.inline("b", .f32, [4, 5], random.floats(20)))
    builder.output("y", try builder.emit(KroneckerMatMul(), x, a, b))
    var model = Model(name: "kronecker", stage: .transform)
    model.functions = [builder.graph]
    model.constants = builder.constants
    let before = model
    var context = PassContext()
    try PassManager().run(Pipeline([Decompose(target: "portable")]), on: &model, &context)
    let graph = model.functions[0]
    #expect(!graph.nodeIDs.contains { graph[$0].op is KroneckerMatMul })
    let rows = Tensor(.f32, [7, 8], random.floats(56))
    let expected = try Evaluator(before).run([rows]).outputs[0]
    let found = try Evaluator(model).run([rows]).outputs[0]
    #expect(found.view.sizes == [7, 15])
    // Sums of six terms of numbers up to 1 in another order.
    for (a, b) in zip(found.view.doubles, expected.view.doubles) { #expect(abs(a - b) <= 4e-6) }
    _ = try generator.schedule(try lowered(before))
  }

  @Test func anOutputThatIsNoResultOfItsOwnIsCopied() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [3]))
    let y = try builder.emit(ReLU(), x)
    builder.output("same", x)
    builder.output("y", y)
    builder.output("again", y)
    builder.output("one", builder.constant(.inline("c", .f32, [1], [1] as [Float])))
    var model = Model(name: "outputs", stage: .transform)
    model.functions = [builder.graph]
    model.constants = builder.constants
    let schedule = try generator.schedule(try lowered(model))
    let places = schedule.functions[0].outputs.map { schedule.functions[0].buffers[$0.buffer].offset }
    #expect(Set(places).count == 4)
    #expect(schedule.functions[0].steps.count == 4)
  }
}
