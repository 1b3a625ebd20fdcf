import IR

/// The way from exact sums to results of a convolution on bytes, as ``QuantizedConv2D`` says it. What a kernel is made for is
/// the form of that way; the numbers lie beside the weights (``QuantizedConvLayout``), so that layers of one shape share a
/// kernel.
struct Requantization: Hashable, Codable, Sendable {
  var epilogue: Epilogue
  /// Whether the result and the residual are codes.
  var givesCodes: Bool
  var addsCodes: Bool
  /// Whether codes of the result have a zero point other than 0.
  var shifts: Bool
  /// Whether the activation is a cut of the codes.
  var cuts: Bool

  init(_ op: QuantizedConv2D) {
    epilogue = op.epilogue
    givesCodes = op.output != nil
    addsCodes = op.other != nil && op.epilogue.residual != .none
    shifts = op.output.map { $0.zeroPoint != 0 } ?? false
    cuts = op.requantization != nil
  }

  /// Element types of residual and result.
  var residualType: ScalarType { addsCodes ? .u8 : .f32 }
  var resultType: ScalarType { givesCodes ? .u8 : .f32 }

  /// The words of a kernel's name.
  var words: [String] { epilogue.words + [givesCodes ? "u8" : "f32"] }

  /// The numbers of the layer that its results need, beside those of its channels.
  private var needed: [RequantizationNumbers.Name] {
    var names: [RequantizationNumbers.Name] = givesCodes ? [.low, .high] : []
    if cuts, epilogue.bias { names.append(.bias) }
    if epilogue.residual != .none, cuts || addsCodes { names.append(.residual) }
    if givesCodes, !cuts { names.append(.step) }
    if addsCodes { names.append(.otherZero) }
    if shifts { names.append(.zero) }
    return names
  }

  /// What all pixels of one vector of channels share: factors of the sums, the bias, and the numbers of the layer. They are
  /// read before results are stored, which for all that a C compiler knows changes them.
  struct Channels {
    let factor: Expression
    let bias: Expression?
    fileprivate let numbers: [RequantizationNumbers.Name: Expression]

    subscript(name: RequantizationNumbers.Name) -> Expression {
      guard let number = numbers[name] else { preconditionFailure("the results need no \(name)") }
      return number
    }
  }

  /// Prepares a vector of channels from the factors of their sums, their biases, and the numbers of the layer from `numbers`
  /// on, as ``RequantizationNumbers`` has them.
  func channels(
    _ factor: Expression, bias: Expression?, _ numbers: @autoclosure () -> Pointer, in k: KernelBuilder
  ) -> Channels {
    var values: [RequantizationNumbers.Name: Expression] = [:]
    let needed = self.needed
    if !needed.isEmpty {
      let reals = numbers()
      let integers = needed.contains(where: \.isInteger) ? k.pointer("integers", reals, offset: 0, as: .i32) : reals
      for name in needed {
        let value = (name.isInteger ? integers : reals)[.integer(name.rawValue)]
        values[name] = k.define("\(name)", .broadcast(value))
      }
    }
    let scale = values[.bias]
    let bias = bias.map { bias in k.define("b", scale.map { bias * $0 } ?? bias) }
    return Channels(factor: k.define("factor", factor), bias: bias, numbers: values)
  }

  /// The result of one vector of sums: i32 codes in 0...255, or f32 numbers. `residual` is as it was loaded.
  func result(_ sum: Expression, _ channels: Channels, residual: Expression?, in k: KernelBuilder) -> Expression {
    var value = k.define(
      "v",
      channels.bias.map { Expression.multiplyAdd(sum.asFloat, channels.factor, $0) } ?? sum.asFloat * channels.factor)
    func add() {
      guard let residual else { return }
      if addsCodes {
        value = k.define("r", .multiplyAdd((residual - channels[.otherZero]).asFloat, channels[.residual], value))
      } else {
        value = k.define("r", cuts ? .multiplyAdd(residual, channels[.residual], value) : value + residual)
      }
    }
    if cuts {
      add()
    } else {
      if epilogue.residual == .beforeActivation { add() }
      value = k.define("a", epilogue.activation.function.render([value], in: k))
      if epilogue.residual == .afterActivation { add() }
      guard givesCodes else { return value }
      value = value * channels[.step]
    }
    let steps = Expression.minimum(.maximum(value, channels[.low]), channels[.high]).asInt32
    return shifts ? steps + channels[.zero] : steps
  }
}

/// The numbers of one layer that its ``Requantization`` needs, beside those of each channel: f32 and i32, in the order of
/// `Name`.
struct RequantizationNumbers: Hashable, Sendable {
  /// What the numbers are for.
  enum Name: Int, CaseIterable {
    /// The factors of bias, residual and, before it is rounded, of the result.
    case bias, residual, step
    /// The limits of the result before its zero point is added.
    case low, high
    /// The zero points of residual and result.
    case otherZero, zero

    var isInteger: Bool { self == .otherZero || self == .zero }
  }

  /// The factor of the scales of the weights, and the zero point of the input.
  let scale: Float
  let inputZero: Int
  private let reals: [Float]
  private let integers: [Int]

  init(_ op: QuantizedConv2D) {
    inputZero = op.input.zeroPoint
    integers = [op.other?.zeroPoint ?? 0, op.output?.zeroPoint ?? 0]
    if let plan = op.requantization {
      scale = plan.sum
      reals = [plan.bias, plan.residual, 1, plan.low, plan.high]
    } else {
      let zero = Float(op.output?.zeroPoint ?? 0)
      scale = op.input.scale
      reals = [1, op.other?.scale ?? 1, 1 / (op.output?.scale ?? 1), -zero, 255 - zero]
    }
  }

  /// The numbers as those of a layout: f32 by their bits.
  var parameters: [Int] { [Int(scale.bitPattern), inputZero] + reals.map { Int($0.bitPattern) } + integers }

  /// The numbers that `parameters` gives.
  init?(parameters: some RandomAccessCollection<Int>) {
    let numbers = Array(parameters)
    guard numbers.count == 2 + Name.allCases.count, numbers.allSatisfy({ UInt32(exactly: $0) != nil }),
      ([numbers[1]] + numbers.suffix(2)).allSatisfy({ 0...255 ~= $0 })
    else { return nil }
    func real(_ bits: Int) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: bits)) }
    scale = real(numbers[0])
    inputZero = numbers[1]
    reals = numbers[2..<7].map(real)
    integers = Array(numbers[7...])
  }

  /// The words that lie in memory.
  var words: [UInt32] { reals.map(\.bitPattern) + integers.map { UInt32(truncatingIfNeeded: $0) } }
}
