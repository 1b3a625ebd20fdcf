import Base
import Tensors

/// The experts of each token and how much each counts (Shazeer and others, 2017; DeepSeek-AI, 2024).
///
/// Scores are the softmax of a row of logits, or their sigmoids. The `count` largest are chosen, best first, of equal
/// ones the first. With `groups` the experts are cut into so many equal groups, of which the `chosenGroups` with the
/// largest best score, or with the largest sum of the two best ones, take part. A bias is added to the scores for choosing alone. The
/// weights are the scores of the chosen, divided by their sum if `normalizes` (which equals a softmax over the chosen
/// logits alone), times `scale`.
///
/// Inputs: `logits[T, E]`, then optionally `bias[E]`. Results: `ids: i32[T, count]` and `weights[T, count]`.
package struct Route: Operator {
  package static let name = "route"

  package enum Scoring: String, Hashable, Codable, Sendable {
    case softmax, sigmoid
  }

  /// How a group is judged.
  package enum GroupScore: String, Hashable, Codable, Sendable {
    case best
    case twoBest = "two_best"
  }

  package var count: Int = 1
  package var scoring: Scoring = .softmax
  package var normalizes: Bool = false
  @Exact package var scale: Float = 1
  package var groups: Int = 1
  package var chosenGroups: Int = 1
  package var groupScore: GroupScore = .best

  package init() {}

  package init(
    count: Int, scoring: Scoring = .softmax, normalizes: Bool, scale: Float = 1, groups: Int = 1,
    chosenGroups: Int = 1, groupScore: GroupScore = .best
  ) {
    self.count = count
    self.scoring = scoring
    self.normalizes = normalizes
    self.scale = scale
    self.groups = groups
    self.chosenGroups = chosenGroups
    self.groupScore = groupScore
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...2)
    let logits = inputs[0]
    try expectFloat(logits, "logits")
    try expectRank(logits, 2...2, "logits")
    let experts = try expectFixed(logits.shape[1], "experts")
    guard groups >= 1, experts % groups == 0, (1...groups).contains(chosenGroups) else {
      throw failure("\(experts) experts do not divide into \(groups) groups, of which \(chosenGroups) are chosen")
    }
    guard count >= 1, count <= experts / groups * chosenGroups else {
      throw failure("attribute 'count' is \(count), expected 1 to \(experts / groups * chosenGroups)")
    }
    guard groupScore == .best || experts / groups >= 2 else {
      throw failure("groups of one expert have no two best ones")
    }
    if inputs.count > 1 {
      try expectFloat(inputs[1], "bias")
      try expectShape(inputs[1], [.fixed(experts)], "bias")
    }
    let shape: Shape = [logits.shape[0], .fixed(count)]
    return [TensorType(.i32, shape), logits.with(shape: shape)]
  }
}

extension Route {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    if inputs[0].type.element == .f64 {
      try evaluate(in: Double.self, inputs, outputs)
    } else {
      try evaluate(in: Float.self, inputs, outputs)
    }
  }

  private func evaluate<R: Real>(in: R.Type, _ inputs: [TensorView], _ outputs: [MutableTensorView]) throws {
    let logits = Numbers<R>(inputs[0])
    let bias = inputs.count > 1 ? Numbers<R>(inputs[1]) : nil
    let weights = Results<R>(outputs[1])
    let (tokens, experts) = (inputs[0].sizes[0], inputs[0].sizes[1])
    let ids = outputs[0].elements(as: Int32.self)
    for token in 0..<tokens {
      let scores = self.scores(UnsafeBufferPointer(start: logits.data + token * experts, count: experts))
      let judged = scores.indices.map { scores[$0] + (bias?.data[$0] ?? 0) }
      let chosen = choose(judged)
      var sum: R = 0
      for expert in chosen { sum += scores[expert] }
      let factor = R(rounding: Double(scale)) / (normalizes ? sum : 1)
      for (slot, expert) in chosen.enumerated() {
        ids[token * count + slot] = Int32(expert)
        weights.data[token * count + slot] = scores[expert] * factor
      }
    }
    weights.store()
    withExtendedLifetime((logits, bias)) {}
  }

  private func scores<R: Real>(_ logits: UnsafeBufferPointer<R>) -> [R] {
    switch scoring {
    case .sigmoid: return logits.map { 1 / (1 + R.exp(-$0)) }
    case .softmax:
      let largest = logits.max() ?? 0
      let powers = logits.map { R.exp($0 - largest) }
      let sum = powers.reduce(0, +)
      return powers.map { $0 / sum }
    }
  }

  /// The experts with the largest scores, best first.
  private func choose<R: Real>(_ scores: [R]) -> [Int] {
    var candidates = Array(scores.indices)
    if groups > 1, chosenGroups < groups {
      let size = scores.count / groups
      let judged = (0..<groups).map { group -> R in
        let best = scores[(group * size)..<((group + 1) * size)].sorted(by: >)
        return groupScore == .best ? best[0] : best[0] + best[1]
      }
      let kept = Set(Self.largest(judged, Array(judged.indices), chosenGroups))
      candidates = candidates.filter { kept.contains($0 / size) }
    }
    return Self.largest(scores, candidates, count)
  }

  /// The places among `candidates` of the `count` largest numbers, best first, of equal ones the first.
  private static func largest<R: Real>(_ numbers: [R], _ candidates: [Int], _ count: Int) -> [Int] {
    var rest = candidates
    return (0..<count).map { _ in
      var best = 0
      for place in rest.indices where numbers[rest[place]] > numbers[rest[best]] { best = place }
      return rest.remove(at: best)
    }
  }
}
