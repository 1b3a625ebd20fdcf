import Base
import IR
import Tensors

/// Runs of the reference evaluator on made-up inputs, to compare a model before and after passes.
enum SeededRun {
  /// Exact passes change the order of f32 sums (of at most a few thousand terms here) and of factors: an error of some
  /// tens of units in the last place of the largest value.
  static let exactTolerance = 1e-5

  /// The outputs and the updated states of a function, as numbers. Every symbol is 3 where its range allows.
  static func outputs(of model: Model, function name: String, seed: UInt64 = 1) throws -> [[Double]] {
    guard let graph = model.functions.first(where: { $0.name == name }) else {
      throw CompileError(.internal, "no function '\(name)'")
    }
    var symbols: [String: Int] = [:]
    for symbol in graph.symbols { symbols[symbol.name] = min(max(3, symbol.minimum), symbol.maximum) }
    var generator = SplitMix64(seed: seed)
    func tensor(_ value: ValueID) -> Tensor {
      let type = graph.type(of: value).substituting { symbols[$0.name].map { .fixed($0) } }
      let tensor = Tensor(type)
      fill(tensor, isPosition: graph[value].name == "position", &generator)
      return tensor
    }
    let inputs = graph.inputs.map { tensor($0) }
    let states = graph.states.map { tensor($0.value) }
    let results = try Evaluator(model, function: name).run(inputs, states: states, symbols: symbols)
    return (results.outputs + results.states).map { numbers($0.view) }
  }

  /// Inputs of a function without symbols, made up like those of ``outputs(of:function:seed:)``.
  static func inputs(of graph: Graph, seed: UInt64) -> [Tensor] {
    var generator = SplitMix64(seed: seed)
    return graph.inputs.map { value in
      let tensor = Tensor(graph.type(of: value))
      fill(tensor, isPosition: false, &generator)
      return tensor
    }
  }

  /// Numbers of about normal distribution; whole numbers from 0 to 2, and 2 for a position.
  private static func fill(_ tensor: Tensor, isPosition: Bool, _ generator: inout SplitMix64) {
    let view = tensor.mutableView
    for index in 0..<view.count {
      let normal = (0..<4).reduce(0.0) { sum, _ in sum + generator.uniform() } * 1.7 - 3.4
      let whole = isPosition ? 2 : Int(generator.uniform() * 3)
      switch view.type.element {
      case .f32: view.elements(as: Float.self)[index] = Float(normal)
      case .f64: view.elements(as: Double.self)[index] = normal
      case .f16: view.elements(as: UInt16.self)[index] = F16.bits(Float(normal))
      case .bf16: view.elements(as: UInt16.self)[index] = BF16.bits(Float(normal))
      case .i64: view.elements(as: Int64.self)[index] = Int64(whole)
      case .i32: view.elements(as: Int32.self)[index] = Int32(whole)
      case .i16: view.elements(as: Int16.self)[index] = Int16(whole)
      case .i8, .u8, .bool, .f8e4m3, .f8e5m2: view.elements(as: UInt8.self)[index] = UInt8(whole & 1)
      }
    }
  }

  /// The elements as doubles.
  static func numbers(_ view: TensorView) -> [Double] {
    switch view.type.element {
    case .f64: Array(view.elements(as: Double.self))
    case .f32: view.elements(as: Float.self).map { Double($0) }
    case .f16: view.elements(as: UInt16.self).map { Double(F16.value($0)) }
    case .bf16: view.elements(as: UInt16.self).map { Double(BF16.value($0)) }
    case .i64: view.elements(as: Int64.self).map { Double($0) }
    case .i32: view.elements(as: Int32.self).map { Double($0) }
    case .i16: view.elements(as: Int16.self).map { Double($0) }
    case .i8, .u8, .bool, .f8e4m3, .f8e5m2: view.elements(as: UInt8.self).map { Double($0) }
    }
  }
}
