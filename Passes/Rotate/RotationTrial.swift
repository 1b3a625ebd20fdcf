import Base
import IR
import Tensors

/// Chooses rotations by what rounding loses with them: the distance of the rounded model's results from the original's
/// on samples.
///
/// Place by place none, a Hadamard matrix, one with random signs and, where they can be, reflections of the outliers
/// before one are tried, with those chosen for the places before; the best of these choices and of the same kind at all
/// places is taken.
struct RotationTrial {
  private let options: Rotate
  private let model: Model
  private let distance: OutputDistance
  private let context: PassContext

  /// - Throws: `CompileError` of kind `.usage` if no text is named, `.unsupported` for models of several functions.
  init(_ options: Rotate, _ model: Model, _ context: PassContext) throws {
    let runs = try options.chosenWindows(for: model, context, "rotations are chosen")
    self.options = options
    self.model = model
    self.context = context
    distance = try OutputDistance(model, runs)
  }

  /// The rotations to apply, one after the other.
  func best() throws -> [Rotate] {
    let kinds: [Rotate.Kind] = [.hadamard, .random, .outlierAware]
    var found = (rotations: [Rotate](), loss: try loss([]))
    let places = options.at.reduce(into: [Rotate.Site]()) { if !$0.contains($1) { $0.append($1) } }
    for (number, place) in places.enumerated() {
      context.progress?.update("trying rotations", done: number, of: places.count + 1)
      let before = found.rotations
      for kind in kinds where kind != .outlierAware || place == .residual || place == .values {
        let rotations = before + [rotation(kind, [place])]
        let loss = try loss(rotations)
        if loss < found.loss { found = (rotations, loss) }
      }
    }
    for kind in kinds where places.count > 1 {
      let rotations = [rotation(kind, places)]
      let loss = try loss(rotations)
      if loss < found.loss { found = (rotations, loss) }
    }
    return found.rotations
  }

  private func rotation(_ kind: Rotate.Kind, _ places: [Rotate.Site]) -> Rotate {
    var rotation = options
    (rotation.kind, rotation.at) = (kind, places)
    return rotation
  }

  /// What rounding loses behind the rotations.
  private func loss(_ rotations: [Rotate]) throws -> Double {
    var copy = model
    var silent = PassContext()
    silent.tokenSamples = context.tokenSamples
    for rotation in rotations { try rotation.run(&copy, &silent) }
    try QuantizeWeights(options.spec).quantize(&copy, function: 0, &silent)
    let loss = try distance(copy)
    return loss.isNaN ? .infinity : loss
  }
}
