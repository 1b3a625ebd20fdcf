import Base
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Merging by regression on tasks whose answer is known.
@Suite struct LinearLayerMergeTests {
  private static let width = 16, hidden = 32, outputs = 8

  /// Numbers that are about normally distributed.
  private static func normal(_ generator: inout SplitMix64, _ count: Int, _ scale: Double = 1) -> [Float] {
    (0..<count).map { _ in Float(scale * (0..<12).reduce(-6.0) { sum, _ in sum + generator.uniform() }) }
  }

  /// `relu(relu(x W1^T + b) W2^T) W3`, with the last factor stored by inputs.
  private static func network(_ weights: [[Float]]) throws -> (Model, [Tensor]) {
    let shapes = [[hidden, width], [hidden], [hidden, hidden], [hidden, outputs]]
    let rows = Symbol("T", in: 1...512)
    var builder = GraphBuilder(name: "main", role: "main", symbols: [rows])
    let folder = try TemporaryFolder()
    let path = try folder.write("w", weights.joined().flatMap { value in withUnsafeBytes(of: value) { Array($0) } })
    var model = Model(name: "network")
    let archive = model.addArchive(try MappedFile(path: path))
    var offset = 0
    let constants = zip(["w1", "b", "w2", "w3"], shapes).map { name, sizes in
      let bytes = 4 * sizes.reduce(1, *)
      defer { offset += bytes }
      return builder.constant(
        Constant(name: name, type: TensorType(.f32, sizes), source: .archive(archive, offset..<offset + bytes)))
    }
    let x = builder.input("x", TensorType(.f32, [.symbol(rows), .fixed(width)]))
    let sums = try builder.emit(Add(), builder.emit(MatMul(transposeB: true), x, constants[0]), constants[1])
    let second = try builder.emit(MatMul(transposeB: true), builder.emit(ReLU(), sums), constants[2])
    builder.output("y", try builder.emit(MatMul(), builder.emit(ReLU(), second), constants[3]))
    model.constants = builder.constants
    model.functions = [builder.graph]
    model.compact()
    return (model, zip(shapes, weights).map { Tensor(.f32, $0, $1) })
  }

  private static func run(_ weights: [Tensor], _ x: Tensor) throws -> [Float] {
    let (model, _) = try network(weights.map { $0.array(of: Float.self) })
    return try Evaluator(model).run([x]).outputs[0].array(of: Float.self)
  }

  /// The mean square of the differences over that of the numbers.
  private static func error(_ found: [Float], _ wanted: [Float]) -> Double {
    let square = zip(found, wanted).reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
    return square / wanted.reduce(0.0) { $0 + Double($1 * $1) }
  }

  /// Inputs that lie near a subspace of half the width, another one for each of two tasks.
  private static func inputs(_ task: Int, _ generator: inout SplitMix64, count: Int) -> Tensor {
    var basis = SplitMix64(seed: 100 + UInt64(task))
    let axes = normal(&basis, width / 2 * width)
    let shares = normal(&generator, count * width / 2), noise = normal(&generator, count * width, 0.1)
    var x = noise
    for row in 0..<count {
      for axis in 0..<width / 2 {
        for column in 0..<width {
          x[row * width + column] += shares[row * (width / 2) + axis] * axes[axis * width + column] * 0.25
        }
      }
    }
    return Tensor(.f32, [count, width], x)
  }

  /// What a layer gives for some rows: `relu(x W^T + bias)`.
  private static func layer(_ x: [Float], _ weight: [Float], _ bias: [Float], inputs: Int) -> [Float] {
    var result: [Float] = []
    for row in 0..<x.count / inputs {
      for unit in 0..<hidden {
        var sum = bias[unit]
        for k in 0..<inputs { sum += x[row * inputs + k] * weight[unit * inputs + k] }
        result.append(max(sum, 0))
      }
    }
    return result
  }

  /// A weight after steps of learning, which are combinations of inputs.
  private static func moved(
    _ weight: [Float], along rows: [Float], inputs: Int, _ generator: inout SplitMix64
  ) -> [Float] {
    let count = rows.count / inputs
    let size = (rows.reduce(0) { $0 + $1 * $1 } / Float(rows.count)).squareRoot()
    var moved = weight
    for unit in 0..<weight.count / inputs {
      for step in normal(&generator, count, 0.02).enumerated() {
        for k in 0..<inputs { moved[unit * inputs + k] += step.element / size * rows[step.offset * inputs + k] }
      }
    }
    return moved
  }

  /// Two networks that were moved from one start, each layer along its inputs for a task, of which the other network never
  /// saw one. The mean halves what each has learnt; regression keeps both. Figures are squared errors of the merged
  /// network against each network on new inputs of its task, relative, the mean of both.
  @Test func regressionBeatsTheMeanOnTwoTasks() throws {
    let (d, h, o) = (Self.width, Self.hidden, Self.outputs)
    var generator = SplitMix64(seed: 1)
    let start = [
      Self.normal(&generator, h * d, 0.35), Self.normal(&generator, h, 0.1), Self.normal(&generator, h * h, 0.25),
      Self.normal(&generator, o * h, 0.25),
    ]
    var networks: [(Model, [Tensor])] = []
    for task in 0..<2 {
      let x = Self.inputs(task, &generator, count: 64).array(of: Float.self)
      let w1 = Self.moved(start[0], along: x, inputs: d, &generator)
      let first = Self.layer(x, w1, start[1], inputs: d)
      let w2 = Self.moved(start[2], along: first, inputs: h, &generator)
      let second = Self.layer(first, w2, [Float](repeating: 0, count: h), inputs: h)
      let w3 = Self.moved(start[3], along: second, inputs: h, &generator)
      let turned = (0..<h * o).map { w3[$0 % o * h + $0 / o] }
      networks.append(try Self.network([w1, start[1], w2, turned]))
    }
    let samples = (0..<2).map { task in
      (0..<4).map { _ in FunctionInputs(inputs: [Self.inputs(task, &generator, count: 100)]) }
    }
    let tests = (0..<2).map { Self.inputs($0, &generator, count: 300) }
    let wanted = try (0..<2).map { try Self.run(networks[$0].1, tests[$0]) }

    func error(of weights: [Tensor]) throws -> Double {
      try (0..<2).map { Self.error(try Self.run(weights, tests[$0]), wanted[$0]) }.reduce(0, +) / 2
    }
    let means = (0..<4).map { index in
      let tensors = networks.map { $0.1[index] }
      let mean = Tensor(tensors[0].type)
      TensorMerge.weightedSum(tensors.map(\.view), [0.5, 0.5], into: mean.mutableView)
      return mean
    }
    var errors = [try error(of: means)]
    for usesMergedInputs in [false, true] {
      var merge = LinearLayerMerge()
      merge.usesMergedInputs = usesMergedInputs
      var weights = means
      let layers = try merge.run(networks.map(\.0), samples) { name, tensor in
        weights[["w1": 0, "w2": 2, "w3": 3][name] ?? 1] = tensor
      }
      #expect(layers.map(\.name) == ["w1", "w2", "w3"])
      #expect(layers.allSatisfy { $0.rows == [400, 400] })
      errors.append(try error(of: weights))
    }
    print("squared errors, relative: mean \(errors[0]), regmean \(errors[1]), regmean++ \(errors[2])")
    #expect(errors[1] < 0.5 * errors[0])
    #expect(errors[2] < errors[1])
  }

  /// Layers that are not chosen stay those of the first model, and statistics of RegMean++ are then of these.
  @Test func choiceOfLayers() throws {
    let (d, h, o) = (Self.width, Self.hidden, Self.outputs)
    var generator = SplitMix64(seed: 3)
    let networks = try (0..<2).map { _ in
      try Self.network([
        Self.normal(&generator, h * d, 0.25), Self.normal(&generator, h, 0.1), Self.normal(&generator, h * h, 0.2),
        Self.normal(&generator, h * o, 0.2),
      ])
    }
    let samples = (0..<2).map { [FunctionInputs(inputs: [Self.inputs($0, &generator, count: 200)])] }
    var merge = LinearLayerMerge()
    merge.usesMergedInputs = true
    merge.selects = { $0.name == "w2" }
    var found: [Float] = []
    let layers = try merge.run(networks.map(\.0), samples) { _, tensor in found = tensor.array(of: Float.self) }
    #expect(layers.map(\.name) == ["w2"])
    // The same by hand: all inputs of the second layer come from the first layer of the first network.
    var statistics = RegressionMean(order: h, count: 2)
    for task in 0..<2 {
      let rows = Self.layer(
        samples[task][0].inputs[0].array(of: Float.self), networks[0].1[0].array(of: Float.self),
        networks[0].1[1].array(of: Float.self), inputs: d)
      statistics.add(Tensor(.f32, [200, h], rows).view, of: task)
    }
    try statistics.factor(scale: 1)
    let parts = networks.map { MatrixRows.load($0.1[2].view, 0..<h, areColumns: false) }
    let expected = statistics.merged(parts, count: h).map { Float($0) }
    // Sums of f32 in another order.
    #expect(maxRelativeError(found, expected) <= 1e-4)
  }

  @Test func differentGraphsAreRefused() throws {
    let (first, _) = try Self.network(
      [Self.hidden * Self.width, Self.hidden, Self.hidden * Self.hidden, Self.hidden * Self.outputs].map {
        [Float](repeating: 1, count: $0)
      })
    var second = first
    second.functions[0].setOperator(
      Sigmoid(),
      of: try #require(
        second.functions[0].nodeIDs.first {
          second.functions[0][$0].op is ReLU
        }))
    let x = FunctionInputs(inputs: [Tensor(TensorType(.f32, [1, Self.width]))])
    let error = #expect(throws: CompileError.self) {
      try LinearLayerMerge().run([first, second], [[x], [x]]) { _, _ in }
    }
    #expect(error?.message == "models 'network' and 'network' have different graphs")
  }
}
