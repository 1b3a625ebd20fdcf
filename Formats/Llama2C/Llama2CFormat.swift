import Base
import IR

/// A checkpoint of llama2.c with its tokenizer.
package enum Llama2CFormat: Format {
  package static let name = "llama2c"
  package static let summary = "llama2.c checkpoint (.bin, versions 0 to 2) with its tokenizer"

  package static func sniff(_ candidate: Candidate) -> Bool { candidate.file.map { Llama2CFile.sniff($0) } ?? false }

  package static func load(_ candidate: Candidate, _ options: LoadOptions) throws -> Model {
    guard let mapped = candidate.file else {
      throw CompileError(.input, "'\(candidate.path)' is a folder, expected a llama2.c checkpoint")
    }
    let file = try Llama2CFile(mapped, limits: options.limits)
    var tensors = CheckpointTensors(place: mapped.path)
    for tensor in file.tensors { try tensors.add(tensor) }
    let config = JSONField(.object(Self.config(of: file)), file: mapped.path)
    var model = try HuggingFaceFormat.network(config, &tensors, name: candidate.modelName, options).model
    model[metadata: "format"] = name

    var generation = GenerationSettings()
    if let path = try tokenizerPath(candidate, file.vocabulary, options) {
      let tokenizer = try Tokenizer(
        llama2c: MappedFile(path: path), vocabulary: file.vocabulary, limits: options.limits)
      generation.beginID = tokenizer.beginID
      generation.endIDs = tokenizer.endIDs
      model.assets.append(NamedAsset(name: "tokenizer", asset: .tokenizer(tokenizer)))
    }
    model.assets.append(NamedAsset(name: "generation", asset: .generation(generation)))
    return model
  }

  /// The tokenizer that the caller named, else `tokN.bin` for N tokens or `tokenizer.bin` beside the checkpoint.
  static func tokenizerPath(_ candidate: Candidate, _ vocabulary: Int, _ options: LoadOptions) throws -> String? {
    if let given = options.tokenizer { return given }
    let folder = try Candidate(path: ArchivePath.folder(of: candidate.path))
    return ["tok\(vocabulary).bin", "tokenizer.bin"].first { folder.contains($0) }.map { "\(folder.path)/\($0)" }
  }

  /// The network in the words of Hugging Face.
  static func config(of file: Llama2CFile) -> JSONObject {
    JSONObject(
      [
        ("architectures", ["LlamaForCausalLM"]), ("model_type", "llama"), ("hidden_size", .integer(Int64(file.width))),
        ("intermediate_size", .integer(Int64(file.feedForward))), ("num_hidden_layers", .integer(Int64(file.layers))),
        ("num_attention_heads", .integer(Int64(file.heads))), ("num_key_value_heads", .integer(Int64(file.kvHeads))),
        ("vocab_size", .integer(Int64(file.vocabulary))), ("max_position_embeddings", .integer(Int64(file.context))),
        ("rms_norm_eps", 1e-5), ("rope_theta", 10000.0), ("hidden_act", "silu"),
        ("tie_word_embeddings", .bool(file.sharesOutput)),
      ] as [(String, JSON)])
  }
}
