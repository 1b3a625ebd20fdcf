import Base
import Formats
import Glibc
import IR
import Tensors

/// Makes one checkpoint of several that have the same graph.
///
/// The tensors of the result are recipes on those of the checkpoints, computed when the result is written, one after the
/// other: memory is that of one tensor of each.
package struct Merger {
  package var options: MergeOptions

  package init(_ options: MergeOptions) { self.options = options }

  /// Merges the checkpoints at `inputs` and writes the result, in the form that its name tells.
  ///
  /// - Returns: sentences for the user.
  /// - Throws: `CompileError` of kind `.input` naming the first difference between checkpoints.
  package func merge(_ inputs: [String], to output: String) async throws -> [String] {
    try options.check(count: inputs.count)
    let form = try Converter.Form(path: output)
    guard form != .onnx, form != .mir else {
      throw CompileError(
        .usage, "a merge is not written as .\(form.rawValue)",
        notes: ["write a folder, .safetensors, .gguf, .npz or .bin, and convert that"])
    }
    try form.check(output)
    let checkpoints = try inputs.map { try Checkpoint.readTensors($0) }
    for (path, other) in zip(inputs, checkpoints).dropFirst() {
      try checkpoints[0].requireSameForm(as: other, inputs[0], path)
    }
    var notes: [String] = []
    var merged = checkpoints[0]
    if let base = options.base {
      merged = try Checkpoint.readTensors(base)
      try checkpoints[0].requireSameForm(as: merged, inputs[0], base)
      (merged.name, merged.config) = (checkpoints[0].name, checkpoints[0].config)
      (merged.generation, merged.companions) = (checkpoints[0].generation, checkpoints[0].companions)
    }
    guard !merged.config.isEmpty || form == .safetensors || form == .npz else {
      throw CompileError(
        .usage, "'\(inputs[0])' holds tensors alone, which are written as .safetensors or .npz",
        notes: ["put its config.json beside it"])
    }
    for (path, other) in zip(inputs, checkpoints).dropFirst() {
      if let name = checkpoints[0].differingCompanion(from: other) {
        notes.append("'\(name)' differs between '\(inputs[0])' and '\(path)'; that of the first is kept")
      }
    }

    let names = try selection(merged, unselected: options.base ?? inputs[0], notes: &notes)
    if options.method.needsSamples, inputs.count > 1 {
      let done = try await RegressionMerge(options).apply(to: &merged, inputs, checkpoints, names, beside: output)
      notes += done
    } else if !names.isEmpty {
      let recipe = try self.recipe(inputs, notes: &notes)
      let others = options.base == nil ? Array(checkpoints.dropFirst()) : checkpoints
      // One checkpoint without a base stays as it is, whatever its numbers are.
      if !others.isEmpty {
        for name in names {
          try merged.combine(name, with: others) { try recipe(name, &$0, $1) }
        }
      }
    }
    for checkpoint in checkpoints {
      merged.notes += checkpoint.notes.filter { !merged.notes.contains($0) }
    }
    try Converter.write(&merged, as: form, to: output)
    return merged.notes + notes
  }

  // MARK: Tensors

  /// The tensors that are merged: those of numbers that are not whole, as far as patterns choose them.
  private func selection(_ checkpoint: Checkpoint, unselected: String, notes: inout [String]) throws -> [String] {
    for pattern in options.layers where !checkpoint.names.contains(where: { Self.matches($0, pattern) }) {
      throw CompileError(
        .usage, "no tensor matches '\(pattern)'",
        notes: checkpoint.names.first.map { ["the first one is '\($0)'"] } ?? [])
    }
    let chosen = checkpoint.names.filter { name in
      options.layers.isEmpty || options.layers.contains { Self.matches(name, $0) }
    }
    if chosen.count < checkpoint.names.count {
      notes.append(
        "\(chosen.count) of \(checkpoint.names.count) tensors are merged; the others are those of '\(unselected)'")
    }
    let merged = chosen.filter { checkpoint.type(of: $0).map { $0.isDense && $0.element.isFloat } ?? false }
    if merged.count < chosen.count {
      notes.append("tensors of whole numbers are those of '\(unselected)': \(chosen.count - merged.count)")
    }
    return merged
  }

  /// Whether a name matches a pattern with `*`, `?` and `[...]`.
  private static func matches(_ name: String, _ pattern: String) -> Bool { fnmatch(pattern, name, 0) == 0 }

  private typealias Recipe = (_ name: String, _ builder: inout GraphBuilder, _ tensors: [ValueID]) throws -> ValueID

  /// What is made of the tensors of one name, the base first if there is one.
  private func recipe(_ inputs: [String], notes: inout [String]) throws -> Recipe {
    let count = inputs.count
    switch options.method {
    case .mean, .mwa:
      let weights = try means(count)
      if options.weights != nil || options.method == .mwa {
        notes.append("weights: " + zip(inputs, weights).map { "'\($0)' \($1)" }.joined(separator: ", "))
      }
      return { _, builder, tensors in
        try Self.emit(WeightedSum(), weights, tensors, &builder)
      }
    case .slerp:
      let op = SphericalInterpolation(t: options.interpolation ?? 0.5)
      return { _, builder, tensors in try builder.emit(op, tensors) }
    case .taskArithmetic, .ties, .dare:
      let weights = options.weights ?? [Double](repeating: 1, count: count)
      let scale = options.scale ?? 1
      let seed = UInt64(bitPattern: Int64(options.seed ?? 0))
      let (method, density): (TaskVectorSum.Method, Double) =
        switch options.method {
        case .ties: (.ties, options.density ?? 0.2)
        case .dare: (.dare, options.density ?? 0.1)
        default: (.arithmetic, 1)
        }
      return { name, builder, tensors in
        let own = method == .dare ? Self.seed(seed, of: name) : 0
        let op = TaskVectorSum(method, scale: scale, density: density, seed: own)
        return try Self.emit(op, weights, tensors, &builder)
      }
    case .regmean, .regmeanPlusPlus:
      // One checkpoint.
      return { _, _, tensors in tensors[0] }
    }
  }

  /// The weights of a mean, which sum to 1.
  private func means(_ count: Int) throws -> [Double] {
    if options.method == .mwa, let metric = options.metric, let values = options.values {
      return try metric.weights(values, penalty: options.penalty ?? 1)
    }
    let weights = options.weights ?? [Double](repeating: 1, count: count)
    let sum = weights.reduce(0, +)
    return weights.map { $0 / sum }
  }

  /// An operator on weights and the tensors that they are of.
  static func emit(
    _ op: any Operator, _ weights: [Double], _ tensors: [ValueID], _ builder: inout GraphBuilder
  ) throws -> ValueID {
    try builder.emit(op, [builder.constant(.inline("weights", .f64, [weights.count], weights))] + tensors)
  }

  /// The seed of a tensor: the hash of its name.
  package static func seed(_ seed: UInt64, of name: String) -> Int {
    let hash = Array(name.utf8).withUnsafeBytes { xxHash64($0, seed: seed) }
    return Int(hash >> 1)
  }
}
