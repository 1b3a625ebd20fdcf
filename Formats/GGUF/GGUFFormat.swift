import Base
import IR

/// A GGUF file, versions 2 and 3, with its tokenizer.
///
/// It is read as the checkpoint of Hugging Face that ``GGUFSchema`` makes of it. Weights stay as they lie in the file where
/// the table does not change them; rows of queries and keys in pairs are left so, and neighbours turned.
package enum GGUFFormat: Format {
  package static let name = "gguf"
  package static let summary = "GGUF file (versions 2 and 3), whole or split"

  package static func sniff(_ candidate: Candidate) -> Bool { candidate.bytes.starts(with: "GGUF".utf8) }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    guard let mapped = candidate.file else {
      throw CompileError(.input, "'\(candidate.path)' is a folder, expected a GGUF file")
    }
    var file = try GGUFFile.open(mapped, limits: options.limits)
    let schema = try GGUFSchema(of: &file)
    let config = try schema.config(&file.metadata, file.tensors, limits: options.limits, fitsScaling: false)
    var tensors = CheckpointTensors(place: mapped.path)
    tensors.nameInFile = schema.nameInGGUF
    for tensor in try schema.restored(file.tensors, config, keepsPairs: true) { try tensors.add(tensor) }
    let sentences = try SentenceTransformer(gguf: &file.metadata, of: schema)
    var (model, architecture) = try HuggingFaceFormat.network(
      JSONField(.object(config), file: mapped.path), &tensors, name: candidate.modelName, options,
      sentences: sentences, turnsNeighbours: schema.pairsRows)
    model[metadata: "format"] = name
    model[metadata: "architecture"] = schema.name

    var generation = GenerationSettings()
    if let tokenizer = try Tokenizer(
      gguf: &file.metadata, vocabulary: architecture.vocabulary, limits: options.limits)
    {
      generation.beginID = tokenizer.beginID
      generation.endIDs = tokenizer.endIDs
      model.assets.append(NamedAsset(name: "tokenizer", asset: .tokenizer(tokenizer)))
    }
    // The decoder of a network with an encoder begins with a token of its own.
    if let start = config["decoder_start_token_id"]?.int, (0..<architecture.vocabulary).contains(start) {
      generation.beginID = start
    }
    model.assets.append(NamedAsset(name: "generation", asset: .generation(generation)))
    return model
  }
}
