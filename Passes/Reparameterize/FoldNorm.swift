import Base
import IR
import Tensors

/// Folds gain, bias and centring of norms into the layers around them, so that a plain RMS norm is left.
///
///     %n = layer_norm(%x, %g, %b)                       // all users are layers
///     %y = matmul(%n, %w) {transposeB = true}
///     // -> %n = layer_norm(%x, 1)
///     //    %y = matmul(%n, multiply(%w, %g), reduce(multiply(%w, %b))) {transposeB = true, epilogue = {bias = true}}
///
///     %x = add(%e, matmul(%h, %v))                      // read by layer norms alone, %e the rows of a table
///     %n = layer_norm(%x, 1)
///     // -> %x = add(%e', matmul(%h, %v less the mean of each column)), %e' of rows less their mean
///     //    %n = rms_norm(%x, 1)
///
/// The mean is taken out of all that is added to a stream, where every reader of the stream is a layer norm, which does not
/// see the mean; without a mean a layer norm is an RMS norm (Ashkboos and others, 2024, section 3.2). A gain stays where the
/// weights behind are stored in fewer bits than f32, as folding would round or widen them; `force` does it nevertheless. No
/// preset has this pass, since a norm costs the same with its gain: it prepares rotations and quantization.
package struct FoldNorm: Pass {
  package static let name = "fold-norm"
  package static let summary = "folds gain, bias and centring of norms into the layers around them"
  package static let legality =
    "all users of a norm are layers with f32 weights used once; for centring, all that is added to the stream is a layer, a table or a constant, and all readers are layer norms"
  package static let source = "Ashkboos and others, 2024 (SliceGPT), section 3.2; Heimersheim, 2024"

  /// Whether weights in f16, bf16 and codes are widened to f32 for it.
  package var force: Bool = false

  package init() {}

  package var fidelity: Fidelity { .exact }

  /// The rules for gains and biases.
  package var rules: [RewriteRule] {
    [exposeGain(RMSNorm.self, force: force), exposeGain(LayerNorm.self, force: force)]
      + foldIntoNextLayer(force: force)
  }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices { try run(function: index, of: &model, &context) }
  }

  /// The same in one function.
  func run(function index: Int, of model: inout Model, _ context: inout PassContext) throws {
    try RewriteDriver(rules).run(function: index, of: &model, &context)
    let stream = NormalizedStream(in: model.functions[index], force: force, context)
    guard !stream.readers.isEmpty else { return }
    // Writers first: a layer norm gives the same for any of them, so that every step is right by itself.
    try RewriteDriver(stream.writerRules).run(function: index, of: &model, &context)
    try RewriteDriver([stream.readerRule]).run(function: index, of: &model, &context)
  }
}

/// rms_norm(x, g) -> multiply(rms_norm(x, 1), g), and layer_norm(x, g, b) -> add(multiply(layer_norm(x, 1), g), b), where all
/// users are layers that take factor and term into their weights
private func exposeGain<Op: Operator>(_ type: Op.Type, force: Bool) -> RewriteRule {
  RewriteRule("expose-gain-of-\(Op.name.kebabCase)", on: type, .shared) { op, node, rewriter in
    let inputs = rewriter.inputs(of: node)
    let (result, rank) = (rewriter[node].results[0], rewriter.type(of: node).rank)
    guard rewriter.type(of: node).element == .f32, rewriter.type(of: inputs[1]).rank == 1,
      inputs.dropFirst().allSatisfy({ rewriter.isRecipe($0) })
    else { return nil }
    let hasGain = rewriter.number(inputs[1]) != 1
    let bias = inputs.count > 2 ? inputs[2] : nil
    let hasBias = bias.map { rewriter.number($0) != 0 } ?? false
    guard hasGain || bias != nil else { return nil }
    if hasGain || hasBias {
      let reason = rewriter.obstacle(
        toFoldingInto: result, axis: rank - 1, terms: hasBias, changesWeight: hasGain, force: force)
      if let reason { return rewriter.refuse(reason) }
    }
    let count = rewriter.type(of: inputs[1]).shape.dims
    let one = rewriter.constant(1, TensorType(.f32, Shape(count)))
    var value = try rewriter.emit(op, inputs[0], one)
    if hasGain { value = try rewriter.emit(Multiply(), value, rewriter.widened(inputs[1])) }
    if hasBias, let bias { value = try rewriter.emit(Add(), value, rewriter.widened(bias)) }
    return value
  }
}
