import Base
import Tensors

extension Operator {
  /// Throws unless input `index` is dense.
  func expectDense(_ input: TensorType, _ role: String) throws {
    guard input.isDense else { throw failure("found \(role) of type \(input), expected a dense tensor") }
  }

  /// Throws unless the input is dense with floating-point elements.
  func expectFloat(_ input: TensorType, _ role: String) throws {
    try expectDense(input, role)
    guard input.element.isFloat else {
      throw failure("found \(role) of element type \(input.element.rawValue), expected a floating-point type")
    }
  }

  /// Throws unless the input is quantized in blocks.
  func expectBlocks(_ input: TensorType, _ role: String) throws {
    guard case .block = input.encoding else {
      throw failure("found \(role) of type \(input), expected a dense or block-quantized tensor")
    }
  }

  /// Throws unless the input has a rank in `range`.
  func expectRank(_ input: TensorType, _ range: ClosedRange<Int>, _ role: String) throws {
    guard range.contains(input.rank) else {
      let wanted = range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound) to \(range.upperBound)"
      throw failure("found \(role) of shape \(input.shape), which has rank \(input.rank), expected rank \(wanted)")
    }
  }

  /// Throws unless the input has the given shape.
  func expectShape(_ input: TensorType, _ shape: Shape, _ role: String) throws {
    guard input.shape == shape else { throw failure("found \(role) of shape \(input.shape), expected \(shape)") }
  }

  /// Throws unless the input is one integer: the number of rows that came before, `i32[1]` or `i64[1]`.
  func expectPosition(_ input: TensorType, _ role: String = "position") throws {
    try expectDense(input, role)
    guard input.element == .i32 || input.element == .i64, input.shape == [1] else {
      throw failure("found \(role) of type \(input), expected i32[1]")
    }
  }

  /// The axis counted from the front; throws if it lies outside of the shape.
  func axisIndex(_ axis: Int, of shape: Shape) throws -> Int {
    guard let index = shape.normalizedAxis(axis) else {
      throw failure("axis \(axis) lies outside of shape \(shape) of rank \(shape.rank)")
    }
    return index
  }

  /// The size as a number; throws if it is symbolic.
  func expectFixed(_ dim: Dim, _ role: String) throws -> Int {
    guard let value = dim.fixedValue else { throw failure("found \(role) '\(dim)', expected a number") }
    return value
  }

  /// Throws unless a list attribute has `count` entries of at least `minimum`.
  func expectList(_ values: [Int], count: Int, minimum: Int, _ attribute: String) throws {
    guard values.count == count, values.allSatisfy({ $0 >= minimum && $0 <= 1 << 31 }) else {
      throw failure("attribute '\(attribute)' is \(values), expected \(count) numbers of at least \(minimum)")
    }
  }
}
