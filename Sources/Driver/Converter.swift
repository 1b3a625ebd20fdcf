import Base
import Formats
import IR

/// Writes a checkpoint in another form, which the name of the output tells.
package struct Converter {
  /// A form that can be written.
  package enum Form: String, CaseIterable, Sendable {
    case gguf, safetensors, npz, onnx, mir
    /// llama2.c.
    case bin
    /// A Hugging Face folder.
    case folder

    /// The form that a path names.
    init(path: String) throws {
      let name = ArchivePath.name(of: path)
      guard let dot = name.lastIndex(of: "."), dot != name.startIndex, !path.hasSuffix("/") else {
        self = .folder
        return
      }
      let suffix = String(name[name.index(after: dot)...])
      if let form = Form(rawValue: suffix), form != .folder {
        self = form
      } else if Self.unwritten.contains(suffix) {
        throw CompileError(
          .unsupported, "no .\(suffix) files are written",
          notes: ["forms: a folder (Hugging Face), .gguf, .safetensors, .npz, .bin (llama2.c), .onnx and .mir"])
      } else {
        self = .folder
      }
    }

    /// Endings of other formats, which are no names of folders.
    private static let unwritten: Set<String> = ["pt", "pth", "ckpt", "npy", "tflite", "h5", "pb", "json", "zip"]
  }

  package init() {}

  /// Converts `input` to `output`.
  ///
  /// - Returns: sentences about what could not be represented as it was.
  package func convert(_ input: String, to output: String) throws -> [String] {
    let form = try Form(path: output)
    switch form {
    case .onnx:
      var options = LoadOptions()
      options.cacheType = .f32
      let exporter = try ONNXExporter(ModelLoader.load(input, options))
      let notes = exporter.notes
      try exporter.write(to: output)
      return notes
    case .mir:
      let model = try ModelLoader.load(input)
      try AtomicFile.write(try Printer.print(model, relativeTo: ArchivePath.folder(of: output)), to: output)
      return []
    case .gguf, .safetensors, .npz, .bin, .folder:
      let checkpoint = try Checkpoint.read(input)
      switch form {
      case .gguf: try checkpoint.write(gguf: output)
      case .safetensors: try SafetensorsWriter.write(checkpoint, to: output)
      case .npz: try checkpoint.write(npz: output)
      case .bin: try checkpoint.write(llama2C: output)
      default: try checkpoint.write(folder: output)
      }
      return checkpoint.notes
    }
  }
}
