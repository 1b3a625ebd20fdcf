/// The fixed part of a generated program, as text.
package enum RuntimeSources {
  /// A C file or header, and which programs have it.
  private struct File {
    var name: String
    var bytes: [UInt8]
    var use: Use
  }

  private enum Use {
    case all, languageModel, encoder, network
    /// Programs that read text: language models and encoders.
    case text

    func includes(_ face: GeneratedSources.Face) -> Bool {
      switch self {
      case .all: true
      case .languageModel: face == .languageModel
      case .encoder: face == .encoder
      case .network: face == .network
      case .text: face != .network
      }
    }
  }

  private static let files: [File] = [
    File(name: "bundle.h", bytes: PackageResources.bundle_h, use: .all),
    File(name: "commands.h", bytes: PackageResources.commands_h, use: .all),
    File(name: "cpu.c", bytes: PackageResources.cpu_c, use: .all),
    File(name: "cpu.h", bytes: PackageResources.cpu_h, use: .all),
    File(name: "embed.c", bytes: PackageResources.embed_c, use: .encoder),
    File(name: "encoder.c", bytes: PackageResources.encoder_c, use: .encoder),
    File(name: "encoder.h", bytes: PackageResources.encoder_h, use: .encoder),
    File(name: "encoder_bench.c", bytes: PackageResources.encoder_bench_c, use: .encoder),
    File(name: "failure.c", bytes: PackageResources.failure_c, use: .all),
    File(name: "failure.h", bytes: PackageResources.failure_h, use: .all),
    File(name: "generate.c", bytes: PackageResources.generate_c, use: .languageModel),
    File(name: "generation_settings.c", bytes: PackageResources.generation_settings_c, use: .languageModel),
    File(name: "generation_settings.h", bytes: PackageResources.generation_settings_h, use: .languageModel),
    File(name: "language_model.c", bytes: PackageResources.language_model_c, use: .languageModel),
    File(name: "language_model.h", bytes: PackageResources.language_model_h, use: .languageModel),
    File(name: "language_model_bench.c", bytes: PackageResources.language_model_bench_c, use: .languageModel),
    File(name: "logits.c", bytes: PackageResources.logits_c, use: .languageModel),
    File(name: "main.c", bytes: PackageResources.main_c, use: .all),
    File(name: "mapping.c", bytes: PackageResources.mapping_c, use: .all),
    File(name: "mcc.h", bytes: PackageResources.mcc_h, use: .all),
    File(name: "measure.h", bytes: PackageResources.measure_h, use: .all),
    File(name: "network.c", bytes: PackageResources.network_c, use: .network),
    File(name: "options.c", bytes: PackageResources.options_c, use: .all),
    File(name: "options.h", bytes: PackageResources.options_h, use: .all),
    File(name: "perplexity.c", bytes: PackageResources.perplexity_c, use: .languageModel),
    File(name: "profile.c", bytes: PackageResources.profile_c, use: .all),
    File(name: "profile.h", bytes: PackageResources.profile_h, use: .all),
    File(name: "program.c", bytes: PackageResources.program_c, use: .all),
    File(name: "program.h", bytes: PackageResources.program_h, use: .all),
    File(name: "sampler.c", bytes: PackageResources.sampler_c, use: .languageModel),
    File(name: "sampler.h", bytes: PackageResources.sampler_h, use: .languageModel),
    File(name: "tensor_convert.c", bytes: PackageResources.tensor_convert_c, use: .all),
    File(name: "tensor_file.c", bytes: PackageResources.tensor_file_c, use: .all),
    File(name: "tensor_file.h", bytes: PackageResources.tensor_file_h, use: .all),
    File(name: "tensor_writer.c", bytes: PackageResources.tensor_writer_c, use: .all),
    File(name: "text_stream.c", bytes: PackageResources.text_stream_c, use: .languageModel),
    File(name: "text_stream.h", bytes: PackageResources.text_stream_h, use: .languageModel),
    File(name: "thread_pool.c", bytes: PackageResources.thread_pool_c, use: .all),
    File(name: "thread_pool.h", bytes: PackageResources.thread_pool_h, use: .all),
    File(name: "token_ids.c", bytes: PackageResources.token_ids_c, use: .text),
    File(name: "token_ids.h", bytes: PackageResources.token_ids_h, use: .text),
    File(name: "tokenizer.c", bytes: PackageResources.tokenizer_c, use: .text),
    File(name: "tokenizer.h", bytes: PackageResources.tokenizer_h, use: .text),
    File(name: "tokenizer_charsmap.c", bytes: PackageResources.tokenizer_charsmap_c, use: .text),
    File(name: "tokenizer_decode.c", bytes: PackageResources.tokenizer_decode_c, use: .text),
    File(name: "tokenizer_encode.c", bytes: PackageResources.tokenizer_encode_c, use: .text),
    File(name: "tokenizer_merge.c", bytes: PackageResources.tokenizer_merge_c, use: .text),
    File(name: "tokenizer_normalize.c", bytes: PackageResources.tokenizer_normalize_c, use: .text),
    File(name: "tokenizer_parts.h", bytes: PackageResources.tokenizer_parts_h, use: .text),
    File(name: "tokenizer_pieces.c", bytes: PackageResources.tokenizer_pieces_c, use: .text),
    File(name: "tokenizer_split.c", bytes: PackageResources.tokenizer_split_c, use: .text),
    File(name: "tokenizer_split.h", bytes: PackageResources.tokenizer_split_h, use: .text),
    File(name: "tokens.c", bytes: PackageResources.tokens_c, use: .text),
    File(name: "unicode.c", bytes: PackageResources.unicode_c, use: .text),
    File(name: "unicode.h", bytes: PackageResources.unicode_h, use: .text),
    File(name: "unicode_classes.h", bytes: PackageResources.unicode_classes_h, use: .text),
    File(name: "unicode_forms.h", bytes: PackageResources.unicode_forms_h, use: .text),
    File(name: "unicode_graphemes.h", bytes: PackageResources.unicode_graphemes_h, use: .text),
  ]

  /// How the runtime is compiled: for any CPU of the architecture.
  private static let flags = ["-std=gnu11", "-O2"]

  /// The names of all files, for a check that none in the folder is left out.
  package static var names: [String] { files.map(\.name) }

  /// The files of a program with that face.
  package static func files(of face: GeneratedSources.Face) -> [GeneratedSources.File] {
    files.filter { $0.use.includes(face) }
      .map { .init(name: $0.name, text: String(decoding: $0.bytes, as: UTF8.self), flags: flags) }
  }

  /// The names of all headers among `headers` that `text` includes, directly or through others.
  static func headers(of text: String, among headers: [String: String]) -> [String] {
    var found: [String] = []
    var pending = [text]
    while let text = pending.popLast() {
      for line in text.split(separator: "\n") where line.hasPrefix("#include \"") {
        let name = line.dropFirst("#include \"".count).prefix { $0 != "\"" }
        guard let header = headers[String(name)], !found.contains(String(name)) else { continue }
        found.append(String(name))
        pending.append(header)
      }
    }
    return found.sorted()
  }
}
