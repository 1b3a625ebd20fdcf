import IR

/// Writes the defaults of a language model's command line: `Runtime/generation_settings.h` is the specification.
package enum SettingsSection {
  /// The section, one `key value` per line; empty without settings.
  package static func encode(_ settings: GenerationSettings?, _ tokenizer: Tokenizer?) -> [UInt8] {
    var lines: [String] = []
    if let settings {
      lines.append("temperature \(settings.samples ? settings.temperature : 0)")
      lines.append("top_p \(settings.topP)")
      lines.append("top_k \(settings.topK)")
      lines.append("repeat_penalty \(settings.repeatPenalty)")
    }
    if let id = settings?.beginID ?? tokenizer?.beginID { lines.append("bos \(id)") }
    let ends = settings.flatMap { $0.endIDs.isEmpty ? nil : $0.endIDs } ?? tokenizer?.endIDs ?? []
    lines += ends.prefix(16).map { "eos \($0)" }
    return lines.isEmpty ? [] : Array((lines.joined(separator: "\n") + "\n").utf8)
  }

  /// The id that texts begin with, from a section; nil if it names none.
  package static func beginID(of section: UnsafeRawBufferPointer) -> Int32? {
    for line in String(decoding: section, as: UTF8.self).split(separator: "\n") where line.hasPrefix("bos ") {
      return Int32(line.dropFirst(4))
    }
    return nil
  }
}
