import Base
import CodeGen
import Formats
import IR
import Tensors

/// Whether a narrow type of weights pays on a target: the time of the model's products, measured where it was and
/// estimated elsewhere, against that of the same products with wider types.
package struct NarrowTypeCheck {
  package let generator: CodeGenerator

  package init(_ generator: CodeGenerator) { self.generator = generator }

  /// A wider type must be faster by this factor to count: estimates are not better than that.
  static let margin = 1.05

  /// The types that `spec` is held against: wider weights with the same activations, and the checkpoint's own.
  static func widerTypes(_ spec: QuantizationSpec) -> [QuantizationSpec?] {
    switch spec.weights {
    case .f32, .bf16, .f16: []
    case .bits8, .fp8: [nil]
    default:
      [
        QuantizationSpec(weights: .bits8, group: nil, activationBits: spec.activationBits, cacheType: spec.cacheType),
        nil,
      ]
    }
  }

  /// Refuses the quantization that the options ask for if a wider type is faster.
  ///
  /// - Parameters:
  ///   - model: the model of the stage `transform` that the options give.
  ///   - options: those that gave it.
  /// - Throws: `CompileError` of kind `.unsupported` with both times.
  package func check(_ model: Model, _ options: FrontendOptions) throws {
    guard let spec = options.quantization, options.pipeline == nil, model.stage == .transform else { return }
    let wider = Self.widerTypes(spec)
    if wider.isEmpty { return }
    let products = try products(of: model)
    for type in wider {
      let (own, other) = try seconds(products, with: type)
      guard own > other * Self.margin else { continue }
      let name = type.map { "\($0)" } ?? "the checkpoint's own type"
      throw CompileError(
        .unsupported,
        "\(spec) is slower than \(name) on \(generator.targetName): \(Quantity.seconds(own)) against "
          + "\(Quantity.seconds(other)) for the products of a run on one core",
        notes: ["--force compiles it all the same"])
    }
  }

  /// A product of the model with quantized weights.
  package struct Product: Sendable {
    /// The product alone, as a kernel is asked for it.
    fileprivate var query: KernelQuery
    fileprivate var level: Int
    /// Calls of it in a run, and seconds of one with the types that it has.
    fileprivate var count: Int
    fileprivate var seconds: Double
    /// What the checkpoint's weights are made of.
    fileprivate var element: DType
  }

  /// The products with quantized weights of a model of the stage `transform`: of decoding a token, or of a run of the main
  /// function.
  package func products(of model: Model) throws -> [Product] {
    let entries = try generator.survey(model).entries
    let isLanguageModel = entries.contains { $0.role == "decode" }
    let element = Self.checkpointElement(of: model)
    return entries.compactMap { entry in
      guard !isLanguageModel || entry.role == "decode", let query = Self.product(entry.query),
        let seconds = entry.choices.map(\.cost).min()
      else { return nil }
      return Product(query: query, level: entry.level, count: entry.count, seconds: seconds, element: element)
    }
  }

  /// The seconds that the products take on one core as they are, and with the weights and activations of another
  /// quantization, nil for none. Those that no kernel computes so are left out of both.
  package func seconds(_ products: [Product], with type: QuantizationSpec?) throws -> (own: Double, other: Double) {
    var (own, other) = (0.0, 0.0)
    for product in products {
      let query = Self.query(product, with: type)
      guard let cost = try generator.choices(for: query, level: product.level).map(\.cost).min() else { continue }
      own += product.seconds * Double(product.count)
      other += cost * Double(product.count)
    }
    return (own, other)
  }

  /// The product of a query, without the norm and the rounding before it; nil if it is none with quantized weights.
  private static func product(_ query: KernelQuery) -> KernelQuery? {
    var query = query
    if let chain = query.operation.op as? Chained {
      query.operation = chain.operation
      query.operands.removeLast(min(chain.before.reduce(0) { $0 + $1.operands }, query.operands.count))
    }
    guard query.operation.op is MatMul || query.operation.op is Conv2D, query.operands.count >= 2,
      query.operands[1].isConstant, case .block = query.operands[1].type.encoding
    else { return nil }
    return query
  }

  private static func query(_ product: Product, with type: QuantizationSpec?) -> KernelQuery {
    var query = product.query
    func operand(_ index: Int, _ format: BlockFormat?, else element: DType) -> KernelQuery.Operand {
      let old = query.operands[index]
      guard let format else { return .init(TensorType(element, old.type.shape), isConstant: old.isConstant) }
      return .init(
        TensorType(.f32, old.type.shape, encoding: .block(format)), isConstant: old.isConstant, dequantized: .f32)
    }
    query.operands[0] = operand(0, type?.activationFormat, else: .f32)
    query.operands[1] = operand(1, type?.weightFormat, else: product.element)
    return query
  }

  /// The element type of most numbers that the model quantizes.
  private static func checkpointElement(of model: Model) -> DType {
    var counts: [DType: Double] = [:]
    for graph in model.functions {
      for node in graph.nodeIDs where graph[node].op is Quantize {
        guard let input = graph[node].inputs.first, ConstantEvaluator.isRecipe(input, in: graph) else { continue }
        let type = graph.type(of: input)
        counts[type.element, default: 0] += type.shape.maximumSizes.reduce(1) { $0 * Double($1) }
      }
    }
    return counts.max { ($0.value, $0.key.rawValue) < ($1.value, $1.key.rawValue) }?.key ?? .f32
  }
}
