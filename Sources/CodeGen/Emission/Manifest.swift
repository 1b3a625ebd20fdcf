import Base
import IR
import Tensors

/// What a program tells about its making with `--manifest`.
package struct Manifest: Sendable {
  /// A pass that ran, with its options as text.
  package struct PassRecord: Equatable, Sendable {
    package var name: String
    package var options: String
    /// `exact`, `rounding` or `lossy`; empty if nobody said.
    package var fidelity: String
    /// What comparing the model before and after gave; nil where that was not done.
    package var check: JSON?

    package init(name: String, options: String, fidelity: String = "", check: JSON? = nil) {
      self.name = name
      self.options = options
      self.fidelity = fidelity
      self.check = check
    }

    fileprivate var json: JSON {
      var object = JSONObject()
      object["name"] = .string(name)
      object["options"] = .string(options)
      if !fidelity.isEmpty { object["fidelity"] = .string(fidelity) }
      if let check { object["check"] = check }
      return .object(object)
    }
  }

  /// A file the model was read from.
  package struct SourceRecord: Hashable, Sendable {
    /// The name without folders.
    package var name: String
    package var sha256: String
    package var bytes: Int

    package init(name: String, sha256: String, bytes: Int) {
      self.name = name
      self.sha256 = sha256
      self.bytes = bytes
    }
  }

  /// The name and version of mcc, such as `mcc 0.1.0`.
  package var compiler: String
  /// What the C compiler says about itself; empty if the sources are compiled elsewhere.
  package var cCompiler: String
  package var passes: [PassRecord]
  package var sources: [SourceRecord]
  /// What was measured on the machine and decided the choice of kernels; nil where the target's estimates did.
  package var machine: JSON?

  package init(
    compiler: String, cCompiler: String = "", passes: [PassRecord] = [], sources: [SourceRecord] = []
  ) {
    self.compiler = compiler
    self.cCompiler = cCompiler
    self.passes = passes
    self.sources = sources
  }

  /// A step: the index of its kernel, where it comes from, and what it has to move and to compute.
  private static func step(_ step: Schedule.Step) -> JSON {
    var object = JSONObject()
    object["kernel"] = .int(step.kernel)
    object["origin"] = .string(step.origin?.text ?? step.name)
    object["arithmetic"] = .string(step.work.arithmetic.rawValue)
    object["operations"] = step.work.operations.json
    object["weight_bytes"] = step.work.weightBytes.json
    object["other_bytes"] = step.work.otherBytes.json
    return .object(object)
  }

  /// The manifest of a scheduled model.
  package func json(_ schedule: Schedule, of model: Model, targets: [Target]) -> JSON {
    var object = JSONObject()
    object["name"] = .string(model.name)
    object["compiler"] = .string(compiler)
    object["target"] = .string(TargetRegistry.name(of: targets))
    if let machine { object["machine"] = machine }
    if !cCompiler.isEmpty { object["c_compiler"] = .string(cCompiler) }
    object["sources"] = .array(
      sources.map { ["name": .string($0.name), "sha256": .string($0.sha256), "bytes": .int($0.bytes)] })
    object["metadata"] = .object(JSONObject(model.metadata.map { ($0.key, .string($0.value)) }))
    object["passes"] = .array(passes.map(\.json))
    object["functions"] = .array(
      schedule.functions.map { function in
        let tensors = { (entries: [(name: String, buffer: Int)]) -> JSON in
          .array(
            entries.map { entry in
              let type = function.buffers[entry.buffer].type
              return [
                "name": .string(entry.name), "type": .string(type.element.rawValue),
                "shape": .array(
                  type.shape.dims.map { dim in
                    dim.fixedValue.map { .int($0) } ?? .string(dim.description)
                  }),
              ]
            })
        }
        return [
          "role": .string(function.role), "target": .string(targets[function.level].name),
          "symbols": .array(
            function.symbols.map {
              ["name": .string($0.name), "minimum": .int($0.minimum), "maximum": .int($0.maximum)]
            }),
          "inputs": tensors(function.inputs), "outputs": tensors(function.outputs),
          "buffer_bytes": .int(function.temporaryBytes), "steps": .array(function.steps.map(Self.step)),
        ]
      })
    object["kernels"] = .array(schedule.kernels.map { .string($0.name) })
    object["weights"] = .array(
      schedule.weights.map {
        ["name": .string($0.name), "type": .string($0.type.description), "bytes": .int($0.byteCount)]
      })
    object["memory"] = [
      "weights_bytes": .int(schedule.weightsBytes), "state_bytes": .int(schedule.stateBytes),
      "arena_bytes": .int(schedule.arenaBytes),
    ]
    return .object(object)
  }
}
