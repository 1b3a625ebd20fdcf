import Base
import IR
import Tensors

extension CheckpointTensors {
  /// Reads the adapter that the caller names, if any: from now on ``takeAdapted(_:_:into:_:)`` gives weights with it.
  mutating func attachAdapter(_ options: LoadOptions) throws {
    guard let path = options.adapter else { return }
    adapter = try AdapterRegistry.read(path, limits: options.limits)
    separatesAdapter = options.keepsAdapter
  }

  /// Checks that all of the adapter has been used, and takes it out of the weights again if it is to be kept, as far as
  /// that goes.
  mutating func finishAdapter(_ model: inout Model) throws {
    guard let adapter else { return }
    try adapter.file.requireAllUsed(adapter.modules)
    guard separatesAdapter else { return }
    try model.separateAdapters()
    if !adapter.keepsAll {
      model.add(notes: ["magnitudes and factors of the adapter are merged into the weights; products alone are kept"])
    }
  }

  /// As `take`; with what the adapter adds to the tensor, or puts in its place.
  mutating func takeAdapted(
    _ name: String, _ sizes: [Int], into model: inout Model, _ builder: inout GraphBuilder
  ) throws -> ValueID {
    guard adapter != nil else { return try take(name, sizes, into: &model, &builder) }
    if let other = adapter?.file.replacement(of: name) {
      ignore(name)
      guard other.type.shape == Shape(sizes) else {
        throw CompileError(
          .unsupported, "tensor '\(other.name)' has shape \(other.type.shape), expected \(Shape(sizes))",
          subject: .init(file: other.file.path))
      }
      return AdapterFile.constant(other, name, into: &model, &builder)
    }
    let weight = try take(name, sizes, into: &model, &builder)
    let hasHead = self["lm_head.weight"] != nil
    return try adapter?.merged(
      weight, of: name, hasHead: hasHead, into: &model, &builder) ?? weight
  }
}
