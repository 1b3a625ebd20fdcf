import Base
import Formats
import IR
import Passes
import Tensors

/// Merges the linear layers of checkpoints by regression on samples, and the other tensors by the mean.
struct RegressionMerge {
  private let options: MergeOptions

  init(_ options: MergeOptions) { self.options = options }

  /// Replaces the tensors `names` of `merged`, which holds those of the first checkpoint.
  ///
  /// - Returns: what was done.
  func apply(
    to merged: inout Checkpoint, _ inputs: [String], _ checkpoints: [Checkpoint], _ names: [String],
    beside output: String
  ) async throws -> [String] {
    let models = try inputs.map { try load($0) }
    var samples: [[FunctionInputs]] = []
    for (model, path) in zip(models, options.calibration) {
      let found = try await CalibrationSamples(model, count: options.samples ?? 16, length: length(model)).read(path)
      guard !found.isEmpty else { throw CompileError(.input, "'\(path)' holds no samples") }
      samples.append(found)
    }

    var merge = LinearLayerMerge()
    merge.usesMergedInputs = options.method == .regmeanPlusPlus
    merge.scale = options.diagonal ?? 0.9
    let chosen = Set(names)
    let first = checkpoints[0]
    merge.selects = { chosen.contains($0.name) && first.type(of: $0.name) == $0.type }
    let spill = try SpillFile(name: ArchivePath.name(of: output), in: ArchivePath.folder(of: output))
    var entries: [(name: String, type: TensorType, range: Range<Int>)] = []
    let progress = Progress()
    defer { progress.clear() }
    let layers = try merge.run(models, samples, progress: progress) { name, tensor in
      entries.append((name, tensor.type, try spill.add(tensor.view.bytes)))
    }
    guard !layers.isEmpty else {
      throw CompileError(
        .unsupported, "no linear layer of '\(inputs[0])' uses a chosen tensor as it is",
        notes: ["convert the checkpoints to Hugging Face folders first"])
    }
    let file = try spill.finish()
    for entry in entries {
      let tensor = CheckpointTensor(name: entry.name, type: entry.type, file: file, range: entry.range)
      try merged.replace(entry.name, by: tensor)
    }

    let done = Set(layers.map(\.name))
    let share = 1 / Double(checkpoints.count)
    let weights = [Double](repeating: share, count: checkpoints.count)
    let rest = names.filter { !done.contains($0) }
    for name in rest {
      try merged.combine(name, with: Array(checkpoints.dropFirst())) { builder, tensors in
        try Merger.emit(WeightedSum(), weights, tensors, &builder)
      }
    }
    return notes(layers, averaged: rest.count)
  }

  private func notes(_ layers: [LinearLayerMerge.Layer], averaged: Int) -> [String] {
    let rows = layers[0].rows.map(String.init).joined(separator: " and ")
    var notes = ["\(layers.count) linear layers are merged by regression on \(rows) rows of input"]
    if averaged > 0 { notes.append("\(averaged) other tensors are means") }
    let damped = layers.filter { $0.damping > 0 }
    if let worst = damped.max(by: { $0.damping < $1.damping }) {
      notes.append(
        "the statistics of \(damped.count) layers are singular; up to \(worst.damping) of the mean of the diagonal was "
          + "added to it, at '\(worst.name)'")
    }
    return notes
  }

  /// The model of a checkpoint, with caches of no more rows than samples have.
  private func load(_ path: String) throws -> Model {
    let model = try ModelLoader.load(path)
    guard model[metadata: "context"] != nil else { return model }
    return try ModelLoader.load(path, LoadOptions(context: length(model)))
  }

  /// Tokens of a sample.
  private func length(_ model: Model) -> Int {
    let limit = model[metadata: "context.maximum"].flatMap { Int($0) } ?? .max
    return min(options.length ?? 256, limit)
  }
}
