import Base
import IR
import Tensors

/// Chooses rotations by what rounding loses with them: the distance of the rounded model's results from the original's
/// on samples.
///
/// None, a Hadamard matrix, one with random signs and reflections of the outliers before one are tried at all places
/// alike. Then they are tried place by place, with those chosen for the places before: a mixture is taken where it loses
/// clearly less than the best of the former, as the best of many is partly chance, which other samples do not share.
struct RotationTrial {
  /// What a mixture may lose at most, for what the best of one kind at all places loses.
  private static let margin = 0.95

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
    let none = (rotations: [Rotate](), loss: try loss([]))
    let places = options.at.reduce(into: [Rotate.Site]()) { if !$0.contains($1) { $0.append($1) } }
    var alike = none
    context.progress?.update("trying rotations")
    for kind in kinds {
      let rotations = [rotation(kind, places)]
      let loss = try loss(rotations)
      if loss < alike.loss { alike = (rotations, loss) }
    }
    guard places.count > 1 else { return alike.rotations }
    var mixed = none
    for (number, place) in places.enumerated() {
      context.progress?.update("trying rotations", done: number, of: places.count)
      let before = mixed.rotations
      for kind in kinds where kind != .outlierAware || place == .residual || place == .values {
        let rotations = before + [rotation(kind, [place])]
        let loss = try loss(rotations)
        if loss < mixed.loss { mixed = (rotations, loss) }
      }
    }
    return mixed.loss < Self.margin * alike.loss ? mixed.rotations : alike.rotations
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
