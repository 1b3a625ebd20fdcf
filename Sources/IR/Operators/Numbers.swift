import Base
import Tensors

/// The numbers of an input, in row-major order, as the type that an operator computes in.
///
/// Where the tensor holds that very type its own bytes are used, else a copy is made at first use, and lives as long
/// as this object.
final class Numbers<S: Computable> {
  let view: TensorView
  var sizes: [Int] { view.sizes }
  let count: Int
  private var copy: UnsafeMutablePointer<S>?

  init(_ view: TensorView) {
    self.view = view
    count = view.count
  }

  deinit { copy?.deallocate() }

  /// All numbers.
  var data: UnsafePointer<S> { prefix(count) }

  /// The first numbers, at least `limit` of them; of one object every call after the first must ask for no more.
  func prefix(_ limit: Int) -> UnsafePointer<S> {
    if let own = Self.direct(view) { return own }
    if let copy { return UnsafePointer(copy) }
    let copy = UnsafeMutablePointer<S>.allocate(capacity: max(limit, 1))
    loadNumbers(view, 0..<limit, into: copy)
    self.copy = copy
    return UnsafePointer(copy)
  }

  /// The tensor's own bytes, where they are numbers of this type.
  private static func direct(_ view: TensorView) -> UnsafePointer<S>? {
    guard view.type.element == S.dtype, view.type.isDense else { return nil }
    return view.elements(as: S.self).baseAddress
  }
}

/// The place for the numbers of a result, in row-major order, in the type that an operator computes in.
final class Results<S: Computable> {
  let view: MutableTensorView
  var sizes: [Int] { view.sizes }
  let count: Int
  let data: UnsafeMutablePointer<S>
  private let owned: Bool

  init(_ view: MutableTensorView) {
    self.view = view
    count = view.count
    let direct = view.type.element == S.dtype ? view.elements(as: S.self).baseAddress : nil
    owned = direct == nil
    data = direct ?? .allocate(capacity: max(count, 1))
  }

  deinit { if owned { data.deallocate() } }

  /// Converts the numbers to the element type of the result, where that is another.
  func store() { if owned { storeNumbers(data, count: count, into: view) } }
}

/// Memory for intermediate numbers, freed with the object.
final class Scratch<S: Computable>: @unchecked Sendable {
  let data: UnsafeMutablePointer<S>

  init(_ count: Int) { data = .allocate(capacity: max(count, 1)) }

  deinit { data.deallocate() }
}

/// An operator on floating-point numbers, written once for Float and Double.
protocol NumericOperator: Operator {
  /// Computes the results of inputs with known sizes that `inferTypes` accepts.
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws
}

extension NumericOperator {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    if inputs.contains(where: { $0.type.element == .f64 }) || outputs.contains(where: { $0.type.element == .f64 }) {
      try evaluate(in: Double.self, inputs, outputs)
    } else {
      try evaluate(in: Float.self, inputs, outputs)
    }
  }

  private func evaluate<R: Real>(in type: R.Type, _ inputs: [TensorView], _ outputs: [MutableTensorView]) throws {
    let numbers = inputs.map { Numbers<R>($0) }
    let results = outputs.map { Results<R>($0) }
    try withExtendedLifetime((numbers, results)) { try compute(numbers, into: results) }
    for result in results { result.store() }
  }
}

extension Operator {
  /// The first of the whole numbers of an input, such as a position.
  func integer(_ view: TensorView) -> Int {
    switch view.type.element {
    case .i64: Int(view.elements(as: Int64.self).first ?? 0)
    case .i32: Int(view.elements(as: Int32.self).first ?? 0)
    default: preconditionFailure("an integer of type \(view.type)")
    }
  }
}

/// Writes the numbers `range` of a tensor to `target`; of a quantized one whole rows.
func loadNumbers<S: Computable>(_ view: TensorView, _ range: Range<Int>, into target: UnsafeMutablePointer<S>) {
  if case .block(let format) = view.type.encoding {
    loadBlocks(view, format, range, into: target)
    return
  }
  let size = view.type.element.byteCount
  let source = UnsafeRawBufferPointer(rebasing: view.bytes[(range.lowerBound * size)..<(range.upperBound * size)])
  parallelConvert(
    source, view.type.element,
    into: UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(start: target, count: range.count)),
    S.dtype, count: range.count)
}

private func loadBlocks<S: Computable>(
  _ view: TensorView, _ format: BlockFormat, _ range: Range<Int>, into target: UnsafeMutablePointer<S>
) {
  let columns = view.sizes.last ?? 1
  precondition(range.lowerBound % columns == 0 && range.upperBound % columns == 0, "quantized rows are read whole")
  let rowBytes = format.rowBytes(columns: columns)
  let rows = UnsafeRawBufferPointer(
    rebasing: view.bytes[(range.lowerBound / columns * rowBytes)..<(range.upperBound / columns * rowBytes)])
  let numbers = Scratch<Float>(range.count)
  withExtendedLifetime(numbers) {
    let values = UnsafeMutableBufferPointer(start: numbers.data, count: range.count)
    format.dequantize(rows, columns: columns, into: values)
    parallelConvert(
      UnsafeRawBufferPointer(values), .f32,
      into: UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(start: target, count: range.count)), S.dtype,
      count: range.count)
  }
}

/// Converts `count` numbers to the element type of a dense tensor and writes them there.
func storeNumbers<S: Computable>(_ source: UnsafePointer<S>, count: Int, into view: MutableTensorView) {
  parallelConvert(
    UnsafeRawBufferPointer(UnsafeBufferPointer(start: source, count: count)), S.dtype, into: view.bytes,
    view.type.element, count: count)
}

/// Converts numbers on all threads.
func parallelConvert(
  _ source: UnsafeRawBufferPointer, _ from: DType, into target: UnsafeMutableRawBufferPointer, _ to: DType, count: Int
) {
  // Raw pointers are not Sendable; the ranges do not overlap.
  nonisolated(unsafe) let (source, target) = (source, target)
  parallelFor(count, grain: 1 << 18) { range in
    convertRow(
      UnsafeRawBufferPointer(
        rebasing: source[(range.lowerBound * from.byteCount)..<(range.upperBound * from.byteCount)]),
      from,
      into: UnsafeMutableRawBufferPointer(
        rebasing: target[(range.lowerBound * to.byteCount)..<(range.upperBound * to.byteCount)]), to)
  }
}
