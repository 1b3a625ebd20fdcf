import Base
import IR
import Tensors

extension LoadOptions {
  /// The rows of caches, or tokens of a text: what the caller wants, else at most `fallback`; the checkpoint has room for
  /// `longest`.
  func rows(longest: Int, fallback: Int = Self.defaultContext) throws -> Int {
    guard let context else { return min(longest, fallback) }
    guard context >= 1, context <= longest else {
      throw CompileError(.usage, "a context of \(context), but the checkpoint allows 1 to \(longest)")
    }
    return context
  }

  /// The type of caches beside weights of that type: what the caller wants, else f32 beside f32, else f16.
  func cacheType(beside weight: TensorType?) -> CacheType {
    cacheType ?? (weight.map { $0.isDense && $0.element == .f32 } ?? false ? .f32 : .f16)
  }
}

extension ModuleEmitter {
  /// An emitter of a function of `model`, which keeps model and tensors until ``finish(_:_:)``.
  init(name: String, role: String, symbols: [Symbol], model: Model, tensors: CheckpointTensors) {
    self.init(
      builder: GraphBuilder(name: name, role: role, symbols: symbols, constants: model.constants), model: model,
      tensors: tensors)
  }

  /// Adds the function to the model and gives both back.
  mutating func finish(_ model: inout Model, _ tensors: inout CheckpointTensors) {
    model = self.model
    model.constants = builder.constants
    model.functions.append(builder.graph)
    tensors = self.tensors
  }

  /// Emits a node with one result.
  mutating func emit(_ op: any Operator, _ inputs: ValueID..., name: String? = nil) throws -> ValueID {
    try builder.emit(op, inputs, name: name)
  }
}
