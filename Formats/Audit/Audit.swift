import Base
import IR

/// Looks through a file or folder without building a model: structure, sizes, and what reaches beyond the data of a model.
///
/// Bytes are looked at in the mapped file; tables are kept as numbers, so that less than 64 MiB are allocated whatever the
/// file says.
package enum Audit {
  /// Limits of the readers that an audit uses.
  static let limits: LoadLimits = {
    var limits = LoadLimits()
    limits.tensors = 1 << 17
    limits.metadataKeys = 1 << 15
    limits.stringBytes = 1 << 20
    limits.configBytes = 1 << 20
    return limits
  }()

  /// The report about a file or folder.
  ///
  /// - Throws: `CompileError` of kind `.input` only if there is nothing that can be read at `path`.
  package static func run(_ path: String) throws -> AuditReport {
    let candidate = try Candidate(path: path)
    guard let file = candidate.file else { return folder(candidate.path) }
    return report(file)
  }

  /// The report about one file.
  static func report(_ file: MappedFile) -> AuditReport {
    var report = AuditReport(path: file.path)
    report.bytes = file.size
    do {
      try look(at: file, &report)
    } catch let error as CompileError {
      report.danger(error)
    } catch {
      report.danger("\(error)")
    }
    file.release()
    return report
  }

  private static func look(at file: MappedFile, _ report: inout AuditReport) throws {
    let bytes = file.bytes
    if bytes.starts(with: "GGUF".utf8) {
      report.format = "gguf"
      try gguf(file, &report)
    } else if SafetensorsFile.sniff(bytes) {
      report.format = "safetensors"
      try safetensors(file, &report)
    } else if bytes.starts(with: [0x50, 0x4B, 3, 4]) || bytes.starts(with: [0x50, 0x4B, 5, 6]) {
      try archive(file, &report)
    } else if bytes.starts(with: NumPyArray.magic) {
      report.format = "npy"
      try array(bytes, file.path, &report)
    } else if let first = bytes.first, first == 0x80, bytes.count > 2, bytes[1] <= 5 {
      report.format = "pickle"
      try pickle(file, &report)
    } else if file.size >= 8, bytes[4..<8].elementsEqual("TFL3".utf8) {
      report.format = "tflite"
      let root = bytes.loadUnaligned(as: UInt32.self).littleEndian
      if Int(root) > file.size - 4 { report.danger("the root table lies outside of the file", at: 0) }
    } else if try ONNXFormat.sniff(Candidate(path: file.path)) {
      report.format = "onnx"
      try onnx(file, &report)
    } else if Llama2CFile.sniff(file) {
      report.format = "llama2c"
      let checkpoint = try Llama2CFile(file, limits: limits)
      report.fact("tensors", checkpoint.tensors.count)
    } else if let first = bytes.first(where: { ![0x20, 0x09, 0x0A, 0x0D].contains($0) }), first == UInt8(ascii: "{") {
      report.format = "json"
      try json(file, &report)
    } else {
      report.danger("this is in no format that mcc reads")
    }
  }

  private static func gguf(_ file: MappedFile, _ report: inout AuditReport) throws {
    let checkpoint = try GGUFFile(file, limits: limits)
    report.fact("tensors", checkpoint.tensors.count)
    report.fact("metadata keys", checkpoint.metadata.keys.count)
    var metadata = checkpoint.metadata
    if let end = checkpoint.tensors.map(\.range.upperBound).max(), file.size - end >= 1 << 20 {
      report.danger("\(file.size - end) bytes after the last tensor", at: end)
    }
    let template = "tokenizer.chat_template"
    if let text = try? metadata.optionalString(template) { Self.template(text, &report) }
  }

  /// Words of a chat template that have nothing to do with text.
  static func template(_ text: String, _ report: inout AuditReport) {
    let words = ["__class__", "__globals__", "__subclasses__", "__builtins__", "__import__", "os.system", "popen"]
    for word in words where text.contains(word) {
      report.danger("the chat template contains '\(word)'")
    }
  }

  private static func json(_ file: MappedFile, _ report: inout AuditReport) throws {
    guard file.size <= limits.configBytes else {
      // Tokenizers are large; only their form is looked at.
      report.notice("JSON of \(file.size) bytes is not looked into")
      return
    }
    let json = try JSON.parse(file.bytes, file: file.path)
    if json["auto_map"] != nil { report.notice("'auto_map' asks for code to be run, which mcc does not do") }
    if let text = json["chat_template"]?.string { template(text, &report) }
    if let map = json["weight_map"]?.object {
      for (tensor, shard) in map {
        let name = shard.string ?? ""
        if !ContainedFile.isPlainName(name) || name.contains("/") {
          report.danger("tensor '\(tensor)' is said to be in '\(name)', which is no plain name of a file in the folder")
        }
      }
    }
  }
}
