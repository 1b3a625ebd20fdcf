import Base
import IR
import Tensors

/// How the inputs of a step follow from those of the step before and what it gave.
struct StepLoop {
  /// The place of an output and of the input that it becomes.
  private var links: [(output: Int, input: Int)] = []
  private var time: Int?
  private let stride: Int
  private let graph: Graph

  /// - Throws: `CompileError` of kind `.usage` if the options of the pass name what there is not, or do not go together.
  init(_ options: Calibrate, _ graph: Graph) throws {
    func fail(_ message: String) -> CompileError { CompileError(.usage, message) }
    self.graph = graph
    stride = options.stride
    guard (1...1_000_000).contains(options.steps) else {
      throw fail("'steps' of pass 'calibrate' is \(options.steps), expected 1 to 1000000")
    }
    let inputs = graph.inputs.map { graph[$0].name }
    func input(_ name: String) throws -> Int {
      guard let place = inputs.firstIndex(of: name) else {
        throw fail("'calibrate' found no input '\(name)' (inputs: \(inputs.joined(separator: ", ")))")
      }
      return place
    }
    for text in options.loop {
      let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
      guard parts.count == 2 else { throw fail("'loop' of pass 'calibrate' has '\(text)', expected OUTPUT:INPUT") }
      guard let output = graph.outputNames.firstIndex(of: parts[0]) else {
        throw fail(
          "'calibrate' found no output '\(parts[0])' (outputs: \(graph.outputNames.joined(separator: ", ")))")
      }
      let place = try input(parts[1])
      guard !links.contains(where: { $0.input == place }) else {
        throw fail("two outputs become the input '\(parts[1])'")
      }
      let (given, taken) = (graph.type(of: graph.outputs[output]), graph.type(of: graph.inputs[place]))
      guard given.element == taken.element, given.isDense, given.rank == taken.rank else {
        throw fail("the output '\(parts[0])' of type \(given) is no input '\(parts[1])' of type \(taken)")
      }
      links.append((output, place))
    }
    if !options.time.isEmpty {
      let place = try input(options.time), type = graph.type(of: graph.inputs[place])
      guard [.f32, .i32, .i64].contains(type.element), !links.contains(where: { $0.input == place }) else {
        throw fail("the input '\(options.time)' of type \(type) counts no steps")
      }
      time = place
    }
    guard options.steps == 1 || !links.isEmpty || time != nil else {
      throw fail("several steps need 'loop' or 'time', so that they differ")
    }
  }

  /// The inputs of the step behind one with these inputs and outputs.
  ///
  /// - Throws: `CompileError` of kind `.input` if an output has another size than the input that it becomes, or is not
  ///   finite.
  func callAsFunction(_ inputs: [Tensor], _ outputs: [Tensor]) throws -> [Tensor] {
    var next = inputs
    for (output, input) in links {
      let tensor = outputs[output], name = graph.outputNames[output]
      guard tensor.view.sizes == inputs[input].view.sizes else {
        throw CompileError(
          .input,
          "the output '\(name)' has sizes \(tensor.view.sizes), but the input of the next step \(inputs[input].view.sizes)"
        )
      }
      guard tensor.type.element != .f32 || tensor.view.elements(as: Float.self).allSatisfy(\.isFinite) else {
        throw CompileError(.input, "the output '\(name)' has numbers that are not finite; take fewer steps")
      }
      next[input] = tensor
    }
    if let time { next[time] = Self.grown(inputs[time], by: stride) }
    return next
  }

  /// The same with a number added to each.
  private static func grown(_ tensor: Tensor, by stride: Int) -> Tensor {
    let sizes = tensor.view.sizes
    switch tensor.type.element {
    case .f32: return Tensor(.f32, sizes, tensor.array(of: Float.self).map { $0 + Float(stride) })
    case .i32: return Tensor(.i32, sizes, tensor.array(of: Int32.self).map { $0 &+ Int32(truncatingIfNeeded: stride) })
    default: return Tensor(.i64, sizes, tensor.array(of: Int64.self).map { $0 &+ Int64(stride) })
    }
  }
}
