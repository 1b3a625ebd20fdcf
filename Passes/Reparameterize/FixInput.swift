import Base
import IR
import Tensors

/// Makes an input a constant, so that what depends on it alone is computed at compile time.
///
///     // fix-input{input=a,values=[0.25,0.75]}
///     func @main (%x: f32[1, 2, 5, 5], %a: f32[2, 1, 1, 1, 1]) -> (y: f32[1, 3, 5, 5]) {
///       %w = reduce(multiply(%kernels, %a)) {function = sum, axes = [0]}
///       %y = conv2d(%x, %w)
///     // -> func @main (%x: f32[1, 2, 5, 5]) -> ... with %a = constant [0.25, 0.75], and %w a recipe
///
/// A convolution whose kernels are mixed by a setting (Maggioni and others, 2023) so becomes a plain one at a chosen setting. One value
/// stands for all elements.
package struct FixInput: Pass {
  package static let name = "fix-input"
  package static let summary = "makes an input a constant: a network at a chosen setting"
  package static let legality =
    "the input has a fixed size and as many elements as there are values, or there is one value"
  package static let source = "Maggioni and others, 2023 (tunable convolutions)"

  /// The name of the input.
  package var input: String = ""
  /// Its elements in row-major order.
  package var values: [Double] = []

  package init() {}

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    let names = model.functions.flatMap { graph in graph.inputs.map { graph[$0].name } }
    guard names.contains(input) else {
      throw CompileError(
        .usage, "'fix-input' finds no input '\(input)', expected one of \(names.joined(separator: ", "))",
        notes: nearest(input, in: names).map { ["did you mean '\($0)'?"] } ?? [])
    }
    for index in model.functions.indices {
      guard let value = model.functions[index].inputs.first(where: { model.functions[index][$0].name == input }) else {
        continue
      }
      let constant = try constant(model.functions[index].type(of: value))
      let id = model.constants.insert(constant)
      let new = model.functions[index].addConstant(id, input, constant.type)
      model.functions[index].replaceUses(of: value, with: new)
      model.functions[index].eraseInput(value)
      model.functions[index].rename(new, to: input)
      context.count("inputs fixed")
    }
  }

  private func constant(_ type: TensorType) throws -> Constant {
    guard let count = type.shape.fixedSizes?.reduce(1, *), type.isDense else {
      throw CompileError(.usage, "the input '\(input)' is \(type), expected a fixed size")
    }
    guard values.count == count || values.count == 1 else {
      throw CompileError(.usage, "'fix-input' has \(values.count) values for '\(input)' of type \(type)")
    }
    guard values.allSatisfy({ type.element.isFloat || $0 == $0.rounded() && abs($0) < 0x1p31 }) else {
      throw CompileError(.usage, "'fix-input' takes whole numbers for '\(input)' of type \(type)")
    }
    if values.count == 1 { return Constant(name: input, type: type, source: .splat(values[0])) }
    var bytes = [UInt8](repeating: 0, count: count * type.element.byteCount)
    bytes.withUnsafeMutableBytes { target in
      values.withUnsafeBytes { convertRow($0, .f64, into: target, type.element) }
    }
    return Constant(name: input, type: type, source: .inline(bytes))
  }
}
