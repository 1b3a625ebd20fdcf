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
    switch (S.self, view.type.element) {
    case (is Float.Type, .f32), (is Double.Type, .f64), (is Int64.Type, .i64):
      return view.count == 0 ? nil : view.bytes.bindMemory(to: S.self).baseAddress.map { UnsafePointer($0) }
    default: return nil
    }
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
    let direct: UnsafeMutablePointer<S>?
    switch (S.self, view.type.element) {
    case (is Float.Type, .f32), (is Double.Type, .f64), (is Int64.Type, .i64):
      direct = view.bytes.bindMemory(to: S.self).baseAddress
    default: direct = nil
    }
    owned = direct == nil
    data = direct ?? .allocate(capacity: max(count, 1))
  }

  deinit { if owned { data.deallocate() } }

  /// Converts the numbers to the element type of the result, where that is another.
  func store() { if owned { storeNumbers(UnsafePointer(data), count: count, into: view) } }
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

/// Writes the numbers `range` of a dense tensor to `target`.
func loadNumbers<S: Computable>(_ view: TensorView, _ range: Range<Int>, into target: UnsafeMutablePointer<S>) {
  func each<T>(_ type: T.Type, _ convert: (T) -> S) {
    let source = view.elements(as: T.self)
    for i in range { target[i - range.lowerBound] = convert(source[i]) }
  }
  switch view.type.element {
  case .f64: each(Double.self) { S(rounding: $0) }
  case .f32: each(Float.self) { S(rounding: $0) }
  case .f16: each(Float16.self) { S(rounding: Float($0)) }
  case .bf16: each(UInt16.self) { S(rounding: Float(bitPattern: UInt32($0) << 16)) }
  case .f8e4m3, .f8e5m2: preconditionFailure("not there")
  case .i64: each(Int64.self) { S(whole: $0) }
  case .i32: each(Int32.self) { S(whole: Int64($0)) }
  case .i16: each(Int16.self) { S(whole: Int64($0)) }
  case .i8: each(Int8.self) { S(whole: Int64($0)) }
  case .u8: each(UInt8.self) { S(whole: Int64($0)) }
  case .bool: each(UInt8.self) { S(whole: $0 == 0 ? 0 : 1) }
  }
}

/// Converts `count` numbers to the element type of a dense tensor and writes them there.
func storeNumbers<S: Computable>(_ source: UnsafePointer<S>, count: Int, into view: MutableTensorView) {
  func each<T>(_ type: T.Type, _ convert: (S) -> T) {
    let target = view.elements(as: T.self)
    for i in 0..<count { target[i] = convert(source[i]) }
  }
  func whole<T: FixedWidthInteger>(_ type: T.Type) {
    if S.wraps {
      each(type) { T(truncatingIfNeeded: $0.whole) }
    } else {
      each(type) { T(clamping: $0.whole) }
    }
  }
  switch view.type.element {
  case .f64: each(Double.self) { $0.double }
  case .f32: each(Float.self) { $0.float }
  case .f16: each(Float16.self) { Float16($0.float) }
  case .bf16:
    each(UInt16.self) { value in
      let bits = value.float.bitPattern
      if bits & 0x7fff_ffff > 0x7f80_0000 { return UInt16(bits >> 16) | 0x40 }
      return UInt16((bits + 0x7fff + (bits >> 16 & 1)) >> 16)
    }
  case .f8e4m3, .f8e5m2: preconditionFailure("not there")
  case .i64: whole(Int64.self)
  case .i32: whole(Int32.self)
  case .i16: whole(Int16.self)
  case .i8: whole(Int8.self)
  case .u8: whole(UInt8.self)
  case .bool: each(UInt8.self) { $0 == S.zero ? 0 : 1 }
  }
}
