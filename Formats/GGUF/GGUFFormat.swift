import Base
import IR

/// A GGUF file, versions 2 and 3, with its tokenizer.
package enum GGUFFormat: Format {
  package static let name = "gguf"
  package static let summary = "GGUF file (versions 2 and 3), whole or split"

  package static func sniff(_ candidate: Candidate) -> Bool { candidate.bytes.starts(with: "GGUF".utf8) }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    guard let mapped = candidate.file else {
      throw CompileError(.input, "'\(candidate.path)' is a folder, expected a GGUF file")
    }
    var file = try GGUFFile.open(mapped, limits: options.limits)
    guard let architecture = try file.metadata.optionalString("general.architecture") else {
      throw file.metadata.failure("missing 'general.architecture', expected a string")
    }
    var tensors = CheckpointTensors(place: mapped.path)
    var model = Model(name: candidate.modelName)
    let vocabulary: Int
    if let known = GGUFArchitecture.all.first(where: { $0.name == architecture }) {
      let config = try known.config(&file.metadata, file.tensors, limits: options.limits)
      for tensor in known.renamed(file.tensors) { try tensors.add(tensor) }
      let network = try HuggingFaceFormat.network(
        JSONField(.object(config), file: mapped.path), &tensors, name: candidate.modelName, options)
      model = network.model
      vocabulary = network.architecture.vocabulary
    } else {
      guard architecture == GGUFLlama.name else {
        let names = [GGUFLlama.name] + GGUFArchitecture.all.map(\.name)
        throw CompileError(
          .unsupported, "unknown architecture '\(architecture)'", subject: .init(file: mapped.path),
          notes: ["known are \(listed(names.map { "'\($0)'" }, "and"))"])
      }
      let network = try GGUFLlama(&file, limits: options.limits)
      for tensor in file.tensors { try tensors.add(tensor) }
      try network.build(&tensors, into: &model, options: options)
      try tensors.requireAllTaken()
      vocabulary = network.decoder.vocabulary
    }
    model[metadata: "format"] = name
    model[metadata: "architecture"] = architecture

    var generation = GenerationSettings()
    if let tokenizer = try Tokenizer(
      gguf: &file.metadata, vocabulary: vocabulary, limits: options.limits)
    {
      generation.beginID = tokenizer.beginID
      generation.endIDs = tokenizer.endIDs
      model.assets.append(NamedAsset(name: "tokenizer", asset: .tokenizer(tokenizer)))
    }
    model.assets.append(NamedAsset(name: "generation", asset: .generation(generation)))
    return model
  }
}
