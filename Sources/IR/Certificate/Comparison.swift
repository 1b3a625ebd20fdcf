import Tensors

/// The runs before and after a pass, side by side.
struct Comparison {
  let pass: any Pass
  let original: Certifier.Outcome
  let old: Certifier.Outcome
  let new: Certifier.Outcome
  let inputs: [[FunctionInputs]]
  /// How many of the inputs of each function are made up; they come first.
  let madeUp: Int

  /// A tensor that differs by more than it may.
  struct Fault {
    /// What it is held to.
    enum Limit {
      /// The distance from the model before the pass, in f64 or f32.
      case bound(Double, wide: Bool)
      /// The relative error from the model as it was read.
      case error(Double)
      /// The divergence of next tokens from the model as it was read.
      case divergence(Double)
    }

    var place: Certifier.Place
    var limit: Limit
    /// What was found in place of it.
    var found: Double
  }

  /// How many times the spread two runs may be apart: the spread is what some signs of the roundings gave, others may give more.
  static let margin = 4.0

  /// The ratio of the units of f64 and f32.
  private static let ratio = 0x1p-29

  private var places: [Certifier.Place] {
    inputs.indices.flatMap { function in
      inputs[function].indices.flatMap { run in
        new.single[function][run].tensors.indices.map { .init(function: function, run: run, tensor: $0) }
      }
    }
  }

  /// Whether errors of what is not exact are told from this run: the user's inputs, where there are some, are what counts.
  private func isTelling(_ place: Certifier.Place) -> Bool {
    place.run >= madeUp || inputs[place.function].count <= madeUp
  }

  // MARK: Bounds

  /// What roundings in f32 account for.
  private func bound(_ place: Certifier.Place) -> Double {
    let spread =
      old.spread[place.function][place.run][place.tensor] + new.spread[place.function][place.run][place.tensor]
    return Self.margin * (spread + unit(place) * magnitude(place))
  }

  /// What states are rounded by that lie in another basis than before: other numbers are rounded then.
  private func unit(_ place: Certifier.Place) -> Double {
    let (before, after) = (old.model.functions[place.function], new.model.functions[place.function])
    guard old.model.bases(of: before) != new.model.bases(of: after) else { return FunctionRun.unit }
    return after.states.map { state in
      let type = after.type(of: state.value)
      return type.isDense ? (type.element == .f32 ? FunctionRun.unit : 0x1p-8) : 0x1p-4
    }.max() ?? FunctionRun.unit
  }

  /// What roundings in f64, and to f32 of what the pass made, account for.
  private func wideBound(_ place: Certifier.Place, _ made: [[[Double]]]) -> Double {
    Self.margin * made[place.function][place.run][place.tensor] + Self.ratio * bound(place)
  }

  private func magnitude(_ place: Certifier.Place) -> Double {
    var largest = 0.0
    for number in old.single[place.function][place.run].tensors[place.tensor] where number.isFinite {
      largest = max(largest, number.magnitude)
    }
    return largest
  }

  // MARK: Results

  private func difference(_ place: Certifier.Place) -> TensorDifference {
    TensorDifference(
      new.single[place.function][place.run].tensors[place.tensor],
      old.single[place.function][place.run].tensors[place.tensor])
  }

  private func wideDifference(_ place: Certifier.Place) -> Double? {
    guard new.wide != nil else { return nil }
    return TensorDifference(
      new.double[place.function][place.run].tensors[place.tensor],
      old.double[place.function][place.run].tensors[place.tensor]
    ).largest
  }

  private func total(_ place: Certifier.Place) -> TensorDifference {
    TensorDifference(
      new.single[place.function][place.run].tensors[place.tensor],
      original.single[place.function][place.run].tensors[place.tensor])
  }

  private func divergence(_ place: Certifier.Place) -> LogitDivergence? {
    let graph = new.model.functions[place.function]
    guard let columns = graph.logitColumns(ofOutput: place.tensor) else { return nil }
    return LogitDivergence(
      new.single[place.function][place.run].tensors[place.tensor],
      original.single[place.function][place.run].tensors[place.tensor], columns: columns)
  }

  /// What was found, the worst of all runs for each tensor.
  func certificate(made: [[[Double]]]?) -> PassCertificate {
    var outputs: [PassCertificate.Output] = []
    var known: [Certifier.Place: Int] = [:]
    for place in places {
      let graph = new.model.functions[place.function]
      var output = PassCertificate.Output(
        function: graph.name, name: graph.tensorName(place.tensor), isState: place.tensor >= graph.outputs.count,
        difference: difference(place), bound: nil, wideDifference: wideDifference(place), wideBound: nil,
        total: isTelling(place) ? total(place) : TensorDifference([], []),
        divergence: isTelling(place) ? divergence(place) : nil)
      if pass.fidelity == .exact { output.bound = bound(place) }
      if let made { output.wideBound = wideBound(place, made) }
      let key = Certifier.Place(function: place.function, run: 0, tensor: place.tensor)
      guard let index = known[key] else {
        known[key] = outputs.count
        outputs.append(output)
        continue
      }
      if output.difference.relative > outputs[index].difference.relative {
        (outputs[index].difference, outputs[index].bound) = (output.difference, output.bound)
        (outputs[index].wideDifference, outputs[index].wideBound) = (output.wideDifference, output.wideBound)
      }
      if output.total.relativeRMS > outputs[index].total.relativeRMS { outputs[index].total = output.total }
      if let found = output.divergence, found.mean > outputs[index].divergence?.mean ?? 0 {
        outputs[index].divergence = found
      }
    }
    return PassCertificate(
      fidelity: pass.fidelity, runs: inputs.reduce(0) { $0 + $1.count }, outputs: outputs)
  }

  /// The first tensor beyond what it is held to.
  func fault(made: [[[Double]]]?, _ options: Certifier.Options) -> Fault? {
    for place in places {
      if pass.fidelity == .exact {
        // f64 first: it tells faults from roundings best.
        if let made, let found = wideDifference(place) {
          let limit = wideBound(place, made)
          if found > limit { return Fault(place: place, limit: .bound(limit, wide: true), found: found) }
        }
        let (found, limit) = (difference(place).largest, bound(place))
        if found > limit { return Fault(place: place, limit: .bound(limit, wide: false), found: found) }
      }
      guard isTelling(place) else { continue }
      let isOutput = place.tensor < new.model.functions[place.function].outputs.count
      if let limit = options.maximumError, isOutput {
        let found = total(place).relativeRMS
        if found > limit { return Fault(place: place, limit: .error(limit), found: found) }
      }
      if let limit = options.maximumDivergence, let found = divergence(place)?.mean, found > limit {
        return Fault(place: place, limit: .divergence(limit), found: found)
      }
    }
    return nil
  }

  /// How far a tensor of another version of the model is beyond what it is held to, by the measure of `fault`.
  func measure(_ tensors: FunctionRun, _ fault: Fault) -> Double {
    let place = fault.place
    let found = tensors.tensors[place.tensor]
    switch fault.limit {
    case .bound(_, let wide):
      let reference = wide ? old.double : old.single
      return TensorDifference(found, reference[place.function][place.run].tensors[place.tensor]).largest
    case .error:
      return TensorDifference(found, original.single[place.function][place.run].tensors[place.tensor]).relativeRMS
    case .divergence:
      let columns = new.model.functions[place.function].logitColumns(ofOutput: place.tensor) ?? 1
      return LogitDivergence(
        found, original.single[place.function][place.run].tensors[place.tensor], columns: columns
      ).mean
    }
  }
}

extension Graph {
  /// The name of an output, or behind them of a state.
  func tensorName(_ index: Int) -> String {
    index < outputNames.count ? outputNames[index] : self[states[index - outputNames.count].value].name
  }

  /// The vocabulary, if an output is the logits of a language model: a row per token, of a function that takes tokens.
  func logitColumns(ofOutput index: Int) -> Int? {
    guard index < outputs.count, outputNames[index] == "logits", inputs.contains(where: { self[$0].name == "tokens" })
    else { return nil }
    return type(of: outputs[index]).shape.last.fixedValue
  }
}
