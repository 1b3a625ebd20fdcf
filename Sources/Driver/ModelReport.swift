import Base
import Collections
import IR
import Tensors

/// Facts about a model: what `mcc inspect` and `mcc dump --json` show.
package struct ModelReport: Sendable {
  /// How much of the constants has one type.
  package struct TypeShare: Hashable, Sendable {
    package var type: String
    package var tensors = 0
    package var parameters = 0
    package var bytes = 0
  }

  package var name: String
  package var stage: Stage
  package var metadata: [Model.Entry]
  package var functions: [Graph]
  /// By type name, largest first.
  package var types: [TypeShare]
  /// Operators of all functions, most frequent first.
  package var histogram: [(name: String, count: Int)]
  package var assets: [String]

  /// The facts of `model`.
  package init(_ model: Model) {
    name = model.name
    stage = model.stage
    metadata = model.metadata.filter { $0.key != Model.noteKey }
    functions = model.functions
    var shares: OrderedDictionary<String, TypeShare> = [:]
    for constant in model.constants.constants {
      let type = Self.typeName(constant.type)
      var share = shares[type] ?? TypeShare(type: type)
      share.tensors += 1
      share.parameters += constant.type.maximumCount
      share.bytes += constant.type.maximumByteCount
      shares[type] = share
    }
    types = shares.values.sorted { ($0.bytes, $1.type) > ($1.bytes, $0.type) }
    var counts: [String: Int] = [:]
    for function in model.functions {
      for node in function.nodeIDs { counts[function[node].op.name, default: 0] += 1 }
    }
    histogram = counts.sorted { ($0.value, $1.key) > ($1.value, $0.key) }.map { ($0.key, $0.value) }
    assets = model.assets.map { asset in
      switch asset.asset {
      case .tokenizer(let tokenizer): "tokenizer of \(tokenizer.tokens.count) tokens (\(tokenizer.algorithm.rawValue))"
      case .generation: "generation settings"
      case .labels(let labels): "\(labels.count) labels"
      }
    }
  }

  /// `bf16`, or the block format's name.
  private static func typeName(_ type: TensorType) -> String {
    switch type.encoding {
    case .dense: type.element.rawValue
    case .block(let format): format.name
    case .packed(let layout): layout.name
    }
  }

  /// Numbers in all constants.
  package var parameters: Int { types.reduce(0) { $0 + $1.parameters } }

  /// Bytes of all constants.
  package var bytes: Int { types.reduce(0) { $0 + $1.bytes } }

  /// Lines for a person.
  package var lines: [String] {
    var lines = ["\(name) (stage \(stage.rawValue))"]
    for entry in metadata { lines.append("  \(entry.key): \(entry.value)") }
    lines.append("  parameters: \(Quantity.count(parameters)) in \(Quantity.bytes(bytes))")
    for share in types {
      lines.append(
        "    \(share.type): \(share.tensors) tensors, \(Quantity.count(share.parameters)) numbers, \(Quantity.bytes(share.bytes))"
      )
    }
    for asset in assets { lines.append("  \(asset)") }
    for function in functions {
      let inputs = function.inputs.map { "\(function[$0].name): \(function[$0].type)" }
      let outputs = zip(function.outputNames, function.outputs).map { "\($0): \(function.type(of: $1))" }
      lines.append(
        "  function @\(function.name)(\(inputs.joined(separator: ", "))) -> (\(outputs.joined(separator: ", "))), "
          + "\(function.nodeCount) operators, \(function.states.count) states")
    }
    if !histogram.isEmpty {
      lines.append("  operators: " + histogram.map { "\($0.count) \($0.name)" }.joined(separator: ", "))
    }
    return lines
  }

  /// The facts for a script.
  package var json: JSON {
    func tensor(_ name: String, _ type: TensorType) -> JSON {
      ["name": .string(name), "type": .string(type.description)]
    }
    return [
      "name": .string(name), "stage": .string(stage.rawValue),
      "metadata": .object(JSONObject(metadata.map { ($0.key, JSON.string($0.value)) })),
      "parameters": .int(parameters), "bytes": .int(bytes),
      "types": .array(
        types.map {
          [
            "type": .string($0.type), "tensors": .int($0.tensors), "parameters": .int($0.parameters),
            "bytes": .int($0.bytes),
          ]
        }),
      "operators": .object(JSONObject(histogram.map { ($0.name, JSON.int($0.count)) })),
      "functions": .array(
        functions.map { function in
          [
            "name": .string(function.name), "role": function.role.map { .string($0) } ?? .null,
            "inputs": .array(function.inputs.map { tensor(function[$0].name, function.type(of: $0)) }),
            "states": .array(function.states.map { tensor(function[$0.value].name, function.type(of: $0.value)) }),
            "outputs": .array(zip(function.outputNames, function.outputs).map { tensor($0, function.type(of: $1)) }),
            "nodes": .array(
              function.topologicalOrder().map { id in
                let node = function[id]
                return [
                  "operator": .string(node.op.name),
                  "inputs": .array(node.inputs.map { .string(function[$0].name) }),
                  "results": .array(node.results.map { tensor(function[$0].name, function.type(of: $0)) }),
                  "origin": node.origin.map { .string($0.text) } ?? .null,
                ]
              }),
          ]
        }),
    ]
  }
}
