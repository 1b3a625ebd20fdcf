import Base
import Formats
import IR
import Tensors

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

    /// Checks that an output of this form can be written, before the work for it begins.
    ///
    /// - Throws: `CompileError` of kind `.create` if not.
    func check(_ path: String) throws {
      if self == .folder {
        try OutputPath.check(folder: path, makesParents: false)
      } else {
        try OutputPath.check(file: path)
      }
    }

    /// Endings of other formats, which are no names of folders.
    private static let unwritten: Set<String> = ["pt", "pth", "ckpt", "npy", "tflite", "h5", "pb", "json", "zip"]
  }

  /// How linear layers are quantized; nil for as they are.
  package var quantization: QuantizationSpec?

  package init(quantization: QuantizationSpec? = nil) { self.quantization = quantization }

  /// Converts `input` to `output`.
  ///
  /// - Returns: sentences about what could not be represented as it was.
  package func convert(_ input: String, to output: String) throws -> [String] {
    let form = try Form(path: output)
    guard quantization == nil || form == .gguf || form == .folder else {
      throw CompileError(.usage, "--quantize is for .gguf files and folders")
    }
    try form.check(output)
    switch form {
    case .onnx:
      var options = LoadOptions()
      options.cacheType = .f32
      var notes: [String] = []
      for (part, exporter) in try ONNXExporter.graphs(of: ModelLoader.load(input, options)) {
        let path = part.map { String(output.dropLast(".onnx".count)) + ".\($0).onnx" } ?? output
        if let part { notes.append("the \(part) is written to '\(path)'") }
        notes += exporter.notes.filter { !notes.contains($0) }
        try exporter.write(to: path)
      }
      return notes
    case .mir:
      let model = try ModelLoader.load(input)
      try AtomicFile.write(try Printer.print(model, relativeTo: ArchivePath.folder(of: output)), to: output)
      return []
    case .gguf, .safetensors, .npz, .bin, .folder:
      var checkpoint = try Checkpoint.read(input)
      if quantization != nil { checkpoint.quantization = try formats(checkpoint, tables: form == .gguf) }
      try Self.write(&checkpoint, as: form, to: output)
      return checkpoint.notes
    }
  }

  /// Writes a checkpoint in a form that is one of checkpoints, and notes what the form cannot hold.
  static func write(_ checkpoint: inout Checkpoint, as form: Form, to output: String) throws {
    var notes: [String] = []
    switch form {
    case .gguf: notes = try checkpoint.write(gguf: output)
    case .bin: notes = try checkpoint.write(llama2C: output)
    case .folder: notes = try checkpoint.write(folder: output)
    case .safetensors: try SafetensorsWriter.write(checkpoint, to: output)
    case .npz: try checkpoint.write(npz: output)
    case .onnx, .mir: throw CompileError(.internal, "a checkpoint is not written as .\(form.rawValue)")
    }
    if form == .safetensors || form == .npz, checkpoint.text != nil {
      notes.append("the tokenizer is not written to .\(form.rawValue) files")
    }
    checkpoint.notes += notes
  }

  /// The formats that the quantization passes give to the constants of a model; of tables that are looked up in only with
  /// `tables`.
  private func formats(_ checkpoint: Checkpoint, tables: Bool) throws -> [String: BlockFormat] {
    var options = FrontendOptions()
    options.quantization = quantization
    var frontend = Frontend(options)
    let model = try frontend.run(checkpoint.network(options.load))
    var formats: [String: BlockFormat] = [:]
    for graph in model.functions {
      for node in graph.nodeIDs {
        guard let quantize = graph[node].op as? Quantize,
          ConstantEvaluator.isRecipe(graph[node].results[0], in: graph),
          tables || !Self.isTable(graph[node].results[0], in: graph)
        else { continue }
        var stack = graph[node].inputs
        while let value = stack.popLast() {
          if let id = graph.constant(of: value) { formats[model.constants[id].name] = quantize.format }
          if let producer = graph.definingNode(of: value) { stack += graph[producer].inputs }
        }
      }
    }
    return formats
  }

  /// Whether rows of a value, widened perhaps, are looked up.
  private static func isTable(_ value: ValueID, in graph: Graph) -> Bool {
    graph.users(of: value).contains { user in
      graph[user].op is Gather || (graph[user].op is Dequantize && isTable(graph[user].results[0], in: graph))
    }
  }
}
