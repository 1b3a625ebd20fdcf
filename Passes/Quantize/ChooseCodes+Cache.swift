import Base
import IR
import Tensors

extension ChooseCodes {
  /// The pass with the options that the codes follow from beside the samples.
  var withoutText: ChooseCodes {
    var copy = self
    copy.text = ""
    copy.samples = nil
    copy.length = nil
    return copy
  }

  /// The codes of layers, to be kept.
  static func result(_ found: (layers: [CodeChoice.Layer], file: MappedFile)) -> CachedResult {
    let layers = found.layers.map { layer -> JSON in
      var entry: JSONObject = JSONObject([
        ("function", .string(layer.function)), ("codes", .string(layer.codesName)), ("name", .string(layer.name)),
        ("format", .string(layer.format.name)), ("start", .int(layer.range.lowerBound)),
        ("end", .int(layer.range.upperBound)), ("error", bits(layer.relativeError)), ("damping", bits(layer.damping)),
      ])
      if let bias = layer.bias {
        entry["bias"] = .string(bias.name)
        entry["bias_start"] = .int(bias.range.lowerBound)
        entry["bias_end"] = .int(bias.range.upperBound)
      }
      return .object(entry)
    }
    return CachedResult(facts: ["layers": .array(layers)], data: found.file.bytes, owner: found.file)
  }

  /// The codes of layers that were chosen before, in a file of their own; nil if there are none that fit the model.
  func kept(
    _ key: String, _ model: Model, _ context: PassContext
  ) throws -> (layers: [CodeChoice.Layer], file: MappedFile)? {
    guard let result = context.results?.find(key), let entries = result.facts["layers"]?.array, !entries.isEmpty else {
      return nil
    }
    var layers: [CodeChoice.Layer] = []
    for entry in entries {
      guard let layer = Self.layer(entry, model), let bytes = Self.byteCount(layer, model), layer.range.count == bytes,
        layer.range.upperBound <= result.data.count,
        layer.bias.map({ Self.fits($0, layer.function, model, result.data.count) }) ?? true
      else { return nil }
      layers.append(layer)
    }
    let spill = try SpillFile(path: context.spillPath, name: "\(model.name).codes")
    for index in layers.indices {
      if let bias = layers[index].bias {
        layers[index].bias?.range = try spill.add(UnsafeRawBufferPointer(rebasing: result.data[bias.range]))
      }
      layers[index].range = try spill.add(UnsafeRawBufferPointer(rebasing: result.data[layers[index].range]))
    }
    return (layers, try spill.finish())
  }

  private static func layer(_ entry: JSON, _ model: Model) -> CodeChoice.Layer? {
    guard let function = entry["function"]?.string, let codes = entry["codes"]?.string,
      let name = entry["name"]?.string, let start = entry["start"]?.int, let end = entry["end"]?.int, start >= 0,
      end >= start, let error = number(entry["error"]), let damping = number(entry["damping"]),
      let graph = model.functions.first(where: { $0.name == function }), let value = graph.value(named: codes),
      let format = entry["format"]?.string.flatMap({ BlockFormat(name: $0) })
    else { return nil }
    var bias: CodeChoice.Term?
    if let name = entry["bias"]?.string {
      guard let start = entry["bias_start"]?.int, let end = entry["bias_end"]?.int, start >= 0, end >= start else {
        return nil
      }
      bias = CodeChoice.Term(name: name, range: start..<end)
    }
    return CodeChoice.Layer(
      identity: RecipeIdentity(value, in: graph), function: function, name: name, codesName: codes, format: format,
      range: start..<end, bias: bias, relativeError: error, damping: damping)
  }

  private static func fits(_ term: CodeChoice.Term, _ function: String, _ model: Model, _ size: Int) -> Bool {
    guard let graph = model.functions.first(where: { $0.name == function }), let value = graph.value(named: term.name),
      RecipeIdentity(value, in: graph) != nil
    else { return false }
    return graph.type(of: value).byteCount == term.range.count && term.range.upperBound <= size
  }

  private static func byteCount(_ layer: CodeChoice.Layer, _ model: Model) -> Int? {
    guard let graph = model.functions.first(where: { $0.name == layer.function }),
      let value = graph.value(named: layer.codesName),
      let op = graph.definingNode(of: value).flatMap({ graph[$0].op as? Quantize }),
      (op.format.bits, op.format.group) == (layer.format.bits, layer.format.group)
    else { return nil }
    var type = graph.type(of: value)
    type.encoding = .block(layer.format)
    return type.byteCount
  }

  /// A number by its bits, of which none gets lost in text.
  private static func bits(_ value: Double) -> JSON { .string("\(value.bitPattern)") }

  private static func number(_ json: JSON?) -> Double? {
    json?.string.flatMap { UInt64($0) }.map { Double(bitPattern: $0) }
  }
}
