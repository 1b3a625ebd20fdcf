import Base
import IR
import Tensors

extension CheckpointTensors {
  /// Reads the adapter that the caller names, if any: from now on ``takeAdapted(_:_:into:_:)`` gives weights with it.
  mutating func attachAdapter(_ options: LoadOptions) throws {
    guard let path = options.adapter else { return }
    adapter = try LowRankAdapter(path: path, limits: options.limits)
    separatesAdapter = options.keepsAdapter
  }

  /// Checks that all of the adapter has been used, and takes it out of the weights again if it is to be kept.
  mutating func finishAdapter(_ model: inout Model) throws {
    guard let adapter else { return }
    try adapter.requireAllUsed()
    if separatesAdapter { try model.separateAdapters() }
  }

  /// As `take`; with what the adapter adds to the tensor, or puts in its place.
  mutating func takeAdapted(
    _ name: String, _ sizes: [Int], into model: inout Model, _ builder: inout GraphBuilder
  ) throws -> ValueID {
    guard adapter != nil else { return try take(name, sizes, into: &model, &builder) }
    if let other = adapter?.replacement(of: name) {
      ignore(name)
      guard other.type.shape == Shape(sizes) else {
        throw CompileError(
          .unsupported, "tensor '\(other.name)' has shape \(other.type.shape), expected \(Shape(sizes))",
          subject: .init(file: other.file.path))
      }
      return builder.constant(
        Constant(name: name, type: other.type, source: .archive(model.addArchive(other.file), other.range)))
    }
    let weight = try take(name, sizes, into: &model, &builder)
    let hasHead = self["lm_head.weight"] != nil
    return try adapter?.merged(
      weight, of: name, hasHead: hasHead, into: &model, &builder) ?? weight
  }
}
