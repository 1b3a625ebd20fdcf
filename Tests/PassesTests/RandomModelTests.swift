import Base
import IR
import Passes
import Tensors
import TestSupport
import Testing

/// Folds on made-up networks: whatever they find, the numbers stay.
@Suite struct RandomModelTests {
  static let pipeline =
    "canonicalize,fold-constants,eliminate-common-subexpressions,fold-batch-norm,fold-repconv,expand-batch-norm,fuse,"
    + "fold-affine,collapse-linear,fuse,remove-dead-units{granularity=1},fold-norm,keep-kronecker,merge-matmuls,"
    + "canonicalize,fold-constants,fuse-elementwise,eliminate-common-subexpressions,eliminate-dead-code"

  /// Each layer has sums of at most a few hundred terms, and there are at most sixteen; folding rounds every weight twice
  /// more. In f32 that is below 1e-5 of the largest number for a layer; norms may divide by small deviations, which scales errors up.
  static let tolerance = 1e-4

  @Test(arguments: 0..<6) func imagesKeepTheirNumbers(group: Int) throws {
    try check((0..<12).map { UInt64(100 * group + $0) }) { try RandomNetwork.image(seed: $0) }
  }

  @Test(arguments: 0..<6) func rowsKeepTheirNumbers(group: Int) throws {
    try check((0..<12).map { UInt64(100 * group + $0) }) { try RandomNetwork.rows(seed: $0) }
  }

  private func check(_ seeds: [UInt64], _ make: (UInt64) throws -> Model) throws {
    var folds: Set<String> = []
    for seed in seeds {
      let original = try make(seed)
      try Verifier.verify(original)
      var model = original
      for pass in Self.pipeline.split(separator: ",") {
        folds.formUnion(try PlantedStructureTests.run(String(pass), on: &model).keys)
        let difference = try PlantedStructureTests.difference(model, original)
        #expect(difference <= Self.tolerance, "seed \(seed), after \(pass): \(difference)")
        if difference > Self.tolerance { return }
      }
    }
    // A generator that nothing is folded in tests nothing.
    #expect(folds.contains { $0.hasPrefix("fold-") } && folds.count > 8, "\(folds)")
  }

  /// The passes take time in proportion to the size of the network.
  @Test func timeGrowsWithTheNetwork() throws {
    func seconds(_ blocks: Int) throws -> (nodes: Int, seconds: Double) {
      let model = try RandomNetwork.tower(blocks: blocks)
      var copy = model
      let watch = Stopwatch()
      _ = try PlantedStructureTests.run(Self.pipeline, on: &copy)
      return (model.functions[0].nodeCount, watch.seconds)
    }
    let small = try seconds(60)
    let large = try seconds(240)
    print("passes: \(small.nodes) nodes in \(small.seconds) s, \(large.nodes) nodes in \(large.seconds) s")
    // Four times the nodes; sixteen times the time would be a search of all pairs. Others may run on the machine meanwhile.
    #expect(large.seconds <= 12 * small.seconds + 1)
  }
}

/// Networks made up from a seed.
private struct RandomNetwork {
  var builder: GraphBuilder
  var random: SplitMix64
  /// Values that further operators may read.
  var pool: [ValueID] = []
  var weights: [ValueID] = []

  init(seed: UInt64) {
    builder = GraphBuilder(name: "main", role: "main")
    random = SplitMix64(seed: seed &* 7919 &+ 13)
  }

  mutating func pick(_ count: Int) -> Int { min(count - 1, Int(random.uniform() * Double(count))) }

  mutating func numbers(_ shape: [Int], deviation: Double = 0.5) -> ValueID {
    builder.constant(
      Constant(
        name: "c", type: TensorType(.f32, shape),
        source: .random(seed: UInt64(random.uniform() * 0x1p52), deviation: deviation)))
  }

  mutating func positive(_ count: Int) -> ValueID {
    let values = (0..<count).map { _ in Float(0.25 + random.uniform()) }
    return builder.constant(.inline("p", .f32, [count], values))
  }

  /// A weight; one of before, if there is one of that shape, now and then.
  mutating func weight(_ shape: [Int]) -> ValueID {
    if pick(4) == 0, let old = weights.first(where: { builder.type(of: $0) == TensorType(.f32, shape) }) { return old }
    let fanIn = shape.dropFirst().reduce(1, *)
    let new = numbers(shape, deviation: 1 / Double(fanIn).squareRoot())
    weights.append(new)
    return new
  }

  func sizes(_ value: ValueID) -> [Int] { builder.type(of: value).shape.fixedSizes ?? [] }

  mutating func finish(_ name: String) throws -> Model {
    let graph = builder.graph
    var outputs = pool.filter { graph[$0].uses.isEmpty }
    // Now and then something in the middle is an output as well.
    outputs += pool.filter { _ in pick(9) == 0 }
    var seen: Set<ValueID> = []
    for (index, value) in outputs.filter({ seen.insert($0).inserted }).enumerated() {
      builder.output("y\(index)", value)
    }
    var model = Model(name: name)
    model.functions = [builder.graph]
    model.constants = builder.constants
    model.compact()
    return model
  }

  /// Convolutions, transposed ones, normalizations, factors, terms, means, sums and activations.
  static func image(seed: UInt64) throws -> Model {
    var network = RandomNetwork(seed: seed)
    network.pool = [network.builder.input("x", TensorType(.f32, [2, 4, 7, 6]))]
    for _ in 0..<16 {
      let x = network.pool[max(0, network.pool.count - 1 - network.pick(4))]
      let shape = network.sizes(x)
      let y = try network.imageOperator(network.pick(11), x, shape)
      network.pool.append(y)
    }
    return try network.finish("image")
  }

  private mutating func imageOperator(_ kind: Int, _ x: ValueID, _ shape: [Int]) throws -> ValueID {
    let channels = shape[1]
    switch kind {
    case 0, 1, 2:
      let groups = [1, 2, channels][pick(3)]
      let kernel = [[1, 1], [3, 3], [1, 3], [5, 5]][pick(4)]
      let outputs = pick(2) == 0 ? channels : 4
      guard channels % groups == 0, outputs % groups == 0 else { return try builder.emit(ReLU(), x) }
      let same = pick(3) > 0 || shape[2] < 6 || shape[3] < 6
      let padding = same ? [kernel[0] / 2, kernel[1] / 2, kernel[0] / 2, kernel[1] / 2] : [0, 0, 0, 0]
      var conv = Conv2D(padding: padding, groups: groups)
      var inputs = [x, weight([outputs, channels / groups] + kernel)]
      if pick(2) == 0 {
        conv.epilogue.bias = true
        inputs.append(numbers([outputs]))
      }
      return try builder.emit(conv, inputs)
    case 3:
      let groups = [1, 2][pick(2)]
      guard shape[2] < 10, channels % groups == 0 else { return try builder.emit(Tanh(), x) }
      let kernel = [1, 3][pick(2)]
      let op = ConvTranspose2D(padding: kernel == 3 ? [1, 1, 1, 1] : [0, 0, 0, 0], groups: groups)
      return try builder.emit(op, x, weight([channels, 4 / groups, kernel, kernel]))
    case 4, 5:
      return try builder.emit(
        BatchNorm(epsilon: 1e-3), x, numbers([channels]), numbers([channels]), numbers([channels]), positive(channels))
    case 6: return try builder.emit(Multiply(), x, numbers([channels, 1, 1], deviation: 1))
    case 7: return try builder.emit(Add(), x, numbers([1, channels, 1, 1]))
    case 8:
      let pool = AveragePool2D(kernel: [3, 3], padding: [1, 1, 1, 1], countIncludePad: pick(2) == 0)
      return try builder.emit(pool, x)
    case 9:
      let others = pool.filter { builder.type(of: $0) == builder.type(of: x) }
      return try builder.emit(Add(), others[pick(others.count)], x)
    default: return try builder.emit(ReLU(), x)
    }
  }

  /// Products, norms, factors, terms, centring, sums and activations.
  static func rows(seed: UInt64) throws -> Model {
    var network = RandomNetwork(seed: seed)
    network.pool = [network.builder.input("x", TensorType(.f32, [2, 5, 6]))]
    for _ in 0..<16 {
      let x = network.pool[max(0, network.pool.count - 1 - network.pick(4))]
      network.pool.append(try network.rowOperator(network.pick(11), x))
    }
    return try network.finish("rows")
  }

  private mutating func rowOperator(_ kind: Int, _ x: ValueID) throws -> ValueID {
    let channels = sizes(x)[2]
    switch kind {
    case 0, 1, 2, 3:
      let outputs = [6, 6, 3, 10][pick(4)]
      let transposed = pick(2) == 0
      var op = MatMul(transposeB: transposed)
      var inputs = [x, weight(transposed ? [outputs, channels] : [channels, outputs])]
      if pick(2) == 0 {
        op.epilogue.bias = true
        inputs.append(numbers([outputs]))
      }
      return try builder.emit(op, inputs)
    case 4: return try builder.emit(LayerNorm(epsilon: 0.01), x, numbers([channels]), numbers([channels]))
    case 5:
      return pick(2) == 0
        ? try builder.emit(RMSNorm(epsilon: 0.01), x, numbers([channels]))
        : try builder.emit(LayerNorm(epsilon: 0.01), x, numbers([channels]))
    case 6: return try builder.emit(Multiply(), x, numbers([channels], deviation: 1))
    case 7: return try builder.emit(Add(), x, numbers(pick(2) == 0 ? [channels] : [5, channels]))
    case 8:
      let mean = try builder.emit(Reduce(.mean, axes: [-1], keepDims: true), x)
      return try builder.emit(Subtract(), x, mean)
    case 9:
      let others = pool.filter { builder.type(of: $0) == builder.type(of: x) }
      return try builder.emit(Add(), others[pick(others.count)], x)
    default: return try builder.emit(GELU(), x)
    }
  }

  /// Blocks of everything, one on top of the other: about 20 nodes each.
  static func tower(blocks: Int) throws -> Model {
    var network = RandomNetwork(seed: 1)
    var x = network.builder.input("x", TensorType(.f32, [1, 4, 6, 6]))
    for _ in 0..<blocks {
      var branches: [ValueID] = [x]
      for kernel in [1, 3, 5] {
        let conv = Conv2D(padding: [Int](repeating: kernel / 2, count: 4), groups: 1)
        let sums = try network.builder.emit(conv, x, network.numbers([4, 4, kernel, kernel]))
        branches.append(
          try network.builder.emit(
            BatchNorm(epsilon: 1e-3), sums, network.numbers([4]), network.numbers([4]), network.numbers([4]),
            network.positive(4)))
      }
      var sum = branches[0]
      for branch in branches.dropFirst() { sum = try network.builder.emit(Add(), sum, branch) }
      let scaled = try network.builder.emit(Multiply(), sum, network.numbers([4, 1, 1]))
      let active = try network.builder.emit(ReLU(), scaled)
      let rows = try network.builder.emit(Transpose([0, 2, 3, 1]), active)
      let norm = try network.builder.emit(LayerNorm(epsilon: 0.01), rows, network.numbers([4]), network.numbers([4]))
      let up = try network.builder.emit(MatMul(transposeB: true), norm, network.numbers([8, 4]))
      let hidden = try network.builder.emit(GELU(), up)
      let down = try network.builder.emit(MatMul(transposeB: true), hidden, network.numbers([4, 8]))
      let layerScale = try network.builder.emit(Multiply(), down, network.numbers([4]))
      let image = try network.builder.emit(Transpose([0, 3, 1, 2]), layerScale)
      x = try network.builder.emit(Add(), x, image)
    }
    network.pool = [x]
    return try network.finish("tower")
  }
}
