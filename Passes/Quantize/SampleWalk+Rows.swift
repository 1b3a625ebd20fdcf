import Base
import IR
import Tensors

extension SampleWalk {
  /// The numbers of a live value on all samples, cut into rows.
  func rows(of value: ValueID, columns: Int) throws -> [SampleRows] {
    try (0..<count).map { sample in
      let tensor = try tensor(value, of: sample).floats()
      guard let numbers = tensor.view.elements(as: Float.self).baseAddress else {
        throw CompileError(.internal, "a value without numbers")
      }
      return SampleRows(numbers, rows: tensor.view.count / max(1, columns), owner: tensor)
    }
  }

  /// What the channels of a live value are like on all samples.
  func channels(of value: ValueID) throws -> ChannelStatistics {
    var statistics = ChannelStatistics()
    for sample in 0..<count { statistics.add(try tensor(value, of: sample).view) }
    return statistics
  }

  /// What a node reads on a sample.
  func operands(of node: NodeID, of sample: Int) throws -> [Tensor] {
    try graph[node].inputs.map { try isRecipe($0) ? recipe($0) : tensor($0, of: sample) }
  }
}

extension Tensor {
  /// The numbers in f32, those that codes stand for where they are quantized.
  func floats() throws -> Tensor {
    if type.element == .f32, type.isDense { return self }
    let result = Tensor(TensorType(.f32, type.shape))
    let op: any Operator = type.isDense ? Cast(.f32) : Dequantize(.f32)
    try op.evaluate([view], into: [result.mutableView])
    return result
  }

  /// The same as an array.
  func numbers() throws -> [Float] { try floats().array(of: Float.self) }
}

extension [FunctionInputs] {
  /// The same with states as a function before left them, by name, for each sample; with zeros where there are none of
  /// the name.
  func begun(_ known: [[String: Tensor]], _ model: Model, _ graph: Graph) throws -> [FunctionInputs] {
    guard !known.isEmpty, !graph.states.isEmpty else { return self }
    let zeros = try Evaluator(model, graph).initialStates()
    return zip(self, known).map { sample, known in
      var sample = sample
      sample.states = zip(graph.states, sample.states ?? zeros).map { state, other in
        known[graph[state.value].name] ?? other
      }
      return sample
    }
  }
}

extension [SampleRows] {
  /// The mean of all rows; zeros if there are none. Each sample is added in f32, the sums of samples in f64.
  func mean(_ columns: Int) -> [Float] {
    var sums = [Double](repeating: 0, count: columns)
    var part = [Float](repeating: 0, count: columns)
    for sample in self where sample.rows > 0 {
      let ones = [Float](repeating: 1, count: sample.rows)
      MatrixProduct(rows: 1, columns: columns, depth: sample.rows)(ones, sample.numbers, into: &part)
      for column in 0..<columns { sums[column] += Double(part[column]) }
    }
    let count = Double(Swift.max(1, reduce(0) { $0 + $1.rows }))
    return sums.map { Float($0 / count) }
  }
}

extension [SampleRows] {
  /// Some columns of rows of `width` numbers, those of a row multiplied by what `factor` says of them.
  func part(
    _ columns: Range<Int>, of width: Int, factor: ((UnsafeBufferPointer<Float>) -> Float)? = nil
  ) -> [SampleRows] {
    compactMap { sample in
      let tensor = Tensor(TensorType(.f32, [Swift.max(sample.rows, 1), columns.count]))
      let target = tensor.mutableView.elements(as: Float.self)
      for row in 0..<sample.rows {
        let source = UnsafeBufferPointer(start: sample.numbers + row * width + columns.lowerBound, count: columns.count)
        let number = factor?(source) ?? 1
        // What is left out may have numbers that are not finite.
        for i in source.indices { target[row * columns.count + i] = number == 0 ? 0 : source[i] * number }
      }
      return target.baseAddress.map { SampleRows($0, rows: sample.rows, owner: tensor) }
    }
  }

  /// At most so many rows of all samples, spread over them; those with numbers that are not finite are left out.
  func some(_ limit: Int, columns: Int) -> [Float] {
    let all = reduce(0) { $0 + $1.rows }, step = Swift.max(1, (all + limit - 1) / limit)
    var result: [Float] = []
    var place = 0
    for sample in self {
      for row in 0..<sample.rows {
        defer { place += 1 }
        guard place % step == 0 else { continue }
        let numbers = UnsafeBufferPointer(start: sample.numbers + row * columns, count: columns)
        if numbers.allSatisfy(\.isFinite) { result += numbers }
      }
    }
    return result
  }
}

extension Tensor {
  /// The product of a matrix of f32 with a vector.
  func times(_ vector: [Float]) -> [Float] {
    let sizes = view.sizes
    var result = [Float](repeating: 0, count: sizes[0])
    guard let matrix = view.elements(as: Float.self).baseAddress else { return result }
    MatrixProduct(rows: sizes[0], columns: 1, depth: sizes[1])(matrix, vector, into: &result)
    return result
  }
}
