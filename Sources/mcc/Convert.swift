import ArgumentParser
import Base
import Driver
import Formats
import IR

/// `mcc convert`: a checkpoint in another form.
struct Convert: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes a checkpoint in another form.",
    discussion: """
      The form follows from the name of the output: .gguf, .safetensors, .npz, .bin (llama2.c), .onnx, .mir, or a folder \
      (Hugging Face).
      """)

  @Argument(help: "A checkpoint.")
  var input: String

  @Argument(help: "The file or folder to write.")
  var output: String

  @Option(help: "Quantizes the linear layers (w8g32, w4g64, ...), for .gguf files and folders.")
  var quantize: String?

  @Flag(name: .shortAndLong, help: "Prints nothing.")
  var quiet = false

  func run() async throws {
    let converter = Converter(quantization: try quantize.map { try QuantizationSpec(parsing: $0) })
    let notes = try converter.convert(input, to: output)
    if quiet { return }
    for line in notes { Standard.error("note: \(line)") }
  }
}
